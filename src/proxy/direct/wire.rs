//! One request under way: what is sent and received for it, on either side, and for how long that is waited for.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Method, StatusCode};
use pingora_error::{Error, ErrorType, RetryType};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;
use tracing::debug;

use crate::api::Problem;
use crate::clock;
use crate::downstream::Timer;
use crate::proxy::answer::{mark, problem_response};
use crate::proxy::context::Context;
use crate::proxy::direct::client::Client;
use crate::proxy::direct::head::Framing;
use crate::proxy::rescue::Asked;
use crate::proxy::seeing::Told;
use crate::proxy::upstream::Socket;

/// A request under way.
pub(super) struct Exchange<'t, C> {
    pub(super) client: C,
    /// What the backend is waited for by.
    timer: &'t mut Timer,
    pub(super) request: Parts,
    pub(super) body: Bytes,
    /// What the client was answered, and so many bytes of body.
    pub(super) status: Option<StatusCode>,
    pub(super) sent: u64,
    /// Whether another request may follow on the client's connection.
    pub(super) keeps: bool,
}

impl<'t, C: Client> Exchange<'t, C> {
    pub(super) fn new(client: C, timer: &'t mut Timer, request: Parts, body: Bytes, keeps: bool) -> Self {
        Self { client, timer, request, body, status: None, sent: 0, keeps }
    }

    /// Tells of it.
    pub(super) fn told(&self) -> Told<'_> {
        Told {
            request: &self.request,
            status: self.status.map(|status| status.as_u16()),
            bytes_in: self.body.len() as u64,
            bytes_out: self.sent,
        }
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { request: &self.request, body: Some(self.body.len()) }
    }

    /// Sends head and body to the server.
    pub(super) async fn send(
        &mut self,
        socket: &mut Socket,
        head: &[u8],
        context: &Context,
    ) -> pingora_error::Result<()> {
        let wait = context.timeouts().write();
        let (mut sent, whole) = (0, head.len() + self.body.len());
        let mut until = None;
        poll_fn(|task| {
            while sent < whole {
                let parts = [
                    io::IoSlice::new(head.get(sent..).unwrap_or_default()),
                    io::IoSlice::new(self.body.get(sent.saturating_sub(head.len())..).unwrap_or_default()),
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
            if self.client.poll_gone(task).is_ready() {
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

    /// Answers the client with what is the gateway's own.
    pub(super) async fn answer(
        &mut self,
        problem: Problem,
        marked: bool,
        context: &Context,
    ) -> pingora_error::Result<()> {
        let (mut response, mut body) = problem_response(context, problem)?;
        if marked {
            mark(&mut response, context)?;
        }
        if self.request.method == Method::HEAD {
            body = Bytes::new();
        }
        self.status = Some(response.status);
        self.sent = body.len() as u64;
        let framing = Framing::Length(self.sent);
        self.client.begin(C::own(response, self.keeps), framing).await?;
        if !body.is_empty() {
            self.client.part(body, true).await?;
        }
        self.client.flush().await
    }

    /// Tells the client that its request could not be proxied, if it takes the answer.
    pub(super) async fn apologise(&mut self, problem: Problem, context: &Context) {
        self.keeps = false;
        if let Err(error) = self.answer(problem, true, context).await {
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
