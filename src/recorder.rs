//! Counts how requests ended: cumulative, sharded by thread, never lossy.
//!
//! A decision takes the [`Ledger`] of its flag's generation with it, and charges the outcome to that ledger whatever
//! has happened to the rollout meanwhile. So an outcome can neither be lost nor be counted for a state that it was not
//! decided under. Charging is a few relaxed additions on memory that the thread mostly has to itself.

mod samples;
mod suspects;
mod units;
mod waits;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::flag::{Arm, BackendName, Entry, Flag, FlagKey, FlagSet};
use crate::flag_store::FlagStore;
use crate::outcome::{FailureClasses, LATENCY_BUCKETS, LatencyHistogram, Outcome, Tally, latency_bucket};
use crate::recorder::samples::Samples;
use crate::recorder::waits::Waits;

pub use crate::recorder::samples::MAX_SAMPLES;
pub use crate::recorder::units::{Affected, Unit, Units};
pub use crate::recorder::waits::{ABSOLUTE_LINE, Answer, COHORTS, LINES, Line, Lines, Wait, Waited};

/// More shards than this gain nothing that is worth their memory (12 KiB a shard and ledger).
const MAX_SHARDS: usize = 8;

/// A flag in force together with the ledger of its generation.
pub type RecordedFlag = Entry<Arc<Ledger>>;

/// The flags in force, each with its ledger.
pub type RecordedFlagSet = FlagSet<Arc<Ledger>>;

/// The store of [`RecordedFlagSet`]s.
pub type RecordedFlagStore = FlagStore<Arc<Ledger>>;

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

/// What the judge hears of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing: it has heard enough of its user.
    Not,
    /// What it says of its arm alone.
    Apart,
    /// Also what it says of the arms beside each other.
    Compared,
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
    failures: FailureClasses,
    waits: Waits,
    /// The recorder's own count.
    long_keys: Arc<AtomicU64>,
}

impl Ledger {
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

    /// Notes that it waits no more, after `elapsed`. Takes no lock and allocates nothing.
    pub fn end_wait(&self, arm: Arm, wait: Wait, elapsed: Duration, answer: Answer) {
        self.waits.end(arm, wait, elapsed, answer, self.own_shard());
    }

    /// Begins another cohort of waits, with these lines, and gives its number. The one of [`COHORTS`] before gives up its
    /// place, so it should have been asked about.
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
        thread_number() % self.canary.shards.len().max(1)
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

    /// The ids of the canary's latest failures, at most [`MAX_SAMPLES`], oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        self.samples.ids()
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
}

/// The outcomes of one variant.
#[derive(Debug)]
struct Account {
    variant: BackendName,
    shards: Box<[Shard]>,
}

/// A thread's share of an account, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    successes: AtomicU64,
    failures: AtomicU64,
    /// Those of the failures that users met.
    harm: AtomicU64,
    rescued: AtomicU64,
    not_counted: AtomicU64,
    admitted: AtomicU64,
    admitted_failures: AtomicU64,
    compared: AtomicU64,
    compared_failures: AtomicU64,
    sum_us: AtomicU64,
    latency: Box<[AtomicU64]>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            harm: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            not_counted: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            admitted_failures: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            compared_failures: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
            latency: (0..LATENCY_BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Account {
    fn new(variant: &BackendName, shards: usize) -> Self {
        Self { variant: variant.clone(), shards: (0..shards).map(|_| Shard::default()).collect() }
    }

    fn charge(&self, failed: bool, met: bool, heard: Heard, duration: Duration) {
        let Some(shard) = self.own_shard() else { return };
        // Relaxed throughout: each number is a count of its own, and no memory is published by it. A reader may see a
        // request's latency a moment before its outcome; the next tick sees both.
        let add = |number: &AtomicU64, amount: u64| number.fetch_add(amount, Ordering::Relaxed);
        add(if failed { &shard.failures } else { &shard.successes }, 1);
        if failed {
            // Each has a number of its own: a difference of two would not only ever grow.
            add(if met { &shard.harm } else { &shard.rescued }, 1);
        }
        if heard != Heard::Not {
            add(&shard.admitted, 1);
            add(&shard.admitted_failures, u64::from(failed));
        }
        if heard == Heard::Compared {
            add(&shard.compared, 1);
            add(&shard.compared_failures, u64::from(failed));
        }
        add(&shard.sum_us, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        if let Some(bucket) = shard.latency.get(latency_bucket(duration)) {
            add(bucket, 1);
        }
    }

    fn charge_uncounted(&self) {
        if let Some(shard) = self.own_shard() {
            // Relaxed: see `charge`.
            shard.not_counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn own_shard(&self) -> Option<&Shard> {
        self.shards.get(thread_number() % self.shards.len().max(1))
    }

    /// Two of the numbers, over all shards.
    fn sum(&self, numbers: impl Fn(&Shard) -> (&AtomicU64, &AtomicU64)) -> (u64, u64) {
        // Relaxed: see `charge`.
        let read = |shard| {
            let (first, second) = numbers(shard);
            (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed))
        };
        self.shards.iter().map(read).fold((0, 0), |sum, shard| (sum.0 + shard.0, sum.1 + shard.1))
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for shard in &self.shards {
            // Relaxed: see `charge`.
            let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
            tally.add(&Tally {
                successes: read(&shard.successes),
                failures: read(&shard.failures),
                rescued: read(&shard.rescued),
                not_counted: read(&shard.not_counted),
                latency: LatencyHistogram::new(shard.latency.iter().map(read).collect(), read(&shard.sum_us)),
            });
        }
        tally
    }
}

/// This thread's number: which shard it charges to. Only ever a means to spread the writers, so it may be process-wide.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: all that matters is that the numbers differ.
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// A flag and the variant that served it.
pub type Served = (FlagKey, BackendName);

/// Every ledger, so that totals over all generations can be told.
#[derive(Debug)]
pub struct Recorder {
    shards: usize,
    books: Mutex<Books>,
    /// Requests whose targeting key was too long.
    long_keys: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Books {
    open: Vec<Arc<Ledger>>,
    /// What ledgers held that nobody can charge any more.
    closed: BTreeMap<Served, Tally>,
}

impl Recorder {
    /// A recorder with a shard for each processor, up to a bound.
    #[must_use]
    pub fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self { shards: processors.min(MAX_SHARDS), books: Mutex::default(), long_keys: Arc::default() }
    }

    /// A new ledger for another generation of `flag`, in which `failures` are failures.
    pub fn open(&self, flag: &Flag, failures: FailureClasses) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger {
            flag: flag.key.clone(),
            stable: Account::new(&flag.stable, self.shards),
            canary: Account::new(&flag.canary, self.shards),
            units: Units::default(),
            samples: Samples::default(),
            failures,
            waits: Waits::new(self.shards),
            long_keys: Arc::clone(&self.long_keys),
        });
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.close_abandoned();
        books.open.push(Arc::clone(&ledger));
        ledger
    }

    /// How many requests had a targeting key that was too long.
    #[must_use]
    pub fn long_keys(&self) -> u64 {
        // Relaxed: see `Account::charge`.
        self.long_keys.load(Ordering::Relaxed)
    }

    /// Everything that was ever charged, by flag and variant.
    pub fn totals(&self) -> BTreeMap<Served, Tally> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.close_abandoned();
        let mut totals = books.closed.clone();
        for ledger in &books.open {
            ledger.add_to(&mut totals);
        }
        totals
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Books {
    /// Closes the ledgers that neither the flag set nor a request under way holds: nothing can be charged to them.
    fn close_abandoned(&mut self) {
        let closed = &mut self.closed;
        self.open.retain_mut(|ledger| {
            // `get_mut`, not `strong_count`: it also makes visible what the last holder charged.
            let abandoned = Arc::get_mut(ledger).is_some();
            if abandoned {
                ledger.add_to(closed);
            }
            !abandoned
        });
    }
}

impl Ledger {
    fn add_to(&self, totals: &mut BTreeMap<Served, Tally>) {
        for arm in Arm::BOTH {
            let account = self.account(arm);
            totals.entry((self.flag.clone(), account.variant.clone())).or_default().add(&account.tally());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{BetaList, Bucketer, HashVersion, Percentage, Rules};
    use crate::outcome::{Excuse, Failure};

    fn flag() -> Flag {
        Flag {
            key: "async-database".parse().unwrap(),
            description: String::new(),
            owner: String::new(),
            enabled: true,
            release: "1".to_owned(),
            stable: "sync".parse().unwrap(),
            canary: "async".parse().unwrap(),
            percentage: Percentage::ZERO,
            bucketer: Bucketer::new(HashVersion::FlagdV2, "salt"),
            beta: BetaList::default(),
            rules: Rules::default(),
            ramp: None,
            shadow: None,
        }
    }

    #[test]
    fn nothing_is_lost_between_threads_and_generations() {
        const THREADS: u64 = 8;
        const EACH: u64 = 10_000;
        let recorder = Recorder::new();
        for _generation in 1..=3 {
            let ledger = recorder.open(&flag(), FailureClasses::default());
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for number in 0..EACH {
                            let outcome = match number % 4 {
                                0 => Outcome::Failure(Failure::Status),
                                1 => Outcome::NotCounted(Excuse::ClientGone),
                                _ => Outcome::Success,
                            };
                            let ending = Ending {
                                outcome,
                                duration: Duration::from_micros(number),
                                met: if number % 8 == 0 { Met::User } else { Met::Gateway },
                                request_id: "r",
                            };
                            ledger.charge(Arm::Canary, Party { unit: None, drawn: true }, ending);
                        }
                    });
                }
            });
            assert_eq!(ledger.tally(Arm::Canary).requests(), THREADS * EACH * 3 / 4);
            assert_eq!((ledger.harm(), ledger.samples().len()), (THREADS * EACH / 8, MAX_SAMPLES));
            assert_eq!(
                ledger.tally(Arm::Stable),
                Tally { latency: ledger.tally(Arm::Stable).latency, ..Tally::default() }
            );
        }
        let totals = recorder.totals();
        let canary = &totals[&(flag().key, flag().canary)];
        assert_eq!(canary.failures, 3 * THREADS * EACH / 4);
        assert_eq!(canary.not_counted, 3 * THREADS * EACH / 4);
        assert_eq!(canary.successes, 3 * THREADS * EACH / 2);
        assert_eq!(canary.latency.count(), canary.requests());
        assert!(recorder.books.lock().unwrap().open.is_empty(), "nobody holds the ledgers any more");
    }
}
