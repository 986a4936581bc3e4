//! The figures of the database as Prometheus reads them.

use std::fmt::Write as _;

use crate::backend::breaker::BreakerState;
use crate::backend::config::Mode;
use crate::backend::pool::PoolState;
use crate::backend::store::meter::Queries;

/// The media type of the text format (Prometheus: "Exposition formats", version 0.0.4).
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every figure of one backend in Prometheus' text format.
pub(crate) fn render(mode: Mode, pool: PoolState, queries: &Queries, breaker: BreakerState) -> String {
    let mut page = Page { text: String::new(), mode: mode.to_string() };
    let limit = pool.size.saturating_add(pool.max_overflow);
    page.gauge("pool_limit", "Connections that there may be at once", f64::from(limit));
    page.gauge("pool_checked_out", "Connections at work", f64::from(pool.checked_out));
    page.gauge("pool_idle", "Connections open and free", f64::from(pool.idle));
    page.gauge("pool_overflow", "Connections open beyond those that are kept", f64::from(pool.overflow));
    page.gauge("pool_waiting", "Requests that wait for a connection", f64::from(pool.waiting));
    let is_open = f64::from(u8::from(breaker != BreakerState::Closed));
    page.gauge("breaker_open", "1 while requests are refused because the database is away", is_open);
    page.counter("operations_total", "Transactions and probes", queries.total as f64);
    page.counter("slow_operations_total", "Operations that took more than a second", queries.slow as f64);
    let seconds = queries.mean_latency_ms * queries.total as f64 / 1e3;
    page.counter("operation_seconds_total", "Time that operations took, waiting for a connection included", seconds);
    page.by_class("errors_total", "Operations that failed, by class", queries.errors_by_class.iter());
    page.by_class("retries_total", "Tries that were repeated, by class", queries.retries_by_class.iter());
    page.text
}

struct Page {
    text: String,
    mode: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _: std::fmt::Result =
            write!(self.text, "# HELP tidegate_database_{name} {help}\n# TYPE tidegate_database_{name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        self.line(name, "", value);
    }

    fn by_class<'a>(&mut self, name: &str, help: &str, values: impl Iterator<Item = (&'a &'static str, &'a u64)>) {
        self.head(name, "counter", help);
        for (class, value) in values {
            self.line(name, &format!(",class=\"{class}\""), *value as f64);
        }
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let mode = &self.mode;
        let _: std::fmt::Result = writeln!(self.text, "tidegate_database_{name}{{mode=\"{mode}\"{labels}}} {value}");
    }
}
