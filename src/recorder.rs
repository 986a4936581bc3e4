//! Counts how requests ended: cumulative, sharded by thread, never lossy.
//!
//! A decision takes the [`Ledger`] of its flag's generation with it, and charges the outcome to that ledger whatever
//! has happened to the rollout meanwhile. So an outcome can neither be lost nor be counted for a state that it was not
//! decided under. Charging is a few relaxed additions on memory that the thread mostly has to itself.

mod account;
mod ledger;
mod samples;
mod suspects;
mod units;
mod waits;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::flag::{BackendName, Entry, Flag, FlagKey, FlagSet};
use crate::flag_store::FlagStore;
use crate::outcome::{FailureClasses, Tally};

pub use crate::recorder::ledger::{Ending, Ledger, Met, Party};
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
        let ledger = Arc::new(Ledger::new(flag, failures, self.shards, Arc::clone(&self.long_keys)));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flag::{Arm, BetaList, Bucketer, HashVersion, Percentage, Rules};
    use crate::outcome::{Excuse, Failure, Outcome};

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
