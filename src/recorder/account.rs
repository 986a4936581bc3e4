//! How the requests of one variant ended: numbers that only grow, in shards, one for each thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::flag::BackendName;
use crate::outcome::{LATENCY_BUCKETS, LatencyHistogram, Tally, latency_bucket};

/// What the judge hears of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: it has heard enough of its user.
    Not,
    /// What it says of its arm alone.
    Apart,
    /// Also what it says of the arms beside each other.
    Compared,
}

/// The outcomes of one variant.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) variant: BackendName,
    shards: Box<[Shard]>,
}

/// A thread's share of an account, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shard {
    pub(crate) successes: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Those of the failures that users met.
    pub(crate) harm: AtomicU64,
    rescued: AtomicU64,
    not_counted: AtomicU64,
    pub(crate) admitted: AtomicU64,
    pub(crate) admitted_failures: AtomicU64,
    pub(crate) compared: AtomicU64,
    pub(crate) compared_failures: AtomicU64,
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
    /// How many threads may charge it without meeting.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn new(variant: &BackendName, shards: usize) -> Self {
        Self { variant: variant.clone(), shards: (0..shards).map(|_| Shard::default()).collect() }
    }

    pub(crate) fn charge(&self, failed: bool, met: bool, heard: Heard, duration: Duration) {
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

    pub(crate) fn charge_uncounted(&self) {
        if let Some(shard) = self.own_shard() {
            // Relaxed: see `charge`.
            shard.not_counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn own_shard(&self) -> Option<&Shard> {
        self.shards.get(thread_number() % self.shards.len().max(1))
    }

    /// Two of the numbers, over all shards.
    pub(crate) fn sum(&self, numbers: impl Fn(&Shard) -> (&AtomicU64, &AtomicU64)) -> (u64, u64) {
        // Relaxed: see `charge`.
        let read = |shard| {
            let (first, second) = numbers(shard);
            (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed))
        };
        self.shards.iter().map(read).fold((0, 0), |sum, shard| (sum.0 + shard.0, sum.1 + shard.1))
    }

    pub(crate) fn tally(&self) -> Tally {
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
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: all that matters is that the numbers differ.
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}
