//! What people and the ramp do to a rollout.

use crate::flag::Flag;
use crate::flag::beta::{BetaChanged, TooManyChanges};
use crate::flag::percentage::Percentage;
use crate::flag::ramp::{Onward, Ramp, RampAction, Stay, Wait};
use crate::flag::rollout::{Phase, RampState, Rollout};

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A rollback is latched.
    #[error("the canary is rolled back; resume it first, or name a new release in its file")]
    RolledBack,
    /// There is neither a pause nor a latch to lift.
    #[error("nothing to resume: the rollout is neither paused nor rolled back, nor was it taken out of a ramp")]
    NothingToResume,
    /// A rollout is resumed where it was or below.
    #[error("a rollout resumes at {0} or below; resume it, then set the higher percentage")]
    ResumeHigher(Percentage),
    /// There is nothing left to hold.
    #[error("the canary is promoted, there is nothing to pause; set a percentage to reopen the rollout")]
    Promoted,
    /// No ramp is under way.
    #[error("no ramp moves this rollout now; with a [ramp] in its file, `resume` starts it")]
    NotRamping,
    /// The ramp is at no gate, or not yet.
    #[error("the ramp waits for no approval now; `skip` goes on to its next step without waiting")]
    NothingToApprove,
}

impl Rollout {
    /// Moves the canary to `percentage`, and takes it out of its ramp. A pause stays; a promotion is reopened.
    ///
    /// # Errors
    ///
    /// Under a latch.
    pub fn set(&self, percentage: Percentage) -> Result<Self, Refusal> {
        let phase = match self.phase {
            Phase::RolledBack => return Err(Refusal::RolledBack),
            Phase::Promoted if percentage == Percentage::FULL => Phase::Promoted,
            Phase::Promoted | Phase::Manual | Phase::Ramping => Phase::Manual,
            Phase::Paused => Phase::Paused,
        };
        Ok(self.changed(phase, percentage, RampState::LEFT))
    }

    /// Puts the users `add` on the beta list of `flag`, and takes the users `remove` off it, in every phase.
    ///
    /// # Errors
    ///
    /// If there would be too many changes.
    pub fn change_beta(
        &self,
        flag: &Flag,
        add: &[String],
        remove: &[String],
        by: &str,
        at: &str,
    ) -> Result<(Self, BetaChanged), TooManyChanges> {
        let (beta, changed) = self.beta.with(&flag.beta, add, remove, by, at)?;
        let generation = if beta == self.beta { self.generation } else { self.generation.next() };
        Ok((Self { generation, beta, ..self.clone() }, changed))
    }

    /// Holds the rollout where it is.
    ///
    /// # Errors
    ///
    /// Under a latch, or if it is promoted.
    pub fn pause(&self) -> Result<Self, Refusal> {
        match self.phase {
            Phase::RolledBack => Err(Refusal::RolledBack),
            Phase::Promoted => Err(Refusal::Promoted),
            Phase::Manual | Phase::Ramping | Phase::Paused => {
                Ok(self.changed(Phase::Paused, self.percentage, self.ramp.unwrap_or_default()))
            }
        }
    }

    /// Lifts a pause or a latch, at the percentage before it or at a lower one; or puts a rollout that a person took over back
    /// into its ramp, on the first step or above.
    ///
    /// After a pause by a person, the time that the step has been held counts. After any other stop the step begins anew.
    ///
    /// # Errors
    ///
    /// If there is nothing to lift and no ramp to go back to, or `percentage` is above the one before.
    pub fn resume(&self, percentage: Option<Percentage>, ramp: Option<&Ramp>) -> Result<Self, Refusal> {
        let state = self.ramp.unwrap_or_default();
        let back = match (self.phase, ramp) {
            (Phase::Promoted | Phase::Ramping, _) | (Phase::Manual, None) => return Err(Refusal::NothingToResume),
            (Phase::Manual, Some(ramp)) => self.percentage.max(ramp.first()),
            (Phase::Paused | Phase::RolledBack, _) => self.percentage,
        };
        let percentage = percentage.unwrap_or(back);
        if percentage > back {
            return Err(Refusal::ResumeHigher(back));
        }
        if self.phase != Phase::Manual && !state.active {
            return Ok(self.changed(Phase::Manual, percentage, state));
        }
        let goes_on = self.phase == Phase::Paused && !state.inconclusive && percentage == self.percentage;
        Ok(self.changed(Phase::Ramping, percentage, if goes_on { state } else { RampState::RUNNING }))
    }

    /// Puts everyone on canary for good.
    ///
    /// # Errors
    ///
    /// Under a latch.
    pub fn promote(&self) -> Result<Self, Refusal> {
        match self.phase {
            Phase::RolledBack => Err(Refusal::RolledBack),
            Phase::Manual | Phase::Ramping | Phase::Paused | Phase::Promoted => Ok(self.promoted()),
        }
    }

    fn promoted(&self) -> Self {
        self.changed(Phase::Promoted, Percentage::FULL, RampState::LEFT)
    }

    /// Takes the canary out of traffic. Allowed in every phase.
    #[must_use]
    pub fn roll_back(&self) -> Self {
        let active = self.ramp.is_some_and(|ramp| ramp.active);
        self.changed(Phase::RolledBack, self.percentage, RampState { active, ..RampState::LEFT })
    }

    /// Goes on to the next step of `ramp` without waiting for anything, also out of a pause.
    ///
    /// # Errors
    ///
    /// If no ramp is under way.
    pub fn skip(&self, ramp: Option<&Ramp>) -> Result<Self, Refusal> {
        match (self.phase, ramp) {
            (Phase::RolledBack, _) => Err(Refusal::RolledBack),
            (Phase::Ramping | Phase::Paused, Some(ramp)) if self.ramp.is_some_and(|state| state.active) => {
                Ok(self.go(ramp.onward(self.percentage)))
            }
            (Phase::Ramping | Phase::Paused | Phase::Manual | Phase::Promoted, _) => Err(Refusal::NotRamping),
        }
    }

    /// Opens the gate of `ramp` that the rollout waits at, with `stay` behind it.
    ///
    /// # Errors
    ///
    /// If no ramp is under way, or it waits for something else.
    pub fn approve(&self, ramp: Option<&Ramp>, stay: Stay) -> Result<Self, Refusal> {
        match (self.phase, ramp) {
            (Phase::RolledBack, _) => Err(Refusal::RolledBack),
            (Phase::Ramping, Some(ramp)) if ramp.act(self.percentage, stay) == RampAction::Wait(Wait::Approval) => {
                Ok(self.go(ramp.onward(self.percentage)))
            }
            (Phase::Ramping, Some(_)) => Err(Refusal::NothingToApprove),
            (Phase::Ramping | Phase::Paused | Phase::Manual | Phase::Promoted, _) => Err(Refusal::NotRamping),
        }
    }

    /// Does what the ramp says. Where no ramp is under way, or it waits, that is nothing.
    #[must_use]
    pub fn follow(&self, action: RampAction) -> Self {
        match (self.phase, action) {
            (Phase::Ramping, RampAction::Go(onward)) => self.go(onward),
            (Phase::Ramping, RampAction::GiveUp) => {
                let state = RampState { inconclusive: true, ..self.ramp.unwrap_or_default() };
                self.changed(Phase::Paused, self.percentage, state)
            }
            (Phase::Ramping, RampAction::Wait(_))
            | (Phase::Manual | Phase::Paused | Phase::RolledBack | Phase::Promoted, _) => self.clone(),
        }
    }

    fn go(&self, onward: Onward) -> Self {
        match onward {
            Onward::Climb(percentage) => self.changed(Phase::Ramping, percentage, RampState::RUNNING),
            Onward::Promote => self.promoted(),
        }
    }
}
