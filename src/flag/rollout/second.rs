//! Which changes two people have to want.

use std::time::Duration;

use crate::flag::percentage::Percentage;
use crate::flag::rollout::{Phase, Rollout};

/// When a change takes a second operator. One that gives nobody more to the canary never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondOperator {
    /// Whether whatever puts everyone on canary does.
    pub promote: bool,
    /// What leads to more than this does; to [`Percentage::FULL`], nothing by this.
    pub above: Percentage,
    /// For how long a change waits for the second one.
    pub expires: Duration,
}

impl SecondOperator {
    /// Whether the change from `before` to `after` takes one.
    #[must_use]
    pub fn is_needed(&self, before: &Rollout, after: &Rollout) -> bool {
        let (from, to) = (meant(before), meant(after));
        let is_promoted = after.phase == Phase::Promoted && before.phase != Phase::Promoted;
        let puts_everyone = is_promoted || (to == Percentage::FULL && from < to);
        (self.promote && puts_everyone) || (to > from && to > self.above)
    }
}

/// The share that is on canary, or will be as soon as the flag is switched on.
fn meant(rollout: &Rollout) -> Percentage {
    if rollout.phase == Phase::RolledBack { Percentage::ZERO } else { rollout.percentage }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::beta::BetaChanges;
    use crate::flag::rollout::Generation;

    fn rollout(phase: Phase, percentage: f64) -> Rollout {
        Rollout {
            generation: Generation::FIRST,
            release: "1".to_owned(),
            phase,
            percentage: Percentage::from_percent(percentage).unwrap(),
            file_percentage: Percentage::ZERO,
            enabled: false,
            ramp: None,
            beta: BetaChanges::default(),
        }
    }

    #[track_caller]
    fn check(before: (Phase, f64), after: (Phase, f64), [promote, above]: [bool; 2]) {
        let (before, after) = (rollout(before.0, before.1), rollout(after.0, after.1));
        let expires = Duration::from_secs(1);
        let by_promotion = SecondOperator { promote: true, above: Percentage::FULL, expires };
        let by_share = SecondOperator { promote: false, above: Percentage::from_percent(25.0).unwrap(), expires };
        assert_eq!([by_promotion.is_needed(&before, &after), by_share.is_needed(&before, &after)], [promote, above]);
    }

    #[test]
    fn whatever_raises_exposure_counts_and_nothing_that_lowers_it() {
        use Phase::{Manual, Paused, Promoted, Ramping, RolledBack};
        check((Manual, 10.0), (Manual, 25.0), [false, false]);
        check((Manual, 10.0), (Manual, 25.001), [false, true]);
        check((Manual, 30.0), (Manual, 26.0), [false, false]);
        check((Manual, 30.0), (Manual, 100.0), [true, true]);
        check((Manual, 30.0), (Promoted, 100.0), [true, true]);
        check((Manual, 100.0), (Promoted, 100.0), [true, false]);
        check((RolledBack, 50.0), (Manual, 50.0), [false, true]);
        check((RolledBack, 100.0), (Manual, 100.0), [true, true]);
        check((RolledBack, 50.0), (Manual, 1.0), [false, false]);
        check((Paused, 50.0), (Ramping, 50.0), [false, false]);
        check((Ramping, 25.0), (Ramping, 50.0), [false, true]);
        check((Manual, 100.0), (RolledBack, 100.0), [false, false]);
        check((Promoted, 100.0), (Manual, 30.0), [false, false]);
    }
}
