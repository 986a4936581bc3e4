//! One request under way: what is sent and received for it, on either side, and for how long that is waited for.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{Method, StatusCode};
use pingora_error::{Error, ErrorType, RetryType};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::poll_read_buf;
use tracing::{debug, warn};

use crate::api::Problem;
use crate::clock;
use crate::downstream::{Connection, Timer, Transport, Whole};
use crate::proxy::answer::{mark, problem_response};
use crate::proxy::context::Context;
use crate::proxy::rescue::Asked;
use crate::proxy::upstream::Socket;

/// A request under way.
pub(super) struct Exchange<'c, S> {
    pub(super) connection: &'c mut Connection<S>,
    /// What the backend is waited for by.
    pub(super) timer: &'c mut Timer,
    pub(super) request: Box<Whole>,
    /// What the client was answered, and so many bytes of body.
    pub(super) status: Option<StatusCode>,
    pub(super) sent: u64,
    /// Whether another request may follow on the client's connection.
    pub(super) keeps: bool,
}

impl<S: Transport> Exchange<'_, S> {
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { request: &self.request.parts, body: Some(self.request.body.len()) }
    }

    /// Sends head and body to the server.
    pub(super) async fn send(
        &mut self,
        socket: &mut Socket,
        head: &[u8],
        context: &Context,
    ) -> pingora_error::Result<()> {
        let wait = context.timeouts().write();
        let (mut sent, whole) = (0, head.len() + self.request.body.len());
        let mut until = None;
        poll_fn(|task| {
            while sent < whole {
                let parts = [
                    io::IoSlice::new(head.get(sent..).unwrap_or_default()),
                    io::IoSlice::new(self.request.body.get(sent.saturating_sub(head.len())..).unwrap_or_default()),
                ];
                let written = match sent < head.len() {
                    true => Pin::new(&mut *socket).poll_write_vectored(task, &parts),
                    false => Pin::new(&mut *socket).poll_write(task, &parts[1]),
                };
                match written {
                    Poll::Ready(Ok(written @ 1..)) => (sent, until) = (sent + written, None),
                    Poll::Ready(written) => {
                        let error = written.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                        let mut error = Error::because(ErrorType::WriteError, "sending the request", error);
                        error.retry = RetryType::ReusedOnly;
                        return Poll::Ready(Err(error.into_up()));
                    }
                    Poll::Pending => {
                        let until = *until.get_or_insert_with(|| deadline(wait, context));
                        if self.timer.has_passed(until, task) {
                            return Poll::Ready(Err(late(ErrorType::WriteTimedout, "sending the request")));
                        }
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Reads more of the server's answer, and says how much; 0 is its end.
    pub(super) async fn receive(
        &mut self,
        socket: &mut Socket,
        input: &mut BytesMut,
        context: &Context,
    ) -> pingora_error::Result<usize> {
        let wait = context.timeouts().read;
        let mut until = None;
        poll_fn(|task| {
            match poll_read_buf(Pin::new(&mut *socket), task, input) {
                Poll::Ready(Ok(read)) => return Poll::Ready(context.check_total(clock::now).map(|()| read)),
                Poll::Ready(Err(error)) => {
                    let mut error = Error::because(ErrorType::ReadError, "reading the answer", error);
                    error.retry = RetryType::ReusedOnly;
                    return Poll::Ready(Err(error.into_up()));
                }
                Poll::Pending => {}
            }
            if self.connection.poll_gone(task).is_ready() {
                let gone = Error::explain(ErrorType::ConnectionClosed, "the client is gone");
                return Poll::Ready(Err(gone.into_down()));
            }
            let until = *until.get_or_insert_with(|| deadline(wait, context));
            if self.timer.has_passed(until, task) {
                return Poll::Ready(Err(late(ErrorType::ReadTimedout, "reading the answer")));
            }
            Poll::Pending
        })
        .await
    }

    /// Sends something to the client, with the next flush at the latest.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> pingora_error::Result<()> {
        self.connection.write_all(bytes).await.map_err(not_taken)
    }

    pub(super) async fn flush(&mut self) -> pingora_error::Result<()> {
        self.connection.flush().await.map_err(not_taken)
    }

    /// Answers the client with what is the gateway's own.
    pub(super) async fn answer(&mut self, response: &ResponseHeader, body: &[u8]) -> pingora_error::Result<()> {
        let mut out = BytesMut::new();
        let reason = response.status.canonical_reason().unwrap_or_default();
        out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", response.status.as_str()).as_bytes());
        response.header_to_h1_wire(&mut out);
        out.extend_from_slice(if self.keeps { b"\r\n" } else { b"connection: close\r\n\r\n" });
        self.status = Some(response.status);
        if self.request.parts.method != Method::HEAD {
            out.extend_from_slice(body);
            self.sent = body.len() as u64;
        }
        self.write(&out).await?;
        self.flush().await
    }

    /// Tells the client that its request could not be proxied, if it takes the answer.
    pub(super) async fn apologise(&mut self, problem: Problem, context: &Context) {
        self.keeps = false;
        let response = problem_response(context, problem);
        let response =
            response.and_then(|(mut response, body)| mark(&mut response, context).map(|()| (response, body)));
        let told = match &response {
            Ok((response, body)) => self.answer(response, body).await.err(),
            Err(error) => return warn!(%error, "cannot build the error response"),
        };
        if let Some(error) = told {
            debug!(%error, "the client did not take the error response");
        }
    }
}

/// When a server that is waited for from now on is late.
fn deadline(wait: Duration, context: &Context) -> Instant {
    let now = clock::now();
    now + context.time_left(now).map_or(wait, |left| left.min(wait))
}

fn late(kind: ErrorType, doing: &'static str) -> Box<Error> {
    Error::explain(kind, doing).into_up()
}

/// The client takes no answer.
fn not_taken(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorType::WriteTimedout,
        _ => ErrorType::WriteError,
    };
    Error::because(kind, "sending the answer", error).into_down()
}
