//! The decision: which arm serves a targeting key, and why.
//!
//! A decision asks its [`Layer`]s in order and takes the first answer. [`explain`] asks the very same functions and
//! keeps what each said, so an explanation cannot differ from the decision that it explains.

use crate::flag::bucket::Bucket;
use crate::flag::percentage::Percentage;
use crate::flag::rollout::{Phase, Rollout};
use crate::flag::{EvaluationContext, Flag, RuleTrace};

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
    /// A rule matched.
    Rule,
    /// The key's bucket was held against the percentage in force, either way.
    Percentage,
    /// The flag is switched off.
    Disabled,
    /// A rollback is latched.
    RolledBack,
    /// There is no targeting key to decide by.
    NoKey,
    /// A tester asked for this arm, and may.
    Override,
}

impl Reason {
    /// As written in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Beta => "BETA",
            Self::Rule => "RULE",
            Self::Percentage => "PERCENTAGE",
            Self::Disabled => "DISABLED",
            Self::RolledBack => "ROLLED_BACK",
            Self::NoKey => "NO_KEY",
            Self::Override => "OVERRIDE",
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
    /// A tester's wish.
    Override,
    /// The beta list.
    Beta,
    /// The rules, in their order.
    Rules,
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
            Self::Override => "override",
            Self::Beta => "beta",
            Self::Rules => "rules",
            Self::Percentage => "percentage",
        }
    }
}

/// What one layer said to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The layer that was asked.
    pub layer: Layer,
    /// Its answer; `None` hands the question on.
    pub answer: Option<Evaluation>,
}

/// A decision with all that led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Derivation {
    /// The decision.
    pub evaluation: Evaluation,
    /// What each layer said until one decided; the last step is the decision.
    pub steps: Vec<Step>,
    /// How each rule was found, up to the first that matches; none if the rules were not asked.
    pub rules: Vec<RuleTrace>,
    /// The targeting key's bucket, if there is a usable key.
    pub bucket: Option<Bucket>,
}

/// Decides `flag` in the state `rollout` for one request. Total, and free of allocation.
#[must_use]
pub fn evaluate(flag: &Flag, rollout: &Rollout, context: &EvaluationContext<'_>) -> Evaluation {
    let context = context.usable();
    enabled(flag)
        .or_else(|| latch(rollout))
        .or_else(|| chosen(&context))
        .or_else(|| beta(flag, rollout, &context))
        .or_else(|| rules(flag, &context))
        .unwrap_or_else(|| percentage(flag, rollout, &context))
}

/// The same decision, and all that led to it.
#[must_use]
pub fn explain(flag: &Flag, rollout: &Rollout, context: &EvaluationContext<'_>) -> Derivation {
    let context = context.usable();
    let last = percentage(flag, rollout, &context);
    let asked = [
        (Layer::Enabled, enabled(flag)),
        (Layer::Latch, latch(rollout)),
        (Layer::Override, chosen(&context)),
        (Layer::Beta, beta(flag, rollout, &context)),
        (Layer::Rules, rules(flag, &context)),
        (Layer::Percentage, Some(last)),
    ];
    let decisive = asked.iter().position(|(_, answer)| answer.is_some());
    let steps: Vec<_> = asked
        .into_iter()
        .take(decisive.map_or(0, |index| index + 1))
        .filter(|(layer, answer)| *layer != Layer::Override || answer.is_some())
        .map(|(layer, answer)| Step { layer, answer })
        .collect();
    let were_asked = steps.iter().any(|step| step.layer == Layer::Rules);
    Derivation {
        evaluation: steps.iter().find_map(|step| step.answer).unwrap_or(last),
        rules: if were_asked { flag.rules.trace(&context) } else { Vec::new() },
        bucket: context.targeting_key.map(|key| flag.bucketer.bucket(key)),
        steps,
    }
}

fn enabled(flag: &Flag) -> Option<Evaluation> {
    (!flag.enabled).then_some(Evaluation { arm: Arm::Stable, reason: Reason::Disabled })
}

fn latch(rollout: &Rollout) -> Option<Evaluation> {
    (rollout.phase == Phase::RolledBack).then_some(Evaluation { arm: Arm::Stable, reason: Reason::RolledBack })
}

fn chosen(context: &EvaluationContext<'_>) -> Option<Evaluation> {
    context.chosen.map(|arm| Evaluation { arm, reason: Reason::Override })
}

fn beta(flag: &Flag, rollout: &Rollout, context: &EvaluationContext<'_>) -> Option<Evaluation> {
    let listed = context.targeting_key.is_some_and(|key| rollout.beta.contains(&flag.beta, key));
    listed.then_some(Evaluation { arm: Arm::Canary, reason: Reason::Beta })
}

fn rules(flag: &Flag, context: &EvaluationContext<'_>) -> Option<Evaluation> {
    flag.rules.first_match(context).map(|rule| Evaluation { arm: rule.serve, reason: Reason::Rule })
}

fn percentage(flag: &Flag, rollout: &Rollout, context: &EvaluationContext<'_>) -> Evaluation {
    let (owned, reason) = match context.targeting_key {
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
    use crate::flag::context::{MAX_TARGETING_KEY_BYTES, Moment};
    use crate::flag::rollout::Generation;
    use crate::flag::rule::{Attribute, Condition, Rule, Rules, Test, TextTest};

    fn context(key: Option<&str>) -> EvaluationContext<'_> {
        EvaluationContext::of_key(key, Moment::from_unix_millis(0))
    }

    fn rule(test: Test, serve: Arm) -> Rule {
        Rule { when: [Condition { test, line: 0 }].into(), serve, line: 0 }
    }

    /// Everyone whose key begins with `vip-`, and stable for requests without a key.
    fn some_rules() -> Rules {
        let vip = Test::Text(Attribute::User, TextTest::Prefix("vip-".into()));
        let nobody =
            Test::Not(Box::new(Condition { test: Test::Text(Attribute::User, TextTest::Exists(true)), line: 0 }));
        Rules::from_iter([rule(vip, Arm::Canary), rule(nobody, Arm::Stable)])
    }

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
            rules: Rules::default(),
            ramp: None,
            shadow: None,
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
        assert_eq!(evaluate(&flag(enabled), &rollout(phase, percent), &context(key)), Evaluation { arm, reason });
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
    fn a_tester_outranks_all_but_the_kill_switch_and_the_latch() {
        for arm in Arm::BOTH {
            let asked = EvaluationContext { chosen: Some(arm), ..context(Some("alice")) };
            let at = |enabled, phase| evaluate(&flag(enabled), &rollout(phase, 100.0), &asked);
            assert_eq!(at(true, Phase::Manual), Evaluation { arm, reason: Reason::Override });
            assert_eq!(at(true, Phase::RolledBack).reason, Reason::RolledBack);
            assert_eq!(at(false, Phase::Manual).reason, Reason::Disabled);
        }
    }

    #[test]
    fn rules_come_after_the_beta_list_and_before_the_percentage() {
        let flag = Flag { rules: some_rules(), ..flag(true) };
        let at = |percent: f64, key| evaluate(&flag, &rollout(Phase::Manual, percent), &context(key));
        assert_eq!(at(0.0, Some("vip-1")), Evaluation { arm: Arm::Canary, reason: Reason::Rule });
        assert_eq!(at(100.0, None), Evaluation { arm: Arm::Stable, reason: Reason::Rule });
        assert_eq!(at(0.0, Some("alice")), Evaluation { arm: Arm::Canary, reason: Reason::Beta });
        assert_eq!(at(100.0, Some("carol")), Evaluation { arm: Arm::Canary, reason: Reason::Percentage });
        let latched = evaluate(&flag, &rollout(Phase::RolledBack, 100.0), &context(Some("vip-1")));
        assert_eq!(latched, Evaluation { arm: Arm::Stable, reason: Reason::RolledBack });
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
        fn every_text_is_decided(key in prop::collection::vec(any::<char>(), 0..1500), percent in 0_u32..=100) {
            let key: String = key.into_iter().collect();
            let flag = Flag { rules: some_rules(), ..flag(true) };
            let rollout = rollout(Phase::Manual, f64::from(percent));
            let decided = evaluate(&flag, &rollout, &context(Some(&key)));
            if key.is_empty() || key.len() > MAX_TARGETING_KEY_BYTES {
                prop_assert_eq!(decided, evaluate(&flag, &rollout, &context(None)), "it counts as no key");
            } else {
                prop_assert_ne!(decided.reason, Reason::NoKey);
                prop_assert_eq!(decided, evaluate(&flag, &rollout, &context(Some(&key))), "it sticks");
            }
        }

        #[test]
        fn an_explanation_ends_in_the_decision(
            enabled: bool,
            phase in prop::sample::select(Phase::ALL.to_vec()),
            buckets in 0_u32..=100_000,
            key in prop::option::of("alice|bob|vip-.|.{0,8}"),
        ) {
            let flag = Flag { rules: some_rules(), ..flag(enabled) };
            let rollout = rollout(phase, f64::from(buckets) / 1000.0);
            let derivation = explain(&flag, &rollout, &context(key.as_deref()));
            prop_assert_eq!(derivation.evaluation, evaluate(&flag, &rollout, &context(key.as_deref())));
            let (last, handed_on) = derivation.steps.split_last().unwrap();
            prop_assert_eq!(last.answer, Some(derivation.evaluation));
            let matched: Vec<_> = derivation.rules.iter().filter(|rule| rule.matched).map(|rule| rule.serve).collect();
            let decided = if derivation.evaluation.reason == Reason::Rule { vec![derivation.evaluation.arm] } else { vec![] };
            prop_assert_eq!(matched, decided);
            prop_assert!(handed_on.iter().all(|step| step.answer.is_none()));
        }
    }
}
