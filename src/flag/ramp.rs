//! The ramp: steps by which a rollout goes up by itself, and what each of them waits for.
//!
//! Where a rollout stands on its ramp follows from its percentage alone, so that an edit of the steps, a restart or a lower
//! percentage after a rollback needs no case of its own.

use std::time::Duration;

use crate::flag::percentage::Percentage;

/// One step of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RampStep {
    /// The share of targeting keys on canary.
    pub percentage: Percentage,
    /// For how long the step is held at least.
    pub hold: Duration,
    /// Whether a person has to let the ramp go on.
    pub approve: bool,
}

impl RampStep {
    /// Whether there is nothing to wait for but a person, who then judges alone.
    #[must_use]
    pub fn is_gate(self) -> bool {
        self.approve && self.hold.is_zero()
    }

    /// Whether there is nothing to wait for once it is reached.
    fn is_end(self) -> bool {
        self.percentage == Percentage::FULL && self.hold.is_zero() && !self.approve
    }
}

/// By which steps a rollout goes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    steps: Vec<RampStep>,
    /// After this long on a step, a ramp that still lacks evidence pauses.
    pub max_hold: Duration,
    /// So many requests of the canary each step has to see, also where a wide tolerance would be satisfied with fewer.
    pub min_requests: u64,
}

/// Why steps make no ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RampError {
    /// Step `.0` (from 0) is not above the one before, or the first is 0 %.
    #[error("each step is above the one before it, and the first above 0 %")]
    NotRising(usize),
    /// The last step leaves users on stable.
    #[error("the last step is 100%; to stop before it, write a gate like \"50% approve\"")]
    NoEnd,
    /// Step `.0` (from 0) is held longer than the ramp waits for evidence.
    #[error("the step is held longer than `max_hold`, after which the ramp pauses; raise `max_hold`")]
    OverMaxHold(usize),
}

/// What a rollout has behind it at its percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// For how long it has stood there with the ramp running.
    pub held: Duration,
    /// How many requests of the canary the judge has heard in that time.
    pub requests: u64,
    /// Whether it is shown that the canary is not worse by more than the smallest regression that matters.
    pub not_worse: bool,
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Its time: so much is left.
    Time(Duration),
    /// Requests to the canary: so many are missing.
    Requests(u64),
    /// Evidence that the canary is not worse.
    Evidence,
    /// A person.
    Approval,
}

impl Wait {
    /// As written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time(_) => "time",
            Self::Requests(_) => "requests",
            Self::Evidence => "evidence",
            Self::Approval => "approval",
        }
    }
}

/// Where a ramp goes from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// To the next step.
    Climb(Percentage),
    /// To its end: the canary is promoted.
    Promote,
}

/// What a ramp does at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RampAction {
    /// Nothing: it waits.
    Wait(Wait),
    /// It goes on.
    Go(Onward),
    /// It pauses, since the evidence did not come in time.
    GiveUp,
}

impl Ramp {
    /// The ramp of these steps.
    ///
    /// # Errors
    ///
    /// If they do not rise from above 0 % to 100 %, or one is held longer than `max_hold`.
    pub fn new(steps: Vec<RampStep>, max_hold: Duration, min_requests: u64) -> Result<Self, RampError> {
        let mut before = Percentage::ZERO;
        for (index, step) in steps.iter().enumerate() {
            if step.percentage <= before {
                return Err(RampError::NotRising(index));
            }
            if step.hold > max_hold {
                return Err(RampError::OverMaxHold(index));
            }
            before = step.percentage;
        }
        if before == Percentage::FULL { Ok(Self { steps, max_hold, min_requests }) } else { Err(RampError::NoEnd) }
    }

    /// The steps, from the lowest to 100 %.
    #[must_use]
    pub fn steps(&self) -> &[RampStep] {
        &self.steps
    }

    /// Where a new release begins.
    #[must_use]
    pub fn first(&self) -> Percentage {
        self.steps.first().map_or(Percentage::FULL, |step| step.percentage)
    }

    /// The number, from 1, of the step that a rollout at `percentage` stands on: the highest that is not above it. Below the
    /// first step it is 0, and the first step's conditions hold.
    #[must_use]
    pub fn number_at(&self, percentage: Percentage) -> usize {
        self.steps.iter().filter(|step| step.percentage <= percentage).count()
    }

    /// Where the ramp goes from `percentage`.
    #[must_use]
    pub fn onward(&self, percentage: Percentage) -> Onward {
        match self.steps.iter().find(|step| step.percentage > percentage) {
            Some(step) if !step.is_end() => Onward::Climb(step.percentage),
            Some(_) | None => Onward::Promote,
        }
    }

    /// What the ramp does with a rollout at `percentage` that has `stay` behind it.
    ///
    /// By itself it goes on only after the step's time, with the requests that every step has to see, and while the canary is
    /// shown not to be worse; the comparison ends at 100 %, where stable has no users left.
    #[must_use]
    pub fn act(&self, percentage: Percentage, stay: Stay) -> RampAction {
        let number = self.number_at(percentage);
        let Some(step) = self.steps.get(number.saturating_sub(1)) else { return RampAction::GiveUp };
        if step.is_gate() {
            return RampAction::Wait(Wait::Approval);
        }
        if stay.held < step.hold {
            return RampAction::Wait(Wait::Time(step.hold.saturating_sub(stay.held)));
        }
        let missing = self.min_requests.saturating_sub(stay.requests);
        let compared = stay.not_worse || percentage == Percentage::FULL;
        match (missing, compared) {
            (0, true) if step.approve => RampAction::Wait(Wait::Approval),
            (0, true) => RampAction::Go(self.onward(percentage)),
            _ if stay.held >= self.max_hold => RampAction::GiveUp,
            (0, false) => RampAction::Wait(Wait::Evidence),
            (missing, _) => RampAction::Wait(Wait::Requests(missing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(percent: f64) -> Percentage {
        Percentage::from_percent(percent).unwrap()
    }

    fn step(share: f64, seconds: u64, approve: bool) -> RampStep {
        RampStep { percentage: percent(share), hold: Duration::from_secs(seconds), approve }
    }

    fn ramp(steps: Vec<RampStep>) -> Ramp {
        Ramp::new(steps, Duration::from_secs(100), 10).unwrap()
    }

    fn example() -> Ramp {
        ramp(vec![step(1.0, 10, false), step(5.0, 0, true), step(25.0, 20, true), step(100.0, 0, false)])
    }

    #[track_caller]
    fn check(share: f64, held: u64, requests: u64, not_worse: bool, action: RampAction) {
        let stay = Stay { held: Duration::from_secs(held), requests, not_worse };
        assert_eq!(example().act(percent(share), stay), action);
    }

    #[test]
    fn what_each_step_waits_for() {
        let wait = RampAction::Wait;
        check(1.0, 3, 500, true, wait(Wait::Time(Duration::from_secs(7))));
        check(1.0, 10, 3, true, wait(Wait::Requests(7)));
        check(1.0, 10, 10, false, wait(Wait::Evidence));
        check(1.0, 10, 10, true, RampAction::Go(Onward::Climb(percent(5.0))));
        check(1.0, 100, 10, false, RampAction::GiveUp);
        check(1.0, 100, 9, true, RampAction::GiveUp);
        check(5.0, 1_000_000, 0, false, wait(Wait::Approval));
        check(25.0, 20, 10, false, wait(Wait::Evidence));
        check(25.0, 20, 10, true, wait(Wait::Approval));
        check(0.5, 10, 10, true, RampAction::Go(Onward::Climb(percent(1.0))));
        check(3.0, 10, 10, true, RampAction::Go(Onward::Climb(percent(5.0))));
        check(100.0, 0, 10, false, RampAction::Go(Onward::Promote));
    }

    #[test]
    fn a_last_step_that_is_held_is_reached_before_it_is_the_end() {
        let ramp = ramp(vec![step(50.0, 1, false), step(100.0, 5, false)]);
        assert_eq!(ramp.onward(percent(50.0)), Onward::Climb(Percentage::FULL));
        let stay = |held| Stay { held: Duration::from_secs(held), requests: 10, not_worse: false };
        assert_eq!(ramp.act(Percentage::FULL, stay(4)), RampAction::Wait(Wait::Time(Duration::from_secs(1))), "held");
        assert_eq!(ramp.act(Percentage::FULL, stay(5)), RampAction::Go(Onward::Promote));
    }

    #[test]
    fn what_is_no_ramp() {
        let new = |steps| Ramp::new(steps, Duration::from_secs(100), 10).unwrap_err();
        assert_eq!(new(vec![]), RampError::NoEnd);
        assert_eq!(new(vec![step(50.0, 1, false)]), RampError::NoEnd);
        assert_eq!(new(vec![step(0.0, 1, false), step(100.0, 0, false)]), RampError::NotRising(0));
        assert_eq!(new(vec![step(5.0, 1, false), step(5.0, 0, false)]), RampError::NotRising(1));
        assert_eq!(new(vec![step(5.0, 101, false), step(100.0, 0, false)]), RampError::OverMaxHold(0));
    }

    fn ramps() -> impl Strategy<Value = Ramp> {
        let shares = prop::collection::btree_set(1_u32..100_000, 0..6);
        let kinds = prop::collection::vec((0_u64..100, any::<bool>()), 7);
        (shares, kinds).prop_map(|(shares, kinds)| {
            let shares = shares.into_iter().chain([100_000]);
            let steps = shares.zip(kinds).map(|(share, (hold, approve))| RampStep {
                percentage: Percentage::from_thousandths(share).unwrap(),
                hold: Duration::from_secs(hold),
                approve,
            });
            ramp(steps.collect())
        })
    }

    proptest! {
        #[test]
        fn it_goes_up_only_after_the_time_with_requests_and_evidence(
            ramp in ramps(), share in 0_u32..=100_000, held in 0_u64..200, requests in 0_u64..20, not_worse: bool,
        ) {
            let percentage = Percentage::from_thousandths(share).unwrap();
            let stay = Stay { held: Duration::from_secs(held), requests, not_worse };
            let step = ramp.steps()[ramp.number_at(percentage).saturating_sub(1)];
            match ramp.act(percentage, stay) {
                RampAction::Go(onward) => {
                    prop_assert!(!step.approve && stay.held >= step.hold && requests >= ramp.min_requests);
                    prop_assert!(not_worse || percentage == Percentage::FULL);
                    if let Onward::Climb(next) = onward {
                        prop_assert!(next > percentage);
                        prop_assert_eq!(ramp.number_at(next), ramp.number_at(percentage) + 1, "no step is left out");
                    }
                }
                RampAction::GiveUp => prop_assert!(!step.is_gate() && stay.held >= ramp.max_hold),
                RampAction::Wait(Wait::Approval) => prop_assert!(step.approve),
                RampAction::Wait(_) => {}
            }
        }

        #[test]
        fn it_ends_after_as_many_steps_as_it_has(ramp in ramps()) {
            let mut percentage = ramp.first();
            let mut steps = 1;
            while let Onward::Climb(next) = ramp.onward(percentage) {
                percentage = next;
                steps += 1;
            }
            prop_assert!(steps == ramp.steps().len() || (steps + 1 == ramp.steps().len() && percentage < Percentage::FULL));
        }

        #[test]
        fn more_behind_it_never_makes_it_wait_for_what_it_had(
            ramp in ramps(), share in 0_u32..=100_000, held in 0_u64..99, requests in 0_u64..20,
        ) {
            let percentage = Percentage::from_thousandths(share).unwrap();
            let stay = Stay { held: Duration::from_secs(held), requests, not_worse: true };
            let more = Stay { held: stay.held + Duration::from_millis(999), requests: requests + 1, ..stay };
            if let RampAction::Go(onward) = ramp.act(percentage, stay) {
                prop_assert_eq!(ramp.act(percentage, more), RampAction::Go(onward));
            }
        }
    }
}
