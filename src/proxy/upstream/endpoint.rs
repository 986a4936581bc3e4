//! One address that requests can be sent to, and what is known of it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;

use crate::proxy::upstream::idle::Idle;

/// When a server is set aside for failing requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures one after the other: no connection, no answer in time, a broken answer. 0 is never.
    pub after: u32,
    /// For so long the first time, and longer each time, up to five minutes.
    pub time: Duration,
}

/// The longest that a server is set aside, as in Envoy's outlier detection (`max_ejection_time`).
const MAX_EJECTION: Duration = Duration::from_secs(300);

impl Default for Ejection {
    /// Five failures, as in Envoy's outlier detection; 10 s, since a canary is looked at more closely than that.
    fn default() -> Self {
        Self { after: 5, time: Duration::from_secs(10) }
    }
}

/// An address of a server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    name: String,
    /// What its `Host` is when nobody else says.
    host: String,
    id: u64,
    peer: HttpPeer,
    idle: Idle,
    began: Instant,
    in_flight: AtomicUsize,
    healthy: AtomicBool,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
}

impl Endpoint {
    pub(crate) fn new(name: String, host: String, peer: HttpPeer, now: Instant) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self {
            id: hasher.finish(),
            name,
            host,
            peer,
            idle: Idle::default(),
            began: now,
            in_flight: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Tells it from others.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    /// Its connections without a request.
    pub(crate) fn idle(&self) -> &Idle {
        &self.idle
    }

    // Relaxed throughout: each number stands for itself, and a choice by one that is a moment old is as good.

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Notes what the health check says, and returns whether that is news.
    pub(crate) fn set_healthy(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, Ordering::Relaxed) != healthy
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until_ms.load(Ordering::Relaxed) > self.ms(now)
    }

    /// A request was answered.
    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed. Says whether the server is set aside for it.
    pub(crate) fn failed(&self, ejection: Ejection, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if ejection.after == 0 || !failures.is_multiple_of(ejection.after) || self.is_ejected(now) {
            return false;
        }
        let times = self.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        let time = ejection.time.saturating_mul(times).min(MAX_EJECTION);
        self.ejected_until_ms.store(self.ms(now + time), Ordering::Relaxed);
        true
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A request that is under way to an endpoint.
#[derive(Debug)]
pub(crate) struct Lease {
    endpoint: Arc<Endpoint>,
}

impl Lease {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
