//! The decision: which arm serves a targeting key, and why.
//!
//! A decision asks its [`Layer`]s in order and takes the first answer. [`explain`] asks the very same functions and
//! keeps what each said, so an explanation cannot differ from the decision that it explains.

use crate::flag::Flag;
use crate::flag::bucket::Bucket;
use crate::flag::percentage::Percentage;
use crate::flag::rollout::{Phase, Rollout};

/// The longest targeting key, in bytes; a longer one counts as none.
pub const MAX_TARGETING_KEY_BYTES: usize = 4096;

/// One side of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arm {
    /// The implementation that is known to work.
    Stable,
    /// The implementation on trial.
    Canary,
}

impl Arm {
    /// Both, stable first.
    pub const BOTH: [Self; 2] = [Self::Stable, Self::Canary];

    /// As written in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

/// Why a decision came out as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The targeting key is on the beta list.
    Beta,
    /// The key's bucket was held against the percentage in force, either way.
    Percentage,
    /// The flag is switched off.
    Disabled,
    /// A rollback is latched.
    RolledBack,
    /// There is no targeting key to decide by.
    NoKey,
}

impl Reason {
    /// As written in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Beta => "BETA",
            Self::Percentage => "PERCENTAGE",
            Self::Disabled => "DISABLED",
            Self::RolledBack => "ROLLED_BACK",
            Self::NoKey => "NO_KEY",
        }
    }
}

/// One decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// Who serves.
    pub arm: Arm,
    /// Why.
    pub reason: Reason,
}

/// A layer of the decision; each outranks those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The kill switch in the flag file.
    Enabled,
    /// A latched rollback.
    Latch,
    /// The beta list.
    Beta,
    /// The percentage in force. It always answers.
    Percentage,
}

impl Layer {
    /// As written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Latch => "rollback",
            Self::Beta => "beta",
            Self::Percentage => "percentage",
        }
    }
}

/// What one layer said to one targeting key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The layer that was asked.
    pub layer: Layer,
    /// Its answer; `None` hands the question on.
    pub answer: Option<Evaluation>,
}

/// Decides `flag` in the state `rollout` for `targeting_key`. Total, and free of allocation.
#[must_use]
pub fn evaluate(flag: &Flag, rollout: &Rollout, targeting_key: Option<&str>) -> Evaluation {
    let key = usable(targeting_key);
    enabled(flag)
        .or_else(|| latch(rollout))
        .or_else(|| beta(flag, key))
        .unwrap_or_else(|| percentage(flag, rollout, key))
}

/// What each layer said until one decided; the last step is the decision. The bucket is there if there is a usable key.
#[must_use]
pub fn explain(flag: &Flag, rollout: &Rollout, targeting_key: Option<&str>) -> (Vec<Step>, Option<Bucket>) {
    let key = usable(targeting_key);
    let asked = [
        (Layer::Enabled, enabled(flag)),
        (Layer::Latch, latch(rollout)),
        (Layer::Beta, beta(flag, key)),
        (Layer::Percentage, Some(percentage(flag, rollout, key))),
    ];
    let mut steps = Vec::new();
    for (layer, answer) in asked {
        steps.push(Step { layer, answer });
        if answer.is_some() {
            break;
        }
    }
    (steps, key.map(|key| flag.bucketer.bucket(key)))
}

/// The key, unless it is empty or too long to be one.
fn usable(targeting_key: Option<&str>) -> Option<&str> {
    targeting_key.filter(|key| !key.is_empty() && key.len() <= MAX_TARGETING_KEY_BYTES)
}

fn enabled(flag: &Flag) -> Option<Evaluation> {
    (!flag.enabled).then_some(Evaluation { arm: Arm::Stable, reason: Reason::Disabled })
}

fn latch(rollout: &Rollout) -> Option<Evaluation> {
    (rollout.phase == Phase::RolledBack).then_some(Evaluation { arm: Arm::Stable, reason: Reason::RolledBack })
}

fn beta(flag: &Flag, key: Option<&str>) -> Option<Evaluation> {
    key.filter(|key| flag.beta.contains(key)).map(|_| Evaluation { arm: Arm::Canary, reason: Reason::Beta })
}

fn percentage(flag: &Flag, rollout: &Rollout, key: Option<&str>) -> Evaluation {
    let (owned, reason) = match key {
        Some(key) => (rollout.percentage.owns(flag.bucketer.bucket(key)), Reason::Percentage),
        None => (rollout.percentage == Percentage::FULL, Reason::NoKey),
    };
    Evaluation { arm: if owned { Arm::Canary } else { Arm::Stable }, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flag::bucket::{Bucketer, HashVersion};
    use crate::flag::rollout::Generation;

    fn flag(enabled: bool) -> Flag {
        Flag {
            key: "async-database".parse().unwrap(),
            description: String::new(),
            owner: String::new(),
            enabled,
            release: "1".to_owned(),
            stable: "sync".parse().unwrap(),
            canary: "async".parse().unwrap(),
            percentage: Percentage::ZERO,
            bucketer: Bucketer::new(HashVersion::FlagdV2, "async-database"),
            beta: ["alice", "bob"].into_iter().collect(),
        }
    }

    fn rollout(phase: Phase, percent: f64) -> Rollout {
        let mut rollout = Rollout::begin(&flag(true), Generation::FIRST);
        rollout.phase = phase;
        rollout.percentage = Percentage::from_percent(percent).unwrap();
        rollout
    }

    #[track_caller]
    fn check(enabled: bool, phase: Phase, percent: f64, key: Option<&str>, arm: Arm, reason: Reason) {
        assert_eq!(evaluate(&flag(enabled), &rollout(phase, percent), key), Evaluation { arm, reason });
    }

    #[test]
    fn each_layer_outranks_those_after_it() {
        check(false, Phase::RolledBack, 100.0, Some("alice"), Arm::Stable, Reason::Disabled);
        check(true, Phase::RolledBack, 100.0, Some("alice"), Arm::Stable, Reason::RolledBack);
        check(true, Phase::Manual, 0.0, Some("alice"), Arm::Canary, Reason::Beta);
        check(true, Phase::Manual, 0.0, Some("carol"), Arm::Stable, Reason::Percentage);
        check(true, Phase::Paused, 100.0, Some("carol"), Arm::Canary, Reason::Percentage);
        check(true, Phase::Promoted, 100.0, Some("carol"), Arm::Canary, Reason::Percentage);
    }

    #[test]
    fn without_a_usable_key_only_a_full_canary_is_served() {
        let long = "k".repeat(MAX_TARGETING_KEY_BYTES + 1);
        for key in [None, Some(""), Some(long.as_str())] {
            check(true, Phase::Manual, 99.999, key, Arm::Stable, Reason::NoKey);
            check(true, Phase::Manual, 100.0, key, Arm::Canary, Reason::NoKey);
        }
        check(true, Phase::Manual, 100.0, Some(&long[1..]), Arm::Canary, Reason::Percentage);
    }

    proptest! {
        #[test]
        fn an_explanation_ends_in_the_decision(
            enabled: bool,
            phase in prop::sample::select(vec![Phase::Manual, Phase::Paused, Phase::RolledBack, Phase::Promoted]),
            buckets in 0_u32..=100_000,
            key in prop::option::of("alice|bob|.{0,8}"),
        ) {
            let (flag, rollout) = (flag(enabled), rollout(phase, f64::from(buckets) / 1000.0));
            let (steps, _) = explain(&flag, &rollout, key.as_deref());
            let (last, handed_on) = steps.split_last().unwrap();
            prop_assert_eq!(last.answer, Some(evaluate(&flag, &rollout, key.as_deref())));
            prop_assert!(handed_on.iter().all(|step| step.answer.is_none()));
        }
    }
}
