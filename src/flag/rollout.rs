//! A flag's live state and the changes it may go through.
//!
//! Each change is a function from one state to the next. It keeps the generation where nothing changes, so that asking
//! twice for the same thing is no second change.

mod adoption;
mod change;
mod second;

use std::fmt;
use std::time::Duration;

use crate::flag::Flag;
use crate::flag::beta::BetaChanges;
use crate::flag::percentage::Percentage;
use crate::flag::ramp::Ramp;

pub use adoption::Adoption;
pub use change::Refusal;
pub use second::SecondOperator;

/// A number that grows with every change of a rollout, so that an outcome can be told from those of another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The first of a flag that was never seen before.
    pub const FIRST: Self = Self(1);

    /// The generation that `number` stands for.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a rollout stands. That a flag is switched off is not a phase of its rollout: it goes on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// People move the percentage.
    Manual,
    /// The ramp moves it, step by step.
    Ramping,
    /// Held where it is until a person resumes it; the canary is still judged.
    Paused,
    /// Latched: everyone is on stable until a person resumes it or the file names a new release.
    RolledBack,
    /// Everyone is on canary, and meant to stay there.
    Promoted,
}

impl Phase {
    /// Every phase, in the order of a rollout's life.
    pub const ALL: [Self; 5] = [Self::Manual, Self::Ramping, Self::Paused, Self::RolledBack, Self::Promoted];

    /// As written in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Ramping => "ramping",
            Self::Paused => "paused",
            Self::RolledBack => "rolled_back",
            Self::Promoted => "promoted",
        }
    }

    /// The phase that [`Phase::as_str`] writes as `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name)
    }
}

/// A flag's live state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Grows with every change.
    pub generation: Generation,
    /// What is being rolled out, as the file named it when this state was reached.
    pub release: String,
    /// Where the rollout stands.
    pub phase: Phase,
    /// The share of targeting keys on canary; under a latch, the share that resuming goes back to.
    pub percentage: Percentage,
    /// The file's percentage when it was last looked at: only an edit of it is a change.
    pub file_percentage: Percentage,
    /// The file's kill switch when it was last looked at.
    pub enabled: bool,
    /// Where the ramp stands, if the file had one when it was last looked at.
    pub ramp: Option<RampState>,
    /// What people changed in the beta list, over what the files say. It outlives releases.
    pub beta: BetaChanges,
}

/// How a rollout stands to its ramp. Which step it is on follows from its percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RampState {
    /// Whether the ramp moves the percentage, now or once a pause or a latch is lifted. A person who sets a percentage takes
    /// the rollout out of its ramp, and resuming puts it back.
    pub active: bool,
    /// For how long the ramp had run at this percentage when this generation began.
    pub held: Duration,
    /// How many requests of the canary the judge had heard in that time.
    pub requests: u64,
    /// Whether the ramp paused by itself, since the evidence did not come in time.
    pub inconclusive: bool,
}

impl RampState {
    /// At a percentage that was just reached.
    pub(crate) const RUNNING: Self = Self { active: true, held: Duration::ZERO, requests: 0, inconclusive: false };
    /// Taken over by a person.
    pub(crate) const LEFT: Self = Self { active: false, ..Self::RUNNING };
}

impl Rollout {
    /// A new rollout of what `flag` names: on the first step of its ramp, or where the file says.
    #[must_use]
    pub fn begin(flag: &Flag, generation: Generation) -> Self {
        let ramp = flag.ramp.as_ref();
        Self {
            generation,
            release: flag.release.clone(),
            phase: if ramp.is_some() { Phase::Ramping } else { Phase::Manual },
            percentage: ramp.map_or(flag.percentage, Ramp::first),
            file_percentage: flag.percentage,
            enabled: flag.enabled,
            ramp: ramp.map(|_| RampState::RUNNING),
            beta: BetaChanges::default(),
        }
    }

    /// The share of targeting keys that is on canary right now: none under a latch or with the flag switched off.
    #[must_use]
    pub fn in_force(&self) -> Percentage {
        if self.enabled && self.phase != Phase::RolledBack { self.percentage } else { Percentage::ZERO }
    }

    /// The phase as people see it: `disabled` hides the one below it.
    #[must_use]
    pub fn phase_name(&self) -> &'static str {
        if self.enabled { self.phase.as_str() } else { "disabled" }
    }

    fn changed(&self, phase: Phase, percentage: Percentage, ramp: RampState) -> Self {
        let next = Self { phase, percentage, ramp: self.ramp.map(|_| ramp), ..self.clone() };
        if next == *self { next } else { Self { generation: self.generation.next(), ..next } }
    }
}

#[cfg(test)]
mod tests;
