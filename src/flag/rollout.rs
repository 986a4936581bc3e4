//! A flag's live state and the changes it may go through.
//!
//! Each change is a function from one state to the next. It keeps the generation where nothing changes, so that asking
//! twice for the same thing is no second change.

use std::fmt;

use crate::flag::Flag;
use crate::flag::percentage::Percentage;

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
    /// Held where it is until a person resumes it; the canary is still judged.
    Paused,
    /// Latched: everyone is on stable until a person resumes it or the file names a new release.
    RolledBack,
    /// Everyone is on canary, and meant to stay there.
    Promoted,
}

impl Phase {
    /// Every phase, in the order of a rollout's life.
    pub const ALL: [Self; 4] = [Self::Manual, Self::Paused, Self::RolledBack, Self::Promoted];

    /// As written in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
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
}

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A rollback is latched.
    #[error("the canary is rolled back; resume it first, or name a new release in its file")]
    RolledBack,
    /// There is neither a pause nor a latch to lift.
    #[error("nothing to resume: the rollout is neither paused nor rolled back")]
    NothingToResume,
    /// A rollout is resumed where it was or below.
    #[error("a rollout resumes at {0} or below; resume it, then set the higher percentage")]
    ResumeHigher(Percentage),
    /// There is nothing left to hold.
    #[error("the canary is promoted, there is nothing to pause; set a percentage to reopen the rollout")]
    Promoted,
}

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
            Self::Arms => "arms",
        }
    }
}

impl Rollout {
    /// A new rollout of what `flag` names.
    #[must_use]
    pub fn begin(flag: &Flag, generation: Generation) -> Self {
        Self {
            generation,
            release: flag.release.clone(),
            phase: Phase::Manual,
            percentage: flag.percentage,
            file_percentage: flag.percentage,
            enabled: flag.enabled,
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

    /// Moves the canary to `percentage`. A pause stays; a promotion is reopened.
    ///
    /// # Errors
    ///
    /// Under a latch.
    pub fn set(&self, percentage: Percentage) -> Result<Self, Refusal> {
        let phase = match self.phase {
            Phase::RolledBack => return Err(Refusal::RolledBack),
            Phase::Promoted if percentage == Percentage::FULL => Phase::Promoted,
            Phase::Promoted | Phase::Manual => Phase::Manual,
            Phase::Paused => Phase::Paused,
        };
        Ok(self.changed(phase, percentage))
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
            Phase::Manual | Phase::Paused => Ok(self.changed(Phase::Paused, self.percentage)),
        }
    }

    /// Lifts a pause or a latch, at the percentage before it or at a lower one.
    ///
    /// # Errors
    ///
    /// If there is nothing to lift, or `percentage` is above the one before.
    pub fn resume(&self, percentage: Option<Percentage>) -> Result<Self, Refusal> {
        match self.phase {
            Phase::Manual | Phase::Promoted => Err(Refusal::NothingToResume),
            Phase::Paused | Phase::RolledBack => {
                let percentage = percentage.unwrap_or(self.percentage);
                if percentage > self.percentage {
                    return Err(Refusal::ResumeHigher(self.percentage));
                }
                Ok(self.changed(Phase::Manual, percentage))
            }
        }
    }

    /// Puts everyone on canary for good.
    ///
    /// # Errors
    ///
    /// Under a latch.
    pub fn promote(&self) -> Result<Self, Refusal> {
        match self.phase {
            Phase::RolledBack => Err(Refusal::RolledBack),
            Phase::Manual | Phase::Paused | Phase::Promoted => Ok(self.changed(Phase::Promoted, Percentage::FULL)),
        }
    }

    /// Takes the canary out of traffic. Allowed in every phase.
    #[must_use]
    pub fn roll_back(&self) -> Self {
        self.changed(Phase::RolledBack, self.percentage)
    }

    /// Takes over what `flag`'s file now says; `previous` is the flag as it was, where this process has seen it.
    ///
    /// A new release starts a new rollout. Otherwise only an edit of the percentage moves the percentage, and not under
    /// a latch, which outranks every file.
    #[must_use]
    pub fn adopt(&self, flag: &Flag, previous: Option<&Flag>) -> (Self, Vec<Adoption>) {
        if flag.release != self.release {
            return (Self::begin(flag, self.generation.next()), vec![Adoption::Release]);
        }
        let mut next = self.clone();
        let mut adoptions = Vec::new();
        if flag.enabled != self.enabled {
            next.enabled = flag.enabled;
            adoptions.push(Adoption::Enabled);
        }
        if flag.percentage != self.file_percentage {
            next.file_percentage = flag.percentage;
            if let Ok(moved) = self.set(flag.percentage) {
                next.phase = moved.phase;
                next.percentage = moved.percentage;
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

    fn changed(&self, phase: Phase, percentage: Percentage) -> Self {
        let changed = phase != self.phase || percentage != self.percentage;
        Self {
            generation: if changed { self.generation.next() } else { self.generation },
            phase,
            percentage,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::bucket::{Bucketer, HashVersion};
    use crate::flag::rule::Rules;

    fn flag(release: &str, percent: f64, enabled: bool) -> Flag {
        Flag {
            key: "async-database".parse().unwrap(),
            description: String::new(),
            owner: String::new(),
            enabled,
            release: release.to_owned(),
            stable: "sync".parse().unwrap(),
            canary: "async".parse().unwrap(),
            percentage: percent_of(percent),
            bucketer: Bucketer::new(HashVersion::FlagdV2, "async-database"),
            beta: std::iter::empty::<&str>().collect(),
            rules: Rules::default(),
        }
    }

    fn percent_of(percent: f64) -> Percentage {
        Percentage::from_percent(percent).unwrap()
    }

    fn state(phase: Phase, percent: f64) -> Rollout {
        let mut rollout = Rollout::begin(&flag("1", 10.0, true), Generation::new(5));
        rollout.phase = phase;
        rollout.percentage = percent_of(percent);
        rollout
    }

    #[track_caller]
    fn check(result: Result<Rollout, Refusal>, expected: Result<(Phase, f64, u64), Refusal>) {
        let seen = result.map(|rollout| (rollout.phase, rollout.percentage.as_percent(), rollout.generation.get()));
        assert_eq!(seen, expected);
    }

    #[test]
    fn changes_by_people() {
        check(state(Phase::Manual, 10.0).set(percent_of(25.0)), Ok((Phase::Manual, 25.0, 6)));
        check(state(Phase::Manual, 10.0).set(percent_of(10.0)), Ok((Phase::Manual, 10.0, 5)));
        check(state(Phase::Paused, 10.0).set(percent_of(25.0)), Ok((Phase::Paused, 25.0, 6)));
        check(state(Phase::Promoted, 100.0).set(percent_of(50.0)), Ok((Phase::Manual, 50.0, 6)));
        check(state(Phase::RolledBack, 10.0).set(percent_of(25.0)), Err(Refusal::RolledBack));

        check(state(Phase::Manual, 10.0).pause(), Ok((Phase::Paused, 10.0, 6)));
        check(state(Phase::Paused, 10.0).pause(), Ok((Phase::Paused, 10.0, 5)));
        check(state(Phase::RolledBack, 10.0).pause(), Err(Refusal::RolledBack));
        check(state(Phase::Promoted, 100.0).pause(), Err(Refusal::Promoted));

        check(state(Phase::Paused, 10.0).resume(None), Ok((Phase::Manual, 10.0, 6)));
        check(state(Phase::RolledBack, 10.0).resume(None), Ok((Phase::Manual, 10.0, 6)));
        check(state(Phase::RolledBack, 10.0).resume(Some(percent_of(1.0))), Ok((Phase::Manual, 1.0, 6)));
        check(
            state(Phase::RolledBack, 10.0).resume(Some(percent_of(11.0))),
            Err(Refusal::ResumeHigher(percent_of(10.0))),
        );
        check(state(Phase::Manual, 10.0).resume(None), Err(Refusal::NothingToResume));

        check(state(Phase::Paused, 10.0).promote(), Ok((Phase::Promoted, 100.0, 6)));
        check(state(Phase::RolledBack, 10.0).promote(), Err(Refusal::RolledBack));

        check(Ok(state(Phase::Promoted, 100.0).roll_back()), Ok((Phase::RolledBack, 100.0, 6)));
        check(Ok(state(Phase::RolledBack, 10.0).roll_back()), Ok((Phase::RolledBack, 10.0, 5)));
    }

    #[track_caller]
    fn check_file(before: &Rollout, file: &Flag, adoptions: &[Adoption], phase: Phase, in_force: f64) {
        let (after, seen) = before.adopt(file, None);
        assert_eq!(seen, adoptions);
        assert_eq!((after.phase, after.in_force()), (phase, percent_of(in_force)));
        assert_eq!(after.generation > before.generation, !adoptions.is_empty());
        assert_eq!(after.adopt(file, Some(file)), (after.clone(), vec![]), "reading the same file again is no change");
    }

    #[test]
    fn changes_by_the_file() {
        let set = state(Phase::Manual, 25.0);
        check_file(&set, &flag("1", 10.0, true), &[], Phase::Manual, 25.0);
        check_file(&set, &flag("1", 50.0, true), &[Adoption::Percentage], Phase::Manual, 50.0);
        check_file(&set, &flag("1", 10.0, false), &[Adoption::Enabled], Phase::Manual, 0.0);
        check_file(&set, &flag("2", 10.0, true), &[Adoption::Release], Phase::Manual, 10.0);

        let latched = state(Phase::RolledBack, 25.0);
        check_file(&latched, &flag("1", 10.0, true), &[], Phase::RolledBack, 0.0);
        check_file(&latched, &flag("1", 50.0, true), &[Adoption::PercentageUnderLatch], Phase::RolledBack, 0.0);
        check_file(&latched, &flag("1", 10.0, false), &[Adoption::Enabled], Phase::RolledBack, 0.0);
        check_file(&latched, &flag("2", 50.0, true), &[Adoption::Release], Phase::Manual, 50.0);
    }

    #[test]
    fn a_latch_survives_the_kill_switch_and_edits_made_under_it() {
        let latched = state(Phase::RolledBack, 25.0);
        let (off, _) = latched.adopt(&flag("1", 10.0, false), None);
        let (edited, _) = off.adopt(&flag("1", 100.0, true), None);
        assert_eq!((edited.phase, edited.in_force()), (Phase::RolledBack, Percentage::ZERO));
        check(edited.resume(None), Ok((Phase::Manual, 25.0, 8)));
    }

    #[test]
    fn other_arms_are_another_generation() {
        let before = flag("1", 10.0, true);
        let mut after = before.clone();
        after.bucketer = Bucketer::new(HashVersion::FlagdV2, "other users first");
        let (_, adoptions) = state(Phase::Manual, 25.0).adopt(&after, Some(&before));
        assert_eq!(adoptions, [Adoption::Arms]);
    }
}
