//! The ledger of one generation of a flag, which outcomes are charged to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::flag::{Arm, Flag, FlagKey};
use crate::outcome::{FailureClasses, LatencyHistogram, Outcome, Tally};
use crate::recorder::Served;
use crate::recorder::account::{Account, Heard, thread_number};
use crate::recorder::samples::Samples;
use crate::recorder::units::{Affected, Unit, Units};
use crate::recorder::waits::{Answer, Lines, Wait, Waited, Waits};

/// Whose request it was, as far as the judge has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// The user, if the request had a targeting key.
    pub unit: Option<Unit>,
    /// Whether the percentage drew the user's arm: only such requests say how the arms compare. Users of a beta list or of a
    /// rule are other people than the average, and count for the canary's own limits alone.
    pub drawn: bool,
}

/// How a request to an arm ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'r> {
    /// What it counts as.
    pub outcome: Outcome,
    /// From its arrival to its end.
    pub duration: Duration,
    /// Who met the failure, if it is one.
    pub met: Met,
    /// What it is called in logs, so that it can be looked up.
    pub request_id: &'r str,
}

/// Who met the failure of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// The user.
    User,
    /// Only the gateway, which had the request served by stable instead. It is a failure of the canary all the same.
    Gateway,
}

/// The outcomes of one flag in one generation.
#[derive(Debug)]
pub struct Ledger {
    flag: FlagKey,
    stable: Account,
    canary: Account,
    units: Units,
    /// The canary's latest failures.
    samples: Samples,
    /// Its latest slow answers.
    slow: Samples,
    failures: FailureClasses,
    waits: Waits,
    /// The recorder's own count.
    long_keys: Arc<AtomicU64>,
}

impl Ledger {
    /// A ledger for another generation of `flag`, in which `failures` are failures.
    pub(crate) fn new(flag: &Flag, failures: FailureClasses, shards: usize, long_keys: Arc<AtomicU64>) -> Self {
        Self {
            flag: flag.key.clone(),
            stable: Account::new(&flag.stable, shards),
            canary: Account::new(&flag.canary, shards),
            units: Units::default(),
            samples: Samples::default(),
            slow: Samples::default(),
            failures,
            waits: Waits::new(shards),
            long_keys,
        }
    }

    /// Charges one request to `arm`. Takes no lock and allocates nothing.
    pub fn charge(&self, arm: Arm, party: Party, ending: Ending<'_>) {
        let failed = match ending.outcome {
            Outcome::Success => false,
            Outcome::Failure(_) => true,
            Outcome::NotCounted(_) => {
                self.account(arm).charge_uncounted();
                return;
            }
        };
        let admitted = party.unit.is_none_or(|unit| self.units.admit(arm, unit));
        if let (Some(unit), true, true) = (party.unit, admitted, failed) {
            self.units.fail(arm, unit);
        }
        let heard = match (admitted, party.drawn) {
            (true, true) => Heard::Compared,
            (true, false) => Heard::Apart,
            (false, _) => Heard::Not,
        };
        if failed && arm == Arm::Canary {
            self.samples.note(ending.request_id);
        }
        self.account(arm).charge(failed, ending.met == Met::User, heard, ending.duration);
    }

    /// Notes that a request to `arm` waits for its answer from now on; nothing if it is not judged by how long it does.
    /// Takes no lock and allocates nothing.
    pub fn begin_wait(&self, arm: Arm, party: Party) -> Option<Wait> {
        self.waits.begin(arm, party, self.own_shard())
    }

    /// Notes that it waits no more, after `elapsed`; `request_id` is what logs call it. Takes no lock and allocates nothing.
    pub fn end_wait(&self, arm: Arm, wait: Wait, elapsed: Duration, answer: Answer, request_id: &str) {
        let is_slow = self.waits.end(arm, wait, elapsed, answer, self.own_shard());
        if is_slow && arm == Arm::Canary {
            self.slow.note(request_id);
        }
    }

    /// Begins another cohort of waits, with these lines, and gives its number. The one of
    /// [`COHORTS`](crate::recorder::COHORTS) before gives up its place, so it should have been asked about.
    pub fn next_cohort(&self, lines: &Lines) -> u32 {
        self.waits.next_cohort(lines)
    }

    /// What became of a cohort by a line, to be asked once [`Lines::patience`] has passed since the next one began:
    /// whatever was not answered by then is slow.
    #[must_use]
    pub fn waited(&self, arm: Arm, cohort: u32, line: usize) -> Waited {
        self.waits.waited(arm, cohort, line)
    }

    /// How long stable's good answers took, of requests that are judged.
    #[must_use]
    pub fn stable_answers(&self) -> LatencyHistogram {
        self.waits.stable_answers()
    }

    /// Who was served by the canary, and to whom of them it was slow by this line.
    #[must_use]
    pub fn slowed_users(&self, line: usize) -> Affected {
        self.waits.canary_users(line)
    }

    fn own_shard(&self) -> usize {
        thread_number() % self.canary.shards().max(1)
    }

    /// What a failure is in this generation.
    #[must_use]
    pub fn failures(&self) -> FailureClasses {
        self.failures
    }

    /// Notes a request whose targeting key was too long, so that it counted as none.
    pub fn note_long_key(&self) {
        // Relaxed: see `Account::charge`.
        self.long_keys.fetch_add(1, Ordering::Relaxed);
    }

    /// The ids of the canary's latest failures, at most [`MAX_SAMPLES`](crate::recorder::MAX_SAMPLES), oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        self.samples.ids()
    }

    /// The ids of its latest requests that waited longer than the line of stable's 90th percentile or of `max_latency`, at most
    /// [`MAX_SAMPLES`](crate::recorder::MAX_SAMPLES), oldest first.
    #[must_use]
    pub fn slow_samples(&self) -> Vec<String> {
        self.slow.ids()
    }

    /// The canary's failures that users met: all but those that stable served in its place. Only ever grows.
    #[must_use]
    pub fn harm(&self) -> u64 {
        self.canary.sum(|shard| (&shard.harm, &shard.failures)).0
    }

    /// Requests to `arm` that the judge hears, and how many of them failed. Only ever grows.
    #[must_use]
    pub fn admitted(&self, arm: Arm) -> (u64, u64) {
        self.account(arm).sum(|shard| (&shard.admitted, &shard.admitted_failures))
    }

    /// Requests to `arm` that are compared with those to the other, and how many of them failed. Only ever grows.
    #[must_use]
    pub fn compared(&self, arm: Arm) -> (u64, u64) {
        self.account(arm).sum(|shard| (&shard.compared, &shard.compared_failures))
    }

    /// Who was served by the canary, and who of them saw a failure.
    #[must_use]
    pub fn canary_users(&self) -> Affected {
        self.units.affected(Arm::Canary)
    }

    /// The first `most` users who were served by the canary, and the first of those who saw a failure: by their places in tables
    /// that are the same in every process.
    #[must_use]
    pub fn some_canary_users(&self, most: usize) -> (Vec<u32>, Vec<u32>) {
        self.units.some(Arm::Canary, most)
    }

    /// The same of those to whom it was slow by this line.
    #[must_use]
    pub fn some_slowed_users(&self, line: usize, most: usize) -> (Vec<u32>, Vec<u32>) {
        self.waits.some_canary_users(line, most)
    }

    /// Begins another block, in which every user may be heard once more.
    pub fn next_block(&self) {
        self.units.next_block();
    }

    /// What has been charged to `arm` up to now.
    #[must_use]
    pub fn tally(&self, arm: Arm) -> Tally {
        self.account(arm).tally()
    }

    /// Requests to `arm` that count, and how many of them failed: the part of a tally that the judge looks at often.
    #[must_use]
    pub fn counts(&self, arm: Arm) -> (u64, u64) {
        let (successes, failures) = self.account(arm).sum(|shard| (&shard.successes, &shard.failures));
        (successes + failures, failures)
    }

    fn account(&self, arm: Arm) -> &Account {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }

    /// Adds what was charged to each variant to `totals`.
    pub(crate) fn add_to(&self, totals: &mut BTreeMap<Served, Tally>) {
        for arm in Arm::BOTH {
            let account = self.account(arm);
            totals.entry((self.flag.clone(), account.variant.clone())).or_default().add(&account.tally());
        }
    }
}
