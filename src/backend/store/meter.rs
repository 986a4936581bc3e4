//! Counts and times what is asked of the database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Running totals of the operations on one store.
///
/// Every ordering is relaxed: each total stands for itself, and a reading may be one operation ahead in one of them.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    total: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
    slowest_nanos: AtomicU64,
}

/// What was asked of a database so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Queries {
    /// Operations: a transaction or a probe counts once.
    pub(crate) total: u64,
    /// Those that failed, waiting in vain for a connection included.
    pub(crate) errors: u64,
    /// How long they took on average, in milliseconds, from asking for a connection to the end.
    pub(crate) mean_latency_ms: f64,
    /// How long the slowest took, in milliseconds.
    pub(crate) max_latency_ms: f64,
}

impl Meter {
    /// Adds one operation.
    pub(crate) fn record(&self, took: Duration, failed: bool) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.slowest_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    /// The totals so far.
    pub(crate) fn read(&self) -> Queries {
        let total = self.total.load(Ordering::Relaxed);
        let nanos = self.nanos.load(Ordering::Relaxed);
        Queries {
            total,
            errors: self.errors.load(Ordering::Relaxed),
            mean_latency_ms: milliseconds(nanos.checked_div(total).unwrap_or_default()),
            max_latency_ms: milliseconds(self.slowest_nanos.load(Ordering::Relaxed)),
        }
    }
}

fn milliseconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_grow_with_each_operation() {
        let meter = Meter::default();
        let nothing = Queries { total: 0, errors: 0, mean_latency_ms: 0.0, max_latency_ms: 0.0 };
        assert_eq!(meter.read(), nothing);
        meter.record(Duration::from_millis(1), false);
        meter.record(Duration::from_millis(3), true);
        assert_eq!(meter.read(), Queries { total: 2, errors: 1, mean_latency_ms: 2.0, max_latency_ms: 3.0 });
    }
}
