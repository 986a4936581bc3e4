//! Plain requests, proxied without pingora: those of HTTP/1.1 that are all there, to backends of plain HTTP/1.1, where nothing is
//! copied. They are most of what there is, and take a third of the work this way. Whatever else a client asks for goes through
//! pingora's phases, request by request, on the same connection.

mod body;
mod head;
mod wire;

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, BytesMut};
use http::{Method, StatusCode};
use pingora_core::apps::{HttpServerApp as _, ServerApp as _};
use pingora_core::protocols::Shutdown;
use pingora_core::protocols::http::ServerSession;
use pingora_error::{Error, ErrorType, RetryType};
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use crate::clock;
use crate::downstream::{Connection, Next, Serve, Timer, Transport, Whole};
use crate::proxy::Gateway;
use crate::proxy::answer::problem_response;
use crate::proxy::context::Context;
use crate::proxy::decide::{Taken, Way};
use crate::proxy::direct::body::Body;
use crate::proxy::direct::head::{Ending, Framing, with_head};
use crate::proxy::direct::wire::Exchange;
use crate::proxy::exchange::{interim, tell_rescue};
use crate::proxy::outgoing::write_head;
use crate::proxy::seeing::Told;
use crate::proxy::upstream::{Socket, open};

/// What is read at once of an answer's head, and of a body that comes with it; and of what follows.
const FIRST_READ: usize = 8 * 1024;
const READ: usize = 64 * 1024;

/// Room for what is read, at least, while the head is not whole.
const MORE: usize = 4096;

/// The data plane, as clients meet it.
pub struct Front {
    gateway: Gateway,
    phases: Arc<HttpProxy<Gateway>>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

/// What becomes of a connection after a request.
enum After {
    /// It is kept.
    Keep,
    /// It ends.
    Close,
    /// It ends at once: what was sent last is not whole.
    Break,
    /// The request is still to be read, and has to go another way.
    Elsewhere,
}

/// How an exchange with a server went.
enum Exchanged {
    /// The client has the answer. Says whether the server's connection may be used again.
    Answered { reusable: bool },
    /// Stable is to answer.
    StableAnswers,
}

/// An answer that has begun.
struct Begun {
    /// Its head, as the client gets it.
    answer: Vec<u8>,
    body: Body,
    /// Whether the server keeps the connection.
    reusable: bool,
}

/// What stands at the beginning of what a server sent.
enum Looked {
    /// More has to come.
    More,
    /// An answer that announces another, as the client gets it.
    Interim(Vec<u8>),
    /// A failure, which stable makes good.
    Failed,
    Begun(Begun),
}

impl Front {
    /// What `gateway` does, where need be by `phases`.
    #[must_use]
    pub fn new(gateway: Gateway, phases: Arc<HttpProxy<Gateway>>) -> Self {
        Self { gateway, phases }
    }

    /// Lets go of those connections that pingora has.
    pub async fn cleanup(&self) {
        self.phases.cleanup().await;
    }

    /// Has pingora handle the next request. Afterwards the connection is back, if it goes on.
    async fn by_phases<S: Transport>(
        &self,
        connection: Box<Connection<S>>,
        stopping: &watch::Receiver<bool>,
    ) -> Option<Box<Connection<S>>> {
        let mut session = ServerSession::new_http1(connection);
        // The connection itself watches how long it waits.
        session.set_keepalive(if *stopping.borrow() { None } else { Some(0) });
        let (stream, _) = self.phases.process_new_http(session, stopping).await?.consume();
        stream.into_any().downcast().ok()
    }
}

impl Serve for Front {
    async fn serve<S: Transport>(&self, mut connection: Box<Connection<S>>, mut stopping: watch::Receiver<bool>) {
        let watched = stopping.clone();
        if connection.is_http2() {
            drop(self.phases.process_new(connection, &watched).await);
            return;
        }
        let mut timer = Timer::default();
        let mut stop = pin!(stopping.wait_for(|stop| *stop));
        loop {
            let next = poll_fn(|task| match connection.poll_next(task) {
                Poll::Pending if stop.as_mut().poll(task).is_ready() => Poll::Ready(Next::End),
                next => next,
            });
            let goes_on = match next.await {
                Next::Whole(request) => self.gateway.handle(&mut connection, &mut timer, request).await,
                Next::Other => After::Elsewhere,
                Next::End => return,
            };
            match goes_on {
                After::Keep => {}
                After::Close => return Shutdown::shutdown(&mut *connection).await,
                After::Break => return,
                After::Elsewhere => match Box::pin(self.by_phases(connection, &watched)).await {
                    Some(back) => connection = back,
                    None => return,
                },
            }
        }
    }
}

impl Gateway {
    /// Answers a request, unless it has to go another way: then it is still to be read.
    async fn handle<S: Transport>(
        &self,
        connection: &mut Connection<S>,
        timer: &mut Timer,
        request: Box<Whole>,
    ) -> After {
        let mut context = self.new_context();
        let (client, tls) = (connection.client(), connection.is_encrypted());
        let admitted = self.admit(&request.parts, client, tls, Way::Direct, &mut context);
        if let Ok(Taken::Elsewhere) = admitted {
            connection.give_back(&request);
            return After::Elsewhere;
        }
        let keeps = request.keeps;
        let mut exchange = Exchange { connection, timer, request, status: None, sent: 0, keeps };
        let proxied = match admitted {
            Ok(_) => self.proxy(&mut exchange, &mut context).await,
            Err(problem) => match problem_response(&context, problem) {
                Ok((response, body)) => exchange.answer(&response, &body).await,
                Err(error) => Err(error),
            },
        };
        let error = proxied.err();
        let mut after = if exchange.keeps { After::Keep } else { After::Close };
        if let Some(error) = &error {
            after = match self.failed(&context, error) {
                Some(problem) if !context.response_began => {
                    exchange.apologise(problem, &context).await;
                    After::Close
                }
                _ => {
                    // What was not sent to its end may not look as if it were. Whoever is gone takes none of it.
                    let _ = exchange.flush().await;
                    After::Break
                }
            };
        }
        let Exchange { request, status, sent, .. } = exchange;
        let told = Told {
            request: &request.parts,
            status: status.map(|status| status.as_u16()),
            bytes_in: request.body.len() as u64,
            bytes_out: sent,
        };
        self.finish(told, &mut context, error.as_deref());
        after
    }

    /// Sends the request to a server, and to others if that is safe, until the client has an answer.
    async fn proxy<S: Transport>(
        &self,
        exchange: &mut Exchange<'_, S>,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        // Stable is told other things than the canary.
        let mut asked = context.fallback.is_some().then(|| exchange.request.parts.headers.clone());
        let mut head = Vec::new();
        loop {
            let now = clock::now();
            let server = self.take_server(exchange.asked(), context, now)?;
            if context.was_given_up()
                && let Some(headers) = asked.take()
            {
                exchange.request.parts.headers = headers;
                head.clear();
            }
            if head.is_empty() {
                head = write_head(&mut exchange.request.parts, context);
            }
            let timeouts = context.timeouts();
            let (mut socket, reused) = match server.idle().take(timeouts.idle, now) {
                Some(socket) => (socket, true),
                None => {
                    let within = context.time_left(now).map_or(timeouts.connect, |left| left.min(timeouts.connect));
                    match Box::pin(open(&server.peer()._address, within)).await.map_err(Error::into_up) {
                        Ok(socket) => (socket, false),
                        Err(error) if self.could_not_connect(exchange.asked(), context, &error) => continue,
                        Err(error) => return Err(error),
                    }
                }
            };
            match self.exchange(exchange, &mut socket, &head, context).await {
                Ok(Exchanged::Answered { reusable }) => {
                    if reusable {
                        server.idle().put(socket, clock::now());
                    }
                    return Ok(());
                }
                Ok(Exchanged::StableAnswers) => tell_rescue(context, &"it answered with an error"),
                Err(mut error) => {
                    if !self.broke_off(exchange.asked(), context, &mut error, reused) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Sends the request on a connection to a server, and the answer to the client.
    async fn exchange<S: Transport>(
        &self,
        exchange: &mut Exchange<'_, S>,
        socket: &mut Socket,
        head: &[u8],
        context: &mut Context,
    ) -> pingora_error::Result<Exchanged> {
        // A server may answer, and close, before it has taken all of the request.
        let unsent = match exchange.send(socket, head, context).await {
            Err(error) if *error.etype() != ErrorType::WriteError => return Err(error),
            sent => sent.err(),
        };
        context.body_bytes = exchange.request.body.len() as u64;
        context.begin_wait(clock::now());
        let all_sent = unsent.is_none();
        let mut input = BytesMut::with_capacity(FIRST_READ);
        let begun = match self.begin(exchange, socket, &mut input, context).await {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ok(Exchanged::StableAnswers),
            Err(error) => return Err(unsent.unwrap_or(error)),
        };
        let Begun { answer, mut body, reusable } = begun;
        exchange.write(&answer).await?;
        let chunked = matches!(body, Body::Chunked(_) | Body::End);
        loop {
            while let Some(part) = body.take(&mut input)? {
                exchange.sent += part.len() as u64;
                if chunked {
                    exchange.write(format!("{:x}\r\n", part.len()).as_bytes()).await?;
                }
                exchange.write(&part).await?;
                if chunked {
                    exchange.write(b"\r\n").await?;
                }
            }
            if body.is_done() {
                break;
            }
            exchange.flush().await?;
            input.reserve(READ);
            if exchange.receive(socket, &mut input, context).await? == 0 {
                if body.may_end() {
                    break;
                }
                return Err(Error::explain(ErrorType::ConnectionClosed, "before the answer's end").into_up());
            }
        }
        if chunked {
            exchange.write(b"0\r\n\r\n").await?;
        }
        exchange.flush().await?;
        Ok(Exchanged::Answered { reusable: reusable && all_sent && input.is_empty() })
    }

    /// Waits for the head of the answer, and passes on what only announces it; `None` if stable is to answer.
    async fn begin<S: Transport>(
        &self,
        exchange: &mut Exchange<'_, S>,
        socket: &mut Socket,
        input: &mut BytesMut,
        context: &mut Context,
    ) -> pingora_error::Result<Option<Begun>> {
        loop {
            match self.look(exchange, input, context)? {
                Looked::More => {
                    input.reserve(MORE);
                    if exchange.receive(socket, input, context).await? == 0 {
                        let closed = "before the answer's head was there";
                        let mut error = Error::explain(ErrorType::ConnectionClosed, closed);
                        error.retry = RetryType::ReusedOnly;
                        return Err(error.into_up());
                    }
                }
                Looked::Interim(bytes) => {
                    exchange.write(&bytes).await?;
                    exchange.flush().await?;
                }
                Looked::Failed => return Ok(None),
                Looked::Begun(begun) => return Ok(Some(begun)),
            }
        }
    }

    /// Takes a head out of `input`, if there is one.
    fn look<S: Transport>(
        &self,
        exchange: &mut Exchange<'_, S>,
        input: &mut BytesMut,
        context: &mut Context,
    ) -> pingora_error::Result<Looked> {
        if input.is_empty() {
            return Ok(Looked::More);
        }
        let is_head = exchange.request.parts.method == Method::HEAD;
        let read = with_head(input, is_head, |head| {
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                // RFC 9110, section 15.2.2. What follows would be no HTTP, to a client that goes on speaking it.
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to nobody's request").into_up());
            }
            if head.status.is_informational() {
                interim(context)?;
                return Ok((head.length, Looked::Interim(head.write_interim())));
            }
            if self.answered(exchange.asked(), context, head.status) {
                return Ok((head.length, Looked::Failed));
            }
            exchange.keeps &= !self.in_flight.is_awaited();
            exchange.status = Some(head.status);
            context.response_began = true;
            let chunked = !matches!(head.framing, Framing::Length(_));
            let answer = head.write(Ending { chunked, keeps: exchange.keeps }, context);
            Ok((head.length, Looked::Begun(Begun { answer, body: Body::new(head.framing), reusable: head.keeps })))
        })?;
        let Some((length, looked)) = read else { return Ok(Looked::More) };
        input.advance(length);
        Ok(looked)
    }
}
