//! What the rollouts remember beside the flag set in force.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::api::{Instance, Rollback};
use crate::clock;
use crate::flag::{FlagKey, Generation, Phase, Rollout, SecondOperator};
use crate::flag_file::Definition;
use crate::recorder::RecordedFlag;
use crate::rollout::arrival::Kept;
use crate::rollout::ramp::Progress;
use crate::rollout::seconds::Tape;
use crate::rollout::trial::{OnTrial, Sharing};
use crate::store::{ArmCounts, Record, StoredApproval, StoredRollout, StoredTrial};

/// A flag in force, apart from what decisions need.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) definition: Definition,
    pub(crate) on_trial: OnTrial,
    pub(crate) sharing: Sharing,
    /// How far the rollout has come on its ramp's step.
    pub(crate) progress: Progress,
    /// What was heard, second by second.
    pub(crate) tape: Tape,
    /// The rollback, while its latch holds.
    pub(crate) rollback: Option<Rollback>,
}

impl Live {
    pub(crate) fn new(
        definition: Definition,
        rollout: &Rollout,
        rollback: Option<Rollback>,
        since: Generation,
        sharing: Sharing,
        kept: Option<StoredTrial>,
    ) -> Self {
        let on_trial = OnTrial::new(&definition.guard, basis(&definition), since, sharing, kept);
        Self { on_trial, sharing, progress: Progress::begin(rollout), tape: Tape::default(), definition, rollback }
    }

    /// Goes on with `after`, another generation. The trial of the release goes on too, unless a latch was lifted: whoever lifts it
    /// has seen the evidence, and gives the canary another chance.
    ///
    /// What `before` has counted since the last tick still belongs to the evidence: the next tick only sees what follows.
    pub(crate) fn next_generation(
        &mut self,
        gateway: &str,
        before: &RecordedFlag,
        after: &Rollout,
        rollback: Option<Rollback>,
    ) {
        self.on_trial.observe(clock::now(), before);
        if before.rollout.enabled && before.rollout.phase != Phase::RolledBack {
            self.tape.add(clock::wall().as_second(), gateway, before, self.on_trial.heard());
        }
        self.on_trial.next_generation(&before.attached);
        if self.rollback.is_some() && rollback.is_none() {
            let basis = basis(&self.definition);
            self.on_trial = OnTrial::new(&self.definition.guard, basis, after.generation, self.sharing, None);
        }
        if before.rollout.percentage != after.percentage {
            self.on_trial.ask_for_assurance();
        }
        self.progress = Progress::begin(after);
        self.rollback = rollback;
    }
}

/// What is on trial and by which guard: as long as it is the same, so is the trial.
pub(crate) fn basis(definition: &Definition) -> String {
    let Definition { flag, guard, failures, .. } = definition;
    format!("{:?}", (&flag.release, &flag.stable, &flag.canary, &flag.bucketer, guard, failures))
}

#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) live: BTreeMap<FlagKey, Live>,
    /// Rollouts in the store whose flags have no file now.
    pub(crate) dormant: BTreeMap<FlagKey, StoredRollout>,
    /// The evidence in the store, until its flag is there.
    pub(crate) kept_trials: BTreeMap<FlagKey, StoredTrial>,
    /// The generation with which a rollback of each flag was last lifted: the evidence of before is not that of the trial.
    pub(crate) lifted: BTreeMap<FlagKey, Generation>,
    /// Whether the store could not be read yet.
    pub(crate) unread: bool,
    /// When evidence was last exchanged with other gateways.
    pub(crate) exchanged: Instant,
    /// How many parcels of evidence this gateway has packed.
    pub(crate) parcels: i64,
    /// What is in force and not in the store yet, oldest first.
    pub(crate) unsaved: VecDeque<Record>,
    /// The generation of a change that is being stored: a rollback at this moment takes the one after.
    pub(crate) reserved: Option<(FlagKey, Generation)>,
    /// What is wrong with the flag files, if the set in force is not theirs.
    pub(crate) bad_files: Vec<String>,
    /// Why the store last failed, if it has not succeeded since.
    pub(crate) store_error: Option<String>,
    pub(crate) counters: Counters,
    /// The gateways that share the store, as it was last read.
    pub(crate) instances: Vec<Instance>,
    /// Which changes take a second operator, if any do.
    pub(crate) second_operator: Option<SecondOperator>,
    /// The changes that wait for one, as they were last read.
    pub(crate) waiting: Vec<StoredApproval>,
    /// What the other gateways have counted, as it was last read.
    pub(crate) others: Vec<ArmCounts>,
    /// What they were told of this one's.
    pub(crate) told: Vec<ArmCounts>,
    /// The newest generation of each flag that this gateway wrote.
    pub(crate) written: BTreeMap<FlagKey, Generation>,
}

impl Book {
    /// A book with nothing in it, since nothing was read yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            lifted: BTreeMap::new(),
            unread: true,
            exchanged: now,
            parcels: 0,
            kept_trials: BTreeMap::new(),
            live: BTreeMap::new(),
            dormant: BTreeMap::new(),
            unsaved: VecDeque::new(),
            reserved: None,
            bad_files: Vec::new(),
            store_error: None,
            instances: Vec::new(),
            others: Vec::new(),
            told: Vec::new(),
            second_operator: None,
            waiting: Vec::new(),
            written: BTreeMap::new(),
            counters: Counters { rollbacks: BTreeMap::new(), reloads: BTreeMap::new(), flags_since: now },
        }
    }

    /// Goes on from what was read.
    pub(crate) fn take_up(&mut self, kept: Kept) {
        self.kept_trials = kept.trials.into_iter().map(|trial| (trial.flag.clone(), trial)).collect();
        self.dormant = kept.rollouts.into_iter().map(|stored| (stored.flag.clone(), stored)).collect();
        (self.lifted, self.waiting) = (kept.lifted, kept.waiting);
        self.unread = false;
        self.store_error = None;
    }

    /// `rollout`, with a generation of its own even if a change of the flag is just being stored.
    pub(crate) fn after_reserved(&self, key: &FlagKey, rollout: Rollout) -> Rollout {
        match &self.reserved {
            Some((flag, reserved)) if flag == key => {
                Rollout { generation: rollout.generation.max(reserved.next()), ..rollout }
            }
            _ => rollout,
        }
    }

    /// Whether the files say what they said before.
    pub(crate) fn is_same(&self, definitions: &[Definition]) -> bool {
        self.live.len() == definitions.len()
            && definitions.iter().all(|new| self.live.get(&new.flag.key).is_some_and(|live| live.definition == *new))
    }
}

/// How a reading of the flag files ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReloadResult {
    /// Another set is in force.
    Applied,
    /// The set in force stays, since the files are bad.
    Rejected,
}

impl ReloadResult {
    /// As written in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
        }
    }
}

/// Counts of what happened since the start.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Rollbacks by flag and cause.
    pub rollbacks: BTreeMap<(FlagKey, String), u64>,
    /// Readings of the flag files that changed something or failed.
    pub reloads: BTreeMap<ReloadResult, u64>,
    /// Since when the flag files' set is in force.
    pub flags_since: Instant,
}

impl Counters {
    pub(crate) fn count_rollback(&mut self, flag: &FlagKey, cause: &str) {
        *self.rollbacks.entry((flag.clone(), cause.to_owned())).or_default() += 1;
    }

    pub(crate) fn count_reload(&mut self, result: ReloadResult) {
        *self.reloads.entry(result).or_default() += 1;
    }
}
