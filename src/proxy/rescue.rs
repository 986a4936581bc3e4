//! A failure of the canary is made good by stable, where that is safe and stable can bear it.
//!
//! Safe is what was never sent, or may be sent twice (RFC 9110, section 9.2.2, or a request that says so with an
//! `Idempotency-Key`), as long as all that was read of it is still at hand and the client has not been answered. What
//! stable bears beside its own requests is bounded, so that a dead canary can't take stable down with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderName;
use http::request::Parts;
use pingora_proxy::Session;

use crate::outcome::Failure;
use crate::proxy::context::{Context, Fallback};
use crate::proxy::upstream::Upstream;

/// The most of a request's body that can be kept for sending it again: as much as pingora keeps.
pub const MAX_RETRY_BUFFER: usize = 64 * 1024;

/// By this header a client says that a request may be repeated (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The seconds that a budget looks back on.
const SECONDS: usize = 10;

/// Whether failures of a backend that is a canary are made good, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RescueConfig {
    /// Whether stable serves what this backend failed as the canary.
    pub enabled: bool,
    /// Requests with more body than this, in bytes, are not repeated; at most [`MAX_RETRY_BUFFER`].
    pub retry_buffer: usize,
    /// What this backend takes on when it is stable.
    pub budget: BudgetConfig,
}

/// How much more than its own a backend takes on as stable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetConfig {
    /// The share, 0 to 1, of the requests that its flags decide.
    pub share: f64,
    /// So many requests a second on top of that.
    pub floor: u32,
}

impl Default for RescueConfig {
    /// On, for all that can be kept. 20 % and 10 a second are what Finagle's and linkerd's retry budgets take.
    fn default() -> Self {
        Self { enabled: true, retry_buffer: MAX_RETRY_BUFFER, budget: BudgetConfig { share: 0.2, floor: 10 } }
    }
}

/// What a route says otherwise than the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteRescue {
    /// Whether its requests are rescued.
    pub enabled: Option<bool>,
    /// Requests with more body than this, in bytes, are not repeated.
    pub retry_buffer: Option<usize>,
}

/// How far a request got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// There was no connection to send it on.
    Nothing,
    /// The server may have seen it.
    Something,
}

/// Where a request that `canary` fails can go, if anywhere.
pub(crate) fn fallback(canary: &Upstream, stable: Arc<Upstream>, route: RouteRescue) -> Option<Fallback> {
    let config = canary.rescue();
    let retry_buffer = route.retry_buffer.unwrap_or(config.retry_buffer);
    route.enabled.unwrap_or(config.enabled).then_some(Fallback { upstream: stable, retry_buffer })
}

/// What a client asked for, as far as it matters to whether that can be sent once more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'r> {
    pub(crate) request: &'r Parts,
    /// How many bytes of its body were read, if all of them are at hand.
    pub(crate) body: Option<usize>,
}

impl<'r> Asked<'r> {
    pub(crate) fn of(session: &'r Session) -> Self {
        let body = (!session.as_ref().retry_buffer_truncated()).then(|| session.body_bytes_read());
        Self { request: session.req_header(), body }
    }
}

/// Sends the request, which the canary has just failed, over to stable, and says whether it did.
pub(crate) fn rescue(asked: Asked<'_>, context: &mut Context, failure: Failure, sent: Sent, now: Instant) -> bool {
    if context.response_began {
        return false;
    }
    let Some(fallback) = &context.fallback else { return false };
    let kept = asked.body.is_some_and(|body| body <= fallback.retry_buffer);
    let safe = sent == Sent::Nothing || may_be_repeated(asked.request);
    if !kept || !safe || !fallback.upstream.budget().withdraw(now) {
        return false;
    }
    context.go_over_to_stable(failure, now);
    true
}

/// Whether the client may send the request twice.
pub(crate) fn may_be_repeated(request: &Parts) -> bool {
    request.method.is_idempotent() || request.headers.contains_key(IDEMPOTENCY_KEY)
}

/// How many rescues stable bears: a share of the requests of the last [`SECONDS`], and a few more.
#[derive(Debug)]
pub(crate) struct Budget {
    config: BudgetConfig,
    began: Instant,
    seconds: [Second; SECONDS],
}

/// What happened in one second; its place is used again [`SECONDS`] later.
#[derive(Debug, Default)]
struct Second {
    number: AtomicU64,
    requests: AtomicU64,
    rescues: AtomicU64,
}

impl Budget {
    pub(crate) fn new(config: BudgetConfig, now: Instant) -> Self {
        Self { config, began: now, seconds: Default::default() }
    }

    /// Counts a request of which a share is for rescues.
    pub(crate) fn count(&self, now: Instant) {
        if let Some(second) = self.second(self.number(now)) {
            // Relaxed, here and below: each number stands for itself, and one more or less changes nothing.
            second.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a rescue out of the budget, if it has one left.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let number = self.number(now);
        let Some(own) = self.second(number) else { return false };
        own.rescues.fetch_add(1, Ordering::Relaxed);
        let recent = self.seconds.iter().filter(|second| {
            let age = number.saturating_sub(second.number.load(Ordering::Relaxed));
            age < SECONDS as u64
        });
        let (requests, rescues) = recent.fold((0, 0), |(requests, rescues), second| {
            (requests + second.requests.load(Ordering::Relaxed), rescues + second.rescues.load(Ordering::Relaxed))
        });
        let allowed = self.config.share * requests as f64 + f64::from(self.config.floor) * SECONDS as f64;
        let within = rescues as f64 <= allowed;
        if !within {
            own.rescues.fetch_sub(1, Ordering::Relaxed);
        }
        within
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }

    fn second(&self, number: u64) -> Option<&Second> {
        let place = usize::try_from(number).ok()?.checked_rem(SECONDS)?;
        let second = self.seconds.get(place)?;
        // Whoever comes first clears what is left there. Who counts at that very moment may not be counted.
        if second.number.load(Ordering::Relaxed) != number && second.number.swap(number, Ordering::Relaxed) != number {
            second.requests.store(0, Ordering::Relaxed);
            second.rescues.store(0, Ordering::Relaxed);
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pingora_http::RequestHeader;

    use super::*;

    fn start() -> Instant {
        crate::clock::now()
    }

    fn withdrawn(budget: &Budget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_budget_is_a_share_and_a_floor() {
        let start = start();
        let budget = Budget::new(BudgetConfig { share: 0.2, floor: 1 }, start);
        assert_eq!(withdrawn(&budget, start), 10);
        (0..1000).for_each(|_| budget.count(start));
        assert_eq!(withdrawn(&budget, start), 200);
        let later = start + Duration::from_secs(9);
        assert_eq!(withdrawn(&budget, later), 0);
        let much_later = start + Duration::from_secs(10);
        assert_eq!(withdrawn(&budget, much_later), 10);
    }

    #[test]
    fn nothing_is_nothing() {
        let budget = Budget::new(BudgetConfig { share: 0.0, floor: 0 }, start());
        budget.count(start());
        assert!(!budget.withdraw(start()));
    }

    #[test]
    fn a_request_that_may_be_repeated() {
        let request = |method: &str| RequestHeader::build(method, b"/", None).unwrap();
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] {
            assert!(may_be_repeated(&request(method)), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "PURGE"] {
            assert!(!may_be_repeated(&request(method)), "{method}");
        }
        let mut keyed = request("POST");
        keyed.insert_header("Idempotency-Key", "\"8e03978e\"").unwrap();
        assert!(may_be_repeated(&keyed));
    }
}
