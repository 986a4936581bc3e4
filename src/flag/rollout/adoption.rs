//! What flag files do to a rollout.

use crate::flag::Flag;
use crate::flag::rollout::{Phase, RampState, Rollout};

/// What a flag file changed in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// A release that was not seen before: a new rollout.
    Release,
    /// The file's percentage was edited.
    Percentage,
    /// The file's percentage was edited, but a latch holds: noted, not applied.
    PercentageUnderLatch,
    /// The kill switch was turned, either way.
    Enabled,
    /// The file has a ramp now, and had none before.
    RampAdded,
    /// The file had a ramp before, and has none now.
    RampRemoved,
    /// Other users are drawn, or another backend serves an arm: what was counted before says nothing any more.
    Arms,
}

impl Adoption {
    /// As written in the audit trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Percentage => "percentage",
            Self::PercentageUnderLatch => "percentage_under_latch",
            Self::Enabled => "enabled",
            Self::RampAdded => "ramp_added",
            Self::RampRemoved => "ramp_removed",
            Self::Arms => "arms",
        }
    }
}

impl Rollout {
    /// Takes over what `flag`'s file now says; `previous` is the flag as it was, where this process has seen it.
    ///
    /// A new release starts a new rollout. Otherwise only an edit of the percentage moves the percentage, and not under
    /// a latch, which outranks every file. A ramp that is added takes over where people have brought the rollout; one that
    /// is removed leaves it to them.
    #[must_use]
    pub fn adopt(&self, flag: &Flag, previous: Option<&Flag>) -> (Self, Vec<Adoption>) {
        if flag.release != self.release {
            let begun = Self { beta: self.beta.clone(), ..Self::begin(flag, self.generation.next()) };
            return (begun, vec![Adoption::Release]);
        }
        let mut next = self.clone();
        let mut adoptions = Vec::new();
        if flag.enabled != self.enabled {
            next.enabled = flag.enabled;
            adoptions.push(Adoption::Enabled);
        }
        match (self.ramp.is_some(), &flag.ramp) {
            (false, Some(ramp)) => {
                next.ramp = Some(if self.phase == Phase::Promoted { RampState::LEFT } else { RampState::RUNNING });
                if self.phase == Phase::Manual {
                    (next.phase, next.percentage) = (Phase::Ramping, self.percentage.max(ramp.first()));
                }
                adoptions.push(Adoption::RampAdded);
            }
            (true, None) => {
                next.ramp = None;
                if self.phase == Phase::Ramping {
                    next.phase = Phase::Manual;
                }
                adoptions.push(Adoption::RampRemoved);
            }
            (true, Some(_)) | (false, None) => {}
        }
        // With a ramp that was just added, the percentage beside it is not what people want instead of it.
        if flag.percentage != self.file_percentage {
            next.file_percentage = flag.percentage;
            if adoptions.contains(&Adoption::RampAdded) {
                // Noted: only a later edit of it is a wish to leave the ramp.
            } else if let Ok(moved) = next.set(flag.percentage) {
                next = Self { generation: self.generation, ..moved };
                adoptions.push(Adoption::Percentage);
            } else {
                adoptions.push(Adoption::PercentageUnderLatch);
            }
        }
        let arms = |flag: &Flag| (flag.stable.clone(), flag.canary.clone(), flag.bucketer.clone());
        if previous.is_some_and(|previous| arms(previous) != arms(flag)) {
            adoptions.push(Adoption::Arms);
        }
        if !adoptions.is_empty() {
            next.generation = self.generation.next();
        }
        (next, adoptions)
    }
}
