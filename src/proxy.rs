//! The data plane: pingora's phases in the order in which they run.
//!
//! A request is routed, identified and decided once, in `request_filter`, on one snapshot of the flags. What was decided
//! goes with it, so that a reload in the middle of it changes nothing, and its outcome is charged where it was decided.

mod answer;
mod attributes;
mod context;
mod decide;
mod failure;
mod forwarded;
mod identity;
mod outgoing;
mod policy;
mod rescue;
mod route;
mod seeing;
mod shadow;
mod upstream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderName, StatusCode, Version};
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tracing::{debug, warn};

use crate::access::Access;
use crate::api::Problem;
use crate::clock;
use crate::downstream::Refusal;
use crate::outcome::{Failure, Trouble, classify};
use crate::proxy::answer::{apologise, mark, respond};
use crate::proxy::context::Context;
use crate::proxy::failure::{answer, trouble};
use crate::proxy::identity::client_ip;
use crate::proxy::outgoing::{pass_on_upgrade, send_on};
use crate::proxy::rescue::{Sent, may_be_repeated, rescue};
use crate::proxy::shadow::Shadower;
use crate::recorder::{Answer, RecordedFlagStore};
use crate::shadow::{CopyResult, Shadows};

pub use crate::proxy::context::InFlight;
pub use crate::proxy::identity::{Anonymous, Identity, IdentityConfig, JwtConfig, Source, TokenPlace};
pub use crate::proxy::policy::{Config, Policy};
pub use crate::proxy::rescue::{BudgetConfig, MAX_RETRY_BUFFER, RescueConfig, RouteRescue};
pub use crate::proxy::route::{RouteConfig, Target};
pub use crate::proxy::seeing::Seeing;
pub use crate::proxy::shadow::ShadowConfig;
pub use crate::proxy::upstream::{
    Balance, Ejection, HealthCheck, Protocol, Server, ServerPlace, Timeouts, TlsConfig, TlsError, Upkeep,
    UpstreamConfig, UpstreamError, Upstreams,
};

/// Which flag decided; told to the upstream.
const FLAG_HEADER: &str = "x-tidegate-flag";

/// Which variant was chosen; told to the upstream, and to the client if it may know.
const VARIANT_HEADER: &str = "x-tidegate-variant";
const VARIANT: HeaderName = HeaderName::from_static(VARIANT_HEADER);

/// So many answers of 1xx to one request are passed on; a backend that sends more never comes to the point.
const MAX_INTERIM_ANSWERS: u32 = 100;

/// Which arm a tester asks for, and the token that lets them; neither goes further than here.
const OVERRIDE_HEADER: &str = "x-tidegate-override";
const TOKEN_HEADER: &str = "x-tidegate-token";

/// Names one request in logs, problem documents and upstream.
const REQUEST_ID_HEADER: &str = "x-request-id";
const REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// What a gateway works with, whatever the configuration says.
#[derive(Debug)]
pub struct Tools {
    /// The flags in force.
    pub flags: Arc<RecordedFlagStore>,
    /// Where requests under way are counted.
    pub in_flight: Arc<InFlight>,
    /// Who may choose an arm.
    pub access: Arc<Access>,
    /// How requests are copied to canaries.
    pub shadow: ShadowConfig,
    /// Who is told of requests.
    pub seeing: Seeing,
}

/// The gateway: one for all requests.
pub struct Gateway {
    policy: Arc<Policy>,
    access: Arc<Access>,
    seeing: Seeing,
    flags: Arc<RecordedFlagStore>,
    in_flight: Arc<InFlight>,
    shadows: Arc<Shadows>,
    shadower: Arc<Shadower>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that handles requests by `policy`.
    #[must_use]
    pub fn new(policy: Arc<Policy>, tools: Tools) -> Self {
        let Tools { flags, in_flight, access, shadow, seeing } = tools;
        let shadower = Arc::new(Shadower::new(&shadow, Arc::clone(&flags)));
        Self { policy, access, seeing, flags, in_flight, shadows: shadow.shadows, shadower }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(clock::now(), &self.in_flight, self.policy.load())
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora_error::Result<bool> {
        context.client = client_ip(session.client_addr());
        context.client_is_trusted = context.settings.identity.trusts(context.client);
        context.tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let request = session.req_header();
        context.take_request_id(request.headers.get(REQUEST_ID));
        context.trace = Some(self.seeing.trace(request, context.client_is_trusted));
        if request.version == Version::HTTP_11 && request.headers.get_all(HOST).iter().count() != 1 {
            // RFC 9112, section 3.2.
            let problem = Problem::new(400, "bad-request", "Bad request", "a request names its host, once");
            respond(session, context, problem).await?;
            return Ok(true);
        }
        let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > context.settings.max_body) {
            respond(session, context, Refusal::BodyTooLong.problem()).await?;
            return Ok(true);
        }
        match self.decide(request, context) {
            Ok(()) => Ok(false),
            Err(problem) => {
                respond(session, context, problem).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora_error::Result<Box<HttpPeer>> {
        let now = clock::now();
        // What was read of it is read again.
        context.body_bytes = 0;
        loop {
            let upstream = context.upstream.as_ref();
            let server = upstream.and_then(|upstream| upstream.pick(context.key, &context.tried, now));
            if let (Some(upstream), Some(server)) = (upstream, server) {
                let mut peer = Box::new(server.endpoint().peer().clone());
                let began = *context.exchange_began.get_or_insert(now);
                if let Some(total) = upstream.timeouts().total {
                    limit(&mut peer.options, total.saturating_sub(now.duration_since(began)));
                }
                context.server = Some(server);
                return Ok(peer);
            }
            if !rescue(session, context, Failure::Connect, Sent::Nothing, now) {
                return Err(Error::explain(ErrorType::ConnectNoRoute, "the backend has no server").into_up());
            }
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        context.body_bytes += body.as_ref().map_or(0, Bytes::len) as u64;
        if context.body_bytes > context.settings.max_body {
            let kind = ErrorType::InvalidHTTPHeader;
            return Err(Error::because(kind, "counting the request's body", Refusal::BodyTooLong).into_down());
        }
        if let (Some(original), Some(bytes)) = (&mut context.original, &body) {
            original.take_request_body(bytes);
        }
        // Also called for a request without a body, once the backend is connected: neither the way to it nor a slow client
        // is part of how long the backend takes.
        if end_of_stream {
            context.begin_wait(clock::now());
        }
        context.check_total(clock::now)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        pass_on_upgrade(session.req_header(), request)?;
        // A request that is sent once more is sent from its beginning.
        context.body_bytes = 0;
        send_on(request, context)?;
        if let Some(original) = &mut context.original {
            original.take_request(request);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
            // RFC 9110, section 15.2.2. What follows would be no HTTP, to a client that goes on speaking it.
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to nobody's request").into_up());
        }
        // 1xx only announce the answer, but for 101, which is one.
        if !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status.as_u16();
            context.upstream_status = Some(status);
            let answer = if context.failures().has_status(status) { Answer::None } else { Answer::Good };
            let now = clock::now();
            context.end_wait(answer, now);
            context.answered = Some(now);
            if let Some(server) = &context.server {
                server.endpoint().succeeded();
            }
            context.keep_copying(|original| original.take_answer(response));
        } else {
            context.interim_answers += 1;
            if context.interim_answers > MAX_INTERIM_ANSWERS {
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, "1xx without an end").into_up());
            }
            context.check_total(clock::now)?;
        }
        let failed = response.status.is_server_error() && context.failures().has_status(response.status.as_u16());
        if failed && rescue(session, context, Failure::Status, Sent::Something, clock::now()) {
            let mut error = Error::new_up(ErrorType::HTTPStatus(response.status.as_u16()));
            error.set_retry(true);
            return Err(error);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        context: &mut Context,
    ) -> pingora_error::Result<Option<Duration>> {
        if let Some(bytes) = body {
            context.keep_copying(|original| original.take_answer_body(bytes));
        }
        context.check_total(clock::now).map(|()| None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        // As above: 101 is the answer.
        if !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS {
            context.response_began = true;
            if self.in_flight.is_awaited() && !session.is_upgrade_req() {
                // The gateway is stopping: the client's next request has to find another way.
                session.set_keepalive(None);
            }
            mark(response, context)?;
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let blamed = trouble(error, context.client_stalled);
        let answer = answer(error, blamed);
        let error_code = answer.as_ref().map_or(0, |problem| problem.status);
        let (request_id, upstream) = (context.request_id_text(), context.upstream_name());
        if blamed == Trouble::Client {
            // Clients come and go; whoever hangs up a lot may not fill the log.
            debug!(request_id, upstream, status = error_code, %error, "the client gave the request up");
        } else {
            let tried_both = context.was_given_up();
            warn!(request_id, upstream, status = error_code, tried_both, %error, "the request could not be proxied");
        }
        if let Some(problem) = answer {
            apologise(session, context, problem).await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let trouble = error.map(|error| trouble(error, context.client_stalled));
        let outcome = classify(context.failures(), context.upstream_status, trouble);
        let now = clock::now();
        context.settle(outcome, now);
        self.seeing.tell(session, context, error, outcome, now);
        match (context.original.take(), error, &context.upstream) {
            (Some(original), None, Some(stable)) => {
                self.shadower.send(original, Arc::clone(stable), context.request_id_text().to_owned());
            }
            (Some(original), ..) => original.give_up(CopyResult::SkippedUnanswered),
            (None, ..) => {}
        }
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let now = clock::now();
        let retry = match trouble(&error, false) {
            Trouble::Backend(failure) => {
                context.note_server_failure(now);
                context.try_another_server(now) || rescue(session, context, failure, Sent::Nothing, now)
            }
            Trouble::Client | Trouble::Gateway => false,
        };
        tell_rescue(context, &error);
        error.set_retry(retry);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        context.client_stalled = !session.as_mut().is_body_done();
        // As pingora would: only what may be repeated, and only if the connection was one that the server gave up.
        if context.response_began || session.as_ref().retry_buffer_truncated() || !may_be_repeated(session.req_header())
        {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(reused);
        }
        if !context.was_switched()
            && !error.retry()
            && let Trouble::Backend(failure) = trouble(&error, context.client_stalled)
        {
            let now = clock::now();
            context.note_server_failure(now);
            if rescue(session, context, failure, Sent::Something, now) {
                error.set_retry(true);
            }
        }
        tell_rescue(context, &error);
        error
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        // A dead canary would fill the log with it; what matters is counted.
        true
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        // `fail_to_proxy` has told it.
        true
    }
}

/// Lets nothing take longer than what is `left` of the time for the whole exchange.
fn limit(options: &mut PeerOptions, left: Duration) {
    // No time at all would be taken for no limit.
    let left = left.max(Duration::from_millis(1));
    for timeout in [
        &mut options.connection_timeout,
        &mut options.total_connection_timeout,
        &mut options.read_timeout,
        &mut options.write_timeout,
    ] {
        *timeout = Some(timeout.map_or(left, |timeout| timeout.min(left)));
    }
}

/// Tells that stable takes a request over, if it has just been sent over.
fn tell_rescue(context: &mut Context, error: &Error) {
    if context.take_switch() {
        debug!(request_id = context.request_id_text(), %error, "the canary failed; stable serves");
    }
}
