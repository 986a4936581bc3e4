//! Requests that pingora proxies: its phases in the order in which they run.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::clock;
use crate::downstream::Refusal;
use crate::proxy::Gateway;
use crate::proxy::answer::{apologise, mark, respond};
use crate::proxy::context::Context;
use crate::proxy::decide::Way;
use crate::proxy::exchange::interim;
use crate::proxy::identity::client_ip;
use crate::proxy::outgoing::{pass_on_upgrade, send_on};
use crate::proxy::rescue::Asked;
use crate::proxy::seeing::Told;
use crate::shadow::CopyResult;

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        self.new_context()
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora_error::Result<bool> {
        let client = client_ip(session.client_addr());
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        match self.admit(session.req_header(), client, tls, Way::Phases, context) {
            Ok(_) => Ok(false),
            Err(problem) => {
                if self.in_flight.is_awaited() {
                    session.set_keepalive(None);
                }
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
        let server = self.take_server(Asked::of(session), context, now)?;
        let mut peer = Box::new(server.peer().clone());
        if let Some(left) = context.time_left(now) {
            limit(&mut peer.options, left);
        }
        Ok(peer)
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
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            return interim(context);
        }
        let stable_answers = self.answered(Asked::of(session), context, response.status);
        context.keep_copying(|original| original.take_answer(response));
        if stable_answers {
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
        let answer = self.failed(context, error);
        let error_code = answer.as_ref().map_or(0, |problem| problem.status);
        if let Some(problem) = answer {
            apologise(session, context, problem).await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        self.finish(Told::of(session), context, error);
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
        let retry = self.could_not_connect(Asked::of(session), context, &error);
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
        self.broke_off(Asked::of(session), context, &mut error, reused);
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
