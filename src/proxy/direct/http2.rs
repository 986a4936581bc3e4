//! A client that speaks HTTP/2: pingora has its connection, and each of its requests is a stream.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::SendStream;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request};
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, HttpSession};
use pingora_core::protocols::http::v2::write_body;
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use crate::downstream::{OF_CONNECTION, Pace, Timer, WHOLE_BODY};
use crate::proxy::Gateway;
use crate::proxy::answer::mark;
use crate::proxy::context::Context;
use crate::proxy::decide::{Taken, Way};
use crate::proxy::direct::client::Client;
use crate::proxy::direct::head::{AnswerHead, Framing};
use crate::proxy::direct::wire::Exchange;
use crate::proxy::identity::client_ip;

/// Parts of an answer that are copied out of the buffer that they were read into.
const SMALL: usize = 16 * 1024;

/// The requests of connections of HTTP/2.
pub(crate) struct Streams {
    gateway: Gateway,
    phases: Arc<HttpProxy<Gateway>>,
}

impl Streams {
    pub(crate) fn new(gateway: Gateway, phases: Arc<HttpProxy<Gateway>>) -> Self {
        Self { gateway, phases }
    }
}

#[async_trait]
impl HttpServerApp for Streams {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        stopping: &watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        let session = match session {
            ServerSession::H2(stream) => ServerSession::H2(self.gateway.handle_stream(stream).await?),
            other => other,
        };
        self.phases.process_new_http(session, stopping).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.phases.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        HttpServerApp::server_options(&*self.phases)
    }

    async fn http_cleanup(&self) {
        self.phases.http_cleanup().await;
    }
}

impl Gateway {
    /// Answers the request of a stream, unless it has to go another way: then it is given back as it was.
    async fn handle_stream(&self, mut stream: HttpSession) -> Option<HttpSession> {
        if !is_plain(&stream) {
            return Some(stream);
        }
        // Asked now, since the answer is in the head, which is taken.
        let awaits_body = !stream.is_body_done();
        let (nothing, ()) = Request::new(()).into_parts();
        let mut parts: Parts = std::mem::replace(stream.req_header_mut(), RequestHeader::from(nothing)).into();
        let mut context = self.new_context();
        let client = client_ip(stream.client_addr());
        let tls = stream.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let admitted = self.admit(&parts, client, tls, Way::Direct, &mut context);
        if let Ok(Taken::Elsewhere) = admitted {
            *stream.req_header_mut() = RequestHeader::from(parts);
            return Some(stream);
        }
        // RFC 9113, section 8.3.1: what HTTP/1.1 calls the host.
        if !parts.headers.contains_key(HOST)
            && let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
        {
            parts.headers.insert(HOST, host);
        }
        let pace = Pace::new(context.settings.body_timeout, context.settings.min_rate);
        let mut timer = Timer::default();
        let write_timeout = context.settings.write_timeout;
        let client = Http2 { stream, writer: None, awaits_body, pace, write_timeout };
        let exchange = Exchange::new(client, &mut timer, parts, Bytes::new(), false);
        let _ = self.handle(exchange, context, admitted.err()).await;
        None
    }
}

/// Whether a request can be proxied by the gateway itself: its body is short, and known to be, and nothing is unusual about it.
fn is_plain(stream: &HttpSession) -> bool {
    let request = stream.req_header();
    let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    request.method != Method::CONNECT
        && request.raw_path_is_utf8()
        && request.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/'))
        && (stream.is_body_empty() || length.is_some_and(|length| length <= WHOLE_BODY))
        && !OF_CONNECTION.iter().chain([&CONNECTION]).any(|name| request.headers.contains_key(name))
}

/// A client that waits for the answer on a stream.
struct Http2 {
    stream: HttpSession,
    /// Where the answer's body goes, once it has begun.
    writer: Option<SendStream<Bytes>>,
    awaits_body: bool,
    pace: Pace,
    write_timeout: Duration,
}

impl Client for Http2 {
    type Head = Box<ResponseHeader>;

    fn head(answer: &AnswerHead<'_>, _: bool, context: &Context) -> pingora_error::Result<Box<ResponseHeader>> {
        let mut response = Box::new(ResponseHeader::build_no_case(answer.status, Some(answer.count()))?);
        for (name, value) in answer.fields() {
            let name = HeaderName::from_bytes(name).map_err(http::Error::from);
            let field = name.and_then(|name| Ok((name, HeaderValue::from_bytes(&value)?)));
            let broken = |error| Error::because(ErrorType::InvalidHTTPHeader, "a field of the answer", error).into_up();
            let (name, value) = field.map_err(broken)?;
            if name == TE {
                // It means nothing in an answer, and HTTP/2 forbids it.
                continue;
            }
            response.append_header(name, value)?;
        }
        if let Some(length) = answer.length_told() {
            response.insert_header(CONTENT_LENGTH, length)?;
        }
        mark(&mut response, context)?;
        Ok(response)
    }

    fn own(response: ResponseHeader, _: bool) -> Box<ResponseHeader> {
        Box::new(response)
    }

    fn interim(_: &AnswerHead<'_>) -> Vec<u8> {
        // pingora has no way to send them over HTTP/2.
        Vec::new()
    }

    fn poll_gone(&mut self, task: &mut Task<'_>) -> Poll<()> {
        match &mut self.writer {
            Some(writer) => writer.poll_reset(task).map(drop),
            None => Pin::new(&mut self.stream.idle()).poll(task).map(drop),
        }
    }

    async fn body(&mut self) -> pingora_error::Result<Option<Bytes>> {
        if !self.awaits_body {
            return Ok(None);
        }
        // Mostly it comes in one part.
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        loop {
            let mut reading = pin!(self.stream.read_body_bytes());
            let read = poll_fn(|task| match reading.as_mut().poll(task) {
                Poll::Pending if self.pace.waits(task) => {
                    let slow = Error::explain(ErrorType::ReadTimedout, "the rest of the request did not arrive");
                    Poll::Ready(Err(slow))
                }
                read => read,
            });
            let Some(part) = read.await.map_err(Error::into_down)? else {
                return Ok(Some(if all.is_empty() { first } else { all.freeze() }));
            };
            self.pace.moved(part.len());
            if first.is_empty() {
                first = part;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&part);
            }
        }
    }

    async fn announce(&mut self, _: &[u8]) -> pingora_error::Result<()> {
        Ok(())
    }

    async fn begin(&mut self, head: Box<ResponseHeader>, framing: Framing) -> pingora_error::Result<()> {
        let ends = framing == Framing::Length(0);
        self.stream.write_response_header(head, ends).map_err(Error::into_down)?;
        // pingora's own way would end a client that takes less than a whole part in time.
        self.writer = self.stream.take_response_body_writer();
        Ok(())
    }

    async fn part(&mut self, part: Bytes, is_last: bool) -> pingora_error::Result<()> {
        let Some(writer) = &mut self.writer else { return Err(Error::new_in(ErrorType::InternalError)) };
        // What waits for the client to read on may not keep a whole buffer for a few bytes.
        let part = if part.len() < SMALL { Bytes::copy_from_slice(&part) } else { part };
        write_body(writer, part, is_last, Some(self.write_timeout)).await.map_err(Error::into_down)
    }

    async fn flush(&mut self) -> pingora_error::Result<()> {
        Ok(())
    }
}
