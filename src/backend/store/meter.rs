//! Counts and times what is asked of the database.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::backend::failure::Class;

/// Seconds that the rate is taken over: long enough to be steady, short enough to be of now.
const WINDOW: usize = 10;

/// Running totals of the operations on one store.
///
/// Every ordering is relaxed: each total stands for itself, and a reading may be one operation ahead in one of them.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    total: AtomicU64,
    nanos: AtomicU64,
    slowest_nanos: AtomicU64,
    slow: AtomicU64,
    errors: [AtomicU64; Class::ALL.len()],
    retries: [AtomicU64; Class::ALL.len()],
    acquired: AtomicU64,
    acquire_nanos: AtomicU64,
    slowest_acquire_nanos: AtomicU64,
    /// For each of the last seconds, its number since the start in the upper half and its operations in the lower.
    seconds: [AtomicU64; WINDOW + 1],
}

/// An operation that takes longer is counted as slow; the alert rules look at these.
const SLOW: Duration = Duration::from_secs(1);

/// What was asked of a database so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Queries {
    /// Operations: a transaction or a probe counts once, however often it was tried.
    pub(crate) total: u64,
    /// Those that failed in the end, waiting in vain for a connection included.
    pub(crate) errors: u64,
    /// Those that took longer than a second.
    pub(crate) slow: u64,
    /// Operations a second, over the last ten.
    pub(crate) per_second: f64,
    /// How long they took on average, in milliseconds, from asking for a connection to the end.
    pub(crate) mean_latency_ms: f64,
    /// How long the slowest took, in milliseconds.
    pub(crate) max_latency_ms: f64,
    /// How long a connection was waited for on average, in milliseconds.
    pub(crate) mean_acquire_ms: f64,
    /// How long one was waited for at most, in milliseconds.
    pub(crate) max_acquire_ms: f64,
    /// Failures by class.
    pub(crate) errors_by_class: BTreeMap<&'static str, u64>,
    /// Tries that were repeated, by the class of what went wrong.
    pub(crate) retries_by_class: BTreeMap<&'static str, u64>,
}

impl Meter {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            total: AtomicU64::default(),
            nanos: AtomicU64::default(),
            slowest_nanos: AtomicU64::default(),
            slow: AtomicU64::default(),
            errors: Default::default(),
            retries: Default::default(),
            acquired: AtomicU64::default(),
            acquire_nanos: AtomicU64::default(),
            slowest_acquire_nanos: AtomicU64::default(),
            seconds: Default::default(),
        }
    }

    /// Adds one operation, and what class of failure it ended in, if it did.
    pub(crate) fn record(&self, now: Instant, took: Duration, failed: Option<Class>) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos(took), Ordering::Relaxed);
        self.slowest_nanos.fetch_max(nanos(took), Ordering::Relaxed);
        self.slow.fetch_add(u64::from(took > SLOW), Ordering::Relaxed);
        if let Some(class) = failed {
            add(&self.errors, class);
        }
        let second = self.second(now);
        if let Some(slot) = self.slot(second) {
            // A slot of an earlier round begins anew.
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                let fresh = if held >> 32 == second { held } else { second << 32 };
                Some(fresh.saturating_add(1))
            });
        }
    }

    /// Adds a wait for a connection.
    pub(crate) fn acquired(&self, took: Duration) {
        self.acquired.fetch_add(1, Ordering::Relaxed);
        self.acquire_nanos.fetch_add(nanos(took), Ordering::Relaxed);
        self.slowest_acquire_nanos.fetch_max(nanos(took), Ordering::Relaxed);
    }

    /// Adds a try that is repeated.
    pub(crate) fn retried(&self, class: Class) {
        add(&self.retries, class);
    }

    /// The totals so far.
    pub(crate) fn read(&self, now: Instant) -> Queries {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mean = |sum: &AtomicU64, count: &AtomicU64| load(sum).checked_div(load(count)).unwrap_or_default();
        let by_class = |counters: &[AtomicU64]| {
            Class::ALL.iter().zip(counters).map(|(class, counter)| (class.name(), load(counter))).collect()
        };
        // The second under way is left out: it is not over.
        let second = self.second(now);
        let recent: u64 = (1..=WINDOW as u64)
            .filter_map(|back| second.checked_sub(back))
            .filter_map(|past| self.slot(past).map(load).filter(|held| held >> 32 == past))
            .map(|held| held & u64::from(u32::MAX))
            .sum();
        let seconds = second.clamp(1, WINDOW as u64);
        Queries {
            total: load(&self.total),
            errors: self.errors.iter().map(load).sum(),
            slow: load(&self.slow),
            per_second: recent as f64 / seconds as f64,
            mean_latency_ms: milliseconds(mean(&self.nanos, &self.total)),
            max_latency_ms: milliseconds(load(&self.slowest_nanos)),
            mean_acquire_ms: milliseconds(mean(&self.acquire_nanos, &self.acquired)),
            max_acquire_ms: milliseconds(load(&self.slowest_acquire_nanos)),
            errors_by_class: by_class(&self.errors),
            retries_by_class: by_class(&self.retries),
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() & u64::from(u32::MAX)
    }

    fn slot(&self, second: u64) -> Option<&AtomicU64> {
        usize::try_from(second).ok().and_then(|second| self.seconds.get(second % self.seconds.len()))
    }
}

fn add(counters: &[AtomicU64], class: Class) {
    for (known, counter) in Class::ALL.iter().zip(counters) {
        if *known == class {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn totals_grow_with_each_operation() {
        let start = clock::now();
        let meter = Meter::new(start);
        assert_eq!(meter.read(start).total, 0);
        meter.record(start, Duration::from_millis(1), None);
        meter.record(start, Duration::from_millis(1_003), Some(Class::Busy));
        meter.acquired(Duration::from_millis(4));
        meter.retried(Class::Deadlock);
        let read = meter.read(start);
        assert_eq!((read.total, read.errors, read.slow), (2, 1, 1));
        let figures = [(read.mean_latency_ms, 502.0), (read.max_latency_ms, 1_003.0), (read.mean_acquire_ms, 4.0)];
        assert!(figures.iter().all(|(read, expected)| (read - expected).abs() < 1e-6), "{figures:?}");
        assert_eq!((read.errors_by_class["busy"], read.retries_by_class["deadlock"]), (1, 1));
    }

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let start = clock::now();
        let meter = Meter::new(start);
        let at = |second| start + Duration::from_secs(second);
        for second in 0..30 {
            for _ in 0..=second {
                meter.record(at(second), Duration::ZERO, None);
            }
        }
        // Seconds 20 to 29 had 21 to 30 operations each.
        assert!((meter.read(at(30)).per_second - 25.5).abs() < 1e-9);
        assert!(meter.read(at(60)).per_second < 1e-9);
    }
}
