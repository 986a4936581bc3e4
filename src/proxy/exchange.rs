//! What becomes of a request, whichever way it is proxied: it is admitted and decided once, sent to a server, sent again if that
//! is safe, and charged with how it ended.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{StatusCode, Version};
use pingora_error::{Error, ErrorType};
use tracing::{debug, warn};

use crate::api::Problem;
use crate::clock;
use crate::downstream::Refusal;
use crate::outcome::{Failure, Outcome, Trouble, classify};
use crate::proxy::context::Context;
use crate::proxy::decide::{Taken, Way};
use crate::proxy::failure::{answer, trouble};
use crate::proxy::rescue::{Asked, Sent, may_be_repeated, rescue};
use crate::proxy::seeing::Told;
use crate::proxy::upstream::Endpoint;
use crate::proxy::{Gateway, REQUEST_ID};
use crate::recorder::Answer;

/// So many answers of 1xx to one request are passed on; a backend that sends more never comes to the point.
pub(crate) const MAX_INTERIM_ANSWERS: u32 = 100;

impl Gateway {
    /// Takes a request in: afterwards the context knows who asks, what was decided and where it goes. Otherwise the client is
    /// told why not.
    pub(crate) fn admit(
        &self,
        request: &Parts,
        client: Option<IpAddr>,
        tls: bool,
        way: Way,
        context: &mut Context,
    ) -> Result<Taken, Problem> {
        context.client = client;
        context.client_is_trusted = context.settings.identity.trusts(client);
        context.tls = tls;
        context.take_request_id(request.headers.get(REQUEST_ID));
        context.trace = Some(self.seeing.trace(request, context.client_is_trusted));
        if request.version == Version::HTTP_11 && request.headers.get_all(HOST).iter().count() != 1 {
            // RFC 9112, section 3.2.
            return Err(Problem::new(400, "bad-request", "Bad request", "a request names its host, once"));
        }
        let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
        let length = lengths.next().map(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            // Over HTTP/1.1 it was refused before.
            Some(None) => return Err(Refusal::Malformed("the content-length is no length").problem()),
            Some(_) if lengths.next().is_some() => {
                return Err(Refusal::Malformed("there are two content-lengths").problem());
            }
            Some(Some(length)) if length > context.settings.max_body => return Err(Refusal::BodyTooLong.problem()),
            _ => {}
        }
        self.decide(request, way, context)
    }

    /// Chooses a server for the request. If its backend has none, stable may have one.
    pub(crate) fn take_server(
        &self,
        asked: Asked<'_>,
        context: &mut Context,
        now: Instant,
    ) -> pingora_error::Result<Arc<Endpoint>> {
        loop {
            let upstream = context.upstream.as_ref();
            if let Some(server) = upstream.and_then(|upstream| upstream.pick(context.key, &context.tried, now)) {
                context.exchange_began.get_or_insert(now);
                let endpoint = Arc::clone(server.endpoint());
                context.server = Some(server);
                return Ok(endpoint);
            }
            if !rescue(asked, context, Failure::Connect, Sent::Nothing, now) {
                return Err(Error::explain(ErrorType::ConnectNoRoute, "the backend has no server").into_up());
            }
            context.take_switch();
        }
    }

    /// Notes that the server could not be connected to, and says whether the request is tried elsewhere.
    pub(crate) fn could_not_connect(&self, asked: Asked<'_>, context: &mut Context, error: &Error) -> bool {
        let now = clock::now();
        let retry = match trouble(error, false) {
            Trouble::Backend(failure) => {
                context.note_server_failure(now);
                context.try_another_server(now) || rescue(asked, context, failure, Sent::Nothing, now)
            }
            Trouble::Client | Trouble::Gateway => false,
        };
        tell_rescue(context, error);
        retry
    }

    /// Notes that the exchange with the server broke off, and says whether it begins anew. It does on another connection if this
    /// one was `reused`, and the server had most likely given it up; and with stable, if that takes the request over.
    pub(crate) fn broke_off(&self, asked: Asked<'_>, context: &mut Context, error: &mut Error, reused: bool) -> bool {
        // As pingora would: only what may be repeated, and only if the connection was one that the server gave up.
        if context.response_began || asked.body.is_none() || !may_be_repeated(asked.request) {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(reused);
        }
        if !context.was_switched()
            && !error.retry()
            && let Trouble::Backend(failure) = trouble(error, context.client_stalled)
        {
            let now = clock::now();
            context.note_server_failure(now);
            if rescue(asked, context, failure, Sent::Something, now) {
                error.set_retry(true);
            }
        }
        tell_rescue(context, error);
        error.retry()
    }

    /// Notes that the head of the backend's answer is there, and says whether stable answers instead.
    pub(crate) fn answered(&self, asked: Asked<'_>, context: &mut Context, status: StatusCode) -> bool {
        context.upstream_status = Some(status.as_u16());
        let is_failure = context.failures().has_status(status.as_u16());
        let now = clock::now();
        context.end_wait(if is_failure { Answer::None } else { Answer::Good }, now);
        context.answered = Some(now);
        if let Some(server) = &context.server {
            server.endpoint().succeeded();
        }
        let failed = status.is_server_error() && is_failure;
        failed && rescue(asked, context, Failure::Status, Sent::Something, now)
    }

    /// Tells the log that the request could not be proxied, and says what the client is told; `None` if it is gone.
    pub(crate) fn failed(&self, context: &Context, error: &Error) -> Option<Problem> {
        let blamed = trouble(error, context.client_stalled);
        let answer = answer(error, blamed);
        let status = answer.as_ref().map_or(0, |problem| problem.status);
        let (request_id, upstream) = (context.request_id_text(), context.upstream_name());
        if blamed == Trouble::Client {
            // Clients come and go; whoever hangs up a lot may not fill the log.
            debug!(request_id, upstream, status, %error, "the client gave the request up");
        } else {
            let tried_both = context.was_given_up();
            warn!(request_id, upstream, status, tried_both, %error, "the request could not be proxied");
        }
        answer
    }

    /// Charges how the request ended, and tells of it.
    pub(crate) fn finish(&self, told: Told<'_>, context: &mut Context, error: Option<&Error>) -> Outcome {
        let trouble = error.map(|error| trouble(error, context.client_stalled));
        let outcome = classify(context.failures(), context.upstream_status, trouble);
        let now = clock::now();
        context.settle(outcome, now);
        self.seeing.tell(told, context, error, outcome, now);
        outcome
    }
}

/// Notes an answer that only announces the one to come.
pub(crate) fn interim(context: &mut Context) -> pingora_error::Result<()> {
    context.interim_answers += 1;
    if context.interim_answers > MAX_INTERIM_ANSWERS {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "1xx without an end").into_up());
    }
    context.check_total(clock::now)
}

/// Tells that stable takes a request over, if it has just been sent over.
pub(crate) fn tell_rescue(context: &mut Context, error: &dyn fmt::Display) {
    if context.take_switch() {
        debug!(request_id = context.request_id_text(), %error, "the canary failed; stable serves");
    }
}
