//! What one request carries from phase to phase.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora_error::{Error, ErrorType};
use tokio::sync::Notify;
use tracing::debug;
use uuid::Uuid;

use crate::clock;
use crate::flag::{Arm, Evaluation, SetVersion};
use crate::outcome::{Excuse, Failure, FailureClasses, Outcome};
use crate::proxy::policy::Settings;
use crate::proxy::route::RoutePlace;
use crate::proxy::seeing::Trace;
use crate::proxy::shadow::Original;
use crate::proxy::upstream::{Lease, Timeouts, Tried, Upstream};
use crate::recorder::{Answer, Ending, Met, Party, RecordedFlag, Wait};
use crate::shadow::CopyResult;

/// The longest request id that is taken over from a trusted proxy.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// How many requests are under way, so that a stop can wait for them.
#[derive(Debug, Default)]
pub struct InFlight {
    count: AtomicUsize,
    /// Whether anybody waits for the end: waking somebody takes a lock, which requests are spared until then.
    awaited: AtomicBool,
    finished: Notify,
}

impl InFlight {
    /// How many there are right now.
    #[must_use]
    pub fn count(&self) -> usize {
        // SeqCst: see `none`.
        self.count.load(Ordering::SeqCst)
    }

    /// Has every answer from now on close its connection, so that clients go elsewhere of their own accord.
    pub fn discourage(&self) {
        // SeqCst: see `none`.
        self.awaited.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_awaited(&self) -> bool {
        // Relaxed: an answer that misses it keeps its connection a little longer.
        self.awaited.load(Ordering::Relaxed)
    }

    /// Returns once there are none.
    pub async fn none(&self) {
        // SeqCst here and at the end of a request: either that request sees that it is awaited, or we see it gone.
        self.awaited.store(true, Ordering::SeqCst);
        loop {
            let finished = self.finished.notified();
            if self.count() == 0 {
                return;
            }
            finished.await;
        }
    }
}

/// A decision with the flag that it was made under.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) entry: Arc<RecordedFlag>,
    pub(crate) evaluation: Evaluation,
    /// The version of the flag files that were in force.
    pub(crate) set_version: SetVersion,
    pub(crate) party: Party,
}

/// Where a request can go if the canary fails it.
#[derive(Debug)]
pub(crate) struct Fallback {
    /// The flag's stable backend.
    pub(crate) upstream: Arc<Upstream>,
    /// The most body, in bytes, that it may have had so far.
    pub(crate) retry_buffer: usize,
}

/// What the canary did to a request that stable has taken over.
#[derive(Debug)]
struct GivenUp {
    failure: Failure,
    after: Duration,
}

/// What one request carries from phase to phase.
///
/// Dropping it ends the request. If no outcome was settled until then, the gateway broke it off, which is nobody's
/// failure but still counted as such: every decision leads to one outcome.
pub struct Context {
    started: Instant,
    request_id: HeaderValue,
    in_flight: Arc<InFlight>,
    settled: bool,
    /// The backend's answer that is waited for, and since when.
    wait: Option<(Wait, Instant)>,
    /// Whether it has been waited for.
    asked: bool,
    /// What it is handled by, whatever is in force later.
    pub(crate) settings: Arc<Settings>,
    /// The address that the request came from; `None` for a Unix socket.
    pub(crate) client: Option<IpAddr>,
    pub(crate) client_is_trusted: bool,
    /// Whether the client's connection to us is encrypted.
    pub(crate) tls: bool,
    /// The backend waited in vain for the rest of the request.
    pub(crate) client_stalled: bool,
    /// Bytes of the request's body so far.
    pub(crate) body_bytes: u64,
    pub(crate) place: Option<RoutePlace>,
    pub(crate) decision: Option<Decision>,
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// The server that has the request, and those that could not be reached with it.
    pub(crate) server: Option<Lease>,
    pub(crate) tried: Tried,
    /// The hash of its targeting key, if it has one.
    pub(crate) key: Option<u64>,
    /// When the exchange with the backend began.
    pub(crate) exchange_began: Option<Instant>,
    /// How many answers of 1xx the backend has sent.
    pub(crate) interim_answers: u32,
    /// It was decided for the canary, which had no server to serve it: stable does.
    pub(crate) diverted: bool,
    pub(crate) upstream_status: Option<u16>,
    /// When the head of the backend's answer was there.
    pub(crate) answered: Option<Instant>,
    /// The trace that it belongs to, once it is known.
    pub(crate) trace: Option<Trace>,
    /// Whether the client has been told, or is being told, how the request ends.
    pub(crate) response_began: bool,
    /// Where the request goes if the canary fails it, while it still can.
    pub(crate) fallback: Option<Fallback>,
    given_up: Option<GivenUp>,
    /// It was sent over to stable, and pingora has not begun anew yet.
    switched: bool,
    /// The request as the canary is to get a copy of it.
    pub(crate) original: Option<Box<Original>>,
    /// The cookie to give to a client that had no identity.
    pub(crate) new_anonymous: Option<HeaderValue>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("request_id", &self.request_id)
            .field("decision", &self.decision)
            .finish_non_exhaustive()
    }
}

impl Decision {
    fn log(&self, request_id: &str, outcome: &str, duration_ms: f64, rescued: bool) {
        let Evaluation { arm, reason } = self.evaluation;
        debug!(
            request_id,
            feature_flag.key = %self.entry.flag.key,
            feature_flag.result.variant = %self.entry.flag.backend(arm),
            feature_flag.result.reason = reason.as_str(),
            feature_flag.version = %self.set_version,
            generation = self.entry.rollout.generation.get(),
            outcome,
            duration_ms,
            rescued,
            "request finished",
        );
    }
}

impl Context {
    pub(crate) fn new(now: Instant, in_flight: &Arc<InFlight>, settings: Arc<Settings>) -> Self {
        // Relaxed: the number alone matters, and it is up before the request can be waited for.
        in_flight.count.fetch_add(1, Ordering::Relaxed);
        Self {
            started: now,
            request_id: HeaderValue::from_static(""),
            in_flight: Arc::clone(in_flight),
            settled: false,
            wait: None,
            asked: false,
            settings,
            client: None,
            client_is_trusted: false,
            tls: false,
            client_stalled: false,
            body_bytes: 0,
            place: None,
            decision: None,
            upstream: None,
            server: None,
            tried: Tried::default(),
            key: None,
            exchange_began: None,
            interim_answers: 0,
            diverted: false,
            upstream_status: None,
            answered: None,
            trace: None,
            response_began: false,
            fallback: None,
            given_up: None,
            switched: false,
            original: None,
            new_anonymous: None,
        }
    }

    /// What the backend that it goes to is called.
    pub(crate) fn upstream_name(&self) -> &str {
        self.upstream.as_deref().map_or("none", Upstream::name)
    }

    /// Goes on with the id that a trusted proxy gave, or makes one.
    pub(crate) fn take_request_id(&mut self, given: Option<&HeaderValue>) {
        let usable = |id: &&HeaderValue| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.to_str().is_ok();
        self.request_id = match given.filter(|_| self.client_is_trusted).filter(usable) {
            Some(id) => id.clone(),
            None => {
                let mut buffer = Uuid::encode_buffer();
                // A UUID is printable ASCII, which is what a header value may hold.
                HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut buffer))
                    .unwrap_or(HeaderValue::from_static("unknown"))
            }
        };
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn request_id(&self) -> HeaderValue {
        self.request_id.clone()
    }

    pub(crate) fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// What a failure is, for whoever decided about the request.
    pub(crate) fn failures(&self) -> FailureClasses {
        self.decision.as_ref().map(|decision| decision.entry.attached.failures()).unwrap_or_default()
    }

    /// Notes that a backend has all of the request, so that its answer is waited for from now on. If it is asked again, it was
    /// waited for before.
    pub(crate) fn begin_wait(&mut self, now: Instant) {
        let Some(decision) = self.decision.as_ref().filter(|_| !self.asked && !self.diverted) else { return };
        self.asked = true;
        let wait = decision.entry.attached.begin_wait(decision.evaluation.arm, decision.party);
        self.wait = wait.map(|wait| (wait, now));
    }

    /// Notes that the answer's head is there, or that nothing is waited for any more.
    pub(crate) fn end_wait(&mut self, answer: Answer, now: Instant) {
        let (Some(decision), Some((wait, since))) = (&self.decision, self.wait.take()) else { return };
        let elapsed = now.saturating_duration_since(since);
        decision.entry.attached.end_wait(decision.evaluation.arm, wait, elapsed, answer, self.request_id_text());
    }

    /// Has stable serve what the canary failed, from the beginning.
    pub(crate) fn go_over_to_stable(&mut self, failure: Failure, now: Instant) {
        let Some(fallback) = self.fallback.take() else { return };
        // How long stable takes for it is nothing that the arms are compared by.
        self.end_wait(Answer::None, now);
        self.asked = true;
        self.given_up = Some(GivenUp { failure, after: now.duration_since(self.started) });
        self.upstream = Some(fallback.upstream);
        self.server = None;
        self.tried = Tried::default();
        self.exchange_began = None;
        self.interim_answers = 0;
        self.upstream_status = None;
        self.answered = None;
        self.switched = true;
    }

    /// Tries the request, which could not be sent, on another server of the backend, if there is one.
    pub(crate) fn try_another_server(&mut self, now: Instant) -> bool {
        let (Some(upstream), Some(server)) = (&self.upstream, self.server.take()) else { return false };
        self.tried.add(server.endpoint());
        let has_another = upstream.has_another(&self.tried, now);
        if has_another {
            upstream.note_retry();
        }
        has_another
    }

    /// Counts a failure against the server that has the request.
    pub(crate) fn note_server_failure(&self, now: Instant) {
        if let (Some(upstream), Some(server)) = (&self.upstream, &self.server) {
            upstream.note_failure(server.endpoint(), now);
        }
    }

    /// How long the backend that it goes to may take.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.upstream.as_ref().map(|upstream| *upstream.timeouts()).unwrap_or_default()
    }

    /// What is left of the time that the whole exchange may take, if that is limited.
    pub(crate) fn time_left(&self, now: Instant) -> Option<Duration> {
        let total = self.upstream.as_ref()?.timeouts().total?;
        Some(total.saturating_sub(now.duration_since(self.exchange_began?)))
    }

    /// Ends an exchange that has taken longer than it may in all. Without such a limit no clock is read.
    pub(crate) fn check_total(&self, now: impl FnOnce() -> Instant) -> pingora_error::Result<()> {
        let total = self.upstream.as_ref().and_then(|upstream| upstream.timeouts().total);
        match (total, self.exchange_began) {
            (Some(total), Some(began)) if now().duration_since(began) >= total => {
                let error = Error::explain(ErrorType::ReadTimedout, "the whole exchange took too long");
                Err(error.into_up())
            }
            _ => Ok(()),
        }
    }

    /// Has a request that is to be copied `take` what passes by; if it cannot, it is not copied.
    pub(crate) fn keep_copying(&mut self, take: impl FnOnce(&mut Original) -> bool) {
        if let Some(mut original) = self.original.take() {
            if take(&mut original) {
                self.original = Some(original);
            } else {
                original.give_up(CopyResult::SkippedBody);
            }
        }
    }

    /// Whether the request has been sent over to stable, and pingora has not begun anew yet.
    pub(crate) fn was_switched(&self) -> bool {
        self.switched
    }

    /// Whether the request has just been sent over to stable; told once.
    pub(crate) fn take_switch(&mut self) -> bool {
        std::mem::take(&mut self.switched)
    }

    /// Whether stable serves it, or has served it, in the place of a canary that failed.
    pub(crate) fn was_given_up(&self) -> bool {
        self.given_up.is_some()
    }

    /// Charges `outcome` to what the request was decided by; only the first call counts.
    ///
    /// What the canary failed is charged to it as it was, and not to stable, whatever became of it there: such requests are
    /// not like others, and would make stable look worse or better than it is.
    pub(crate) fn settle(&mut self, outcome: Outcome, now: Instant) {
        if self.settled {
            return;
        }
        self.settled = true;
        self.end_wait(Answer::None, now);
        let Some(decision) = &self.decision else { return };
        let user_saw = !matches!(outcome, Outcome::Success);
        let (outcome, duration, met) = match &self.given_up {
            Some(GivenUp { failure, after }) => {
                let counts = self.failures().has(*failure);
                let outcome =
                    if counts { Outcome::Failure(*failure) } else { Outcome::NotCounted(Excuse::NotAFailure) };
                (outcome, *after, if user_saw { Met::User } else { Met::Gateway })
            }
            None => (outcome, now.duration_since(self.started), Met::User),
        };
        // What the canary never saw is not charged to it; and stable is compared by those who were drawn for it alone.
        let (arm, party) = match self.diverted {
            true => (Arm::Stable, Party { drawn: false, ..decision.party }),
            false => (decision.evaluation.arm, decision.party),
        };
        let ending = Ending { outcome, duration, met, request_id: self.request_id_text() };
        decision.entry.attached.charge(arm, party, ending);
        decision.log(self.request_id_text(), outcome.as_str(), duration.as_secs_f64() * 1000.0, met == Met::Gateway);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Its duration is not looked at, but how long it has waited is.
        let now = if self.wait.is_some() { clock::now() } else { self.started };
        self.settle(Outcome::NotCounted(Excuse::Gateway), now);
        // SeqCst: see `InFlight::none`.
        let last = self.in_flight.count.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.in_flight.awaited.load(Ordering::SeqCst) {
            self.in_flight.finished.notify_waiters();
        }
    }
}
