//! Plain requests, proxied by the gateway's own loop: those that are all there, to backends of plain HTTP/1.1, where nothing is
//! copied. They are most of what there is, and take much less work this way.

mod body;
mod client;
mod head;
mod http2;
mod wire;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, StatusCode};
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::api::Problem;
use crate::clock;
use crate::downstream::{Connection, Timer, Transport, Whole};
use crate::proxy::Gateway;
use crate::proxy::context::Context;
use crate::proxy::decide::{Taken, Way};
use crate::proxy::direct::body::Body;
use crate::proxy::direct::client::{Client, Http1};
use crate::proxy::direct::head::{Framing, with_head};
use crate::proxy::direct::wire::Exchange;
use crate::proxy::exchange::{interim, tell_rescue};
use crate::proxy::outgoing::write_head;
use crate::proxy::upstream::{Socket, open};

pub(crate) use crate::proxy::direct::http2::Streams;

/// What is read at once of an answer's head, and of a body that comes with it; and of what follows.
const FIRST_READ: usize = 8 * 1024;
const READ: usize = 64 * 1024;

/// Room for what is read, at least, while the head is not whole.
const MORE: usize = 4096;

/// What becomes of a connection after a request.
pub(crate) enum After {
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
struct Begun<H> {
    /// Its head, as the client gets it.
    head: H,
    framing: Framing,
    /// Whether the server keeps the connection.
    reusable: bool,
}

/// What stands at the beginning of what a server sent.
enum Looked<H> {
    /// More has to come.
    More,
    /// An answer that announces another, as the client gets it.
    Interim(Vec<u8>),
    /// A failure, which stable makes good.
    Failed,
    Begun(Begun<H>),
}

impl Gateway {
    /// Answers a request, unless it has to go another way: then it is still to be read.
    pub(crate) async fn handle_request<S: Transport>(
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
        let Whole { parts, body, keeps, .. } = *request;
        let exchange = Exchange::new(Http1::new(connection), timer, parts, body, keeps);
        self.handle(exchange, context, admitted.err()).await
    }

    /// Answers a request that was admitted, or `refused`.
    async fn handle<C: Client>(
        &self,
        mut exchange: Exchange<'_, C>,
        mut context: Context,
        refused: Option<Problem>,
    ) -> After {
        exchange.keeps &= !self.in_flight.is_awaited();
        let proxied = match refused {
            None => self.proxy(&mut exchange, &mut context).await,
            Some(problem) => exchange.answer(problem, false, &context).await,
        };
        let mut after = if exchange.keeps { After::Keep } else { After::Close };
        if let Err(error) = &proxied {
            after = match self.failed(&context, error) {
                Some(problem) if !context.response_began => {
                    exchange.apologise(problem, &context).await;
                    After::Close
                }
                _ => {
                    // What was not sent to its end may not look as if it were. Whoever is gone takes none of it.
                    let _ = exchange.client.flush().await;
                    After::Break
                }
            };
        }
        self.finish(exchange.told(), &mut context, proxied.as_ref().err().map(|error| &**error));
        after
    }

    /// Sends the request to a server, and to others if that is safe, until the client has an answer.
    async fn proxy<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        context: &mut Context,
    ) -> pingora_error::Result<()> {
        if let Some(body) = exchange.client.body().await? {
            exchange.body = body;
        }
        // Stable is told other things than the canary.
        let mut asked = context.fallback.is_some().then(|| exchange.request.headers.clone());
        let mut head = Vec::new();
        // A connection that waited may have been given up by the server; the next try is on a new one.
        let mut fresh = false;
        loop {
            let now = clock::now();
            let server = self.take_server(exchange.asked(), context, now)?;
            if context.was_given_up()
                && let Some(headers) = asked.take()
            {
                exchange.request.headers = headers;
                head.clear();
                fresh = false;
            }
            if head.is_empty() {
                head = write_head(&mut exchange.request, context);
            }
            let timeouts = context.timeouts();
            let idle = if fresh { None } else { server.idle().take(timeouts.idle, now) };
            let (mut socket, reused) = match idle {
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
                    fresh = reused;
                }
            }
        }
    }

    /// Sends the request on a connection to a server, and the answer to the client.
    async fn exchange<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        socket: &mut Socket,
        head: &[u8],
        context: &mut Context,
    ) -> pingora_error::Result<Exchanged> {
        // A server may answer, and close, before it has taken all of the request.
        let unsent = match exchange.send(socket, head, context).await {
            Err(error) if *error.etype() != ErrorType::WriteError => return Err(error),
            sent => sent.err(),
        };
        context.body_bytes = exchange.body.len() as u64;
        context.begin_wait(clock::now());
        let all_sent = unsent.is_none();
        let mut input = BytesMut::with_capacity(FIRST_READ);
        let begun = match self.begin(exchange, socket, &mut input, context).await {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ok(Exchanged::StableAnswers),
            Err(error) => return Err(unsent.filter(|_| *error.esource() == ErrorSource::Upstream).unwrap_or(error)),
        };
        let Begun { head, framing, reusable } = begun;
        exchange.client.begin(head, framing).await?;
        let mut body = Body::new(framing);
        // Whether the client knows that nothing more comes: without content, the head is all there is.
        let mut ended = framing == Framing::Length(0);
        loop {
            while let Some(part) = body.take(&mut input)? {
                exchange.sent += part.len() as u64;
                ended = body.is_done();
                exchange.client.part(part, ended).await?;
            }
            if body.is_done() {
                break;
            }
            exchange.client.flush().await?;
            input.reserve(READ);
            if exchange.receive(socket, &mut input, context).await? == 0 {
                if body.may_end() {
                    break;
                }
                return Err(Error::explain(ErrorType::ConnectionClosed, "before the answer's end").into_up());
            }
        }
        if !ended {
            exchange.client.part(Bytes::new(), true).await?;
        }
        exchange.client.flush().await?;
        Ok(Exchanged::Answered { reusable: reusable && all_sent && input.is_empty() })
    }

    /// Waits for the head of the answer, and passes on what only announces it; `None` if stable is to answer.
    async fn begin<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        socket: &mut Socket,
        input: &mut BytesMut,
        context: &mut Context,
    ) -> pingora_error::Result<Option<Begun<C::Head>>> {
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
                Looked::Interim(bytes) => exchange.client.announce(&bytes).await?,
                Looked::Failed => return Ok(None),
                Looked::Begun(begun) => return Ok(Some(begun)),
            }
        }
    }

    /// Takes a head out of `input`, if there is one.
    fn look<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        input: &mut BytesMut,
        context: &mut Context,
    ) -> pingora_error::Result<Looked<C::Head>> {
        if input.is_empty() {
            return Ok(Looked::More);
        }
        let is_head = exchange.request.method == Method::HEAD;
        let read = with_head(input, is_head, |head| {
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                // RFC 9110, section 15.2.2. What follows would be no HTTP, to a client that goes on speaking it.
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to nobody's request").into_up());
            }
            if head.status.is_informational() {
                interim(context)?;
                return Ok((head.length, Looked::Interim(C::interim(head))));
            }
            if self.answered(exchange.asked(), context, head.status) {
                return Ok((head.length, Looked::Failed));
            }
            exchange.keeps &= !self.in_flight.is_awaited();
            let answer = C::head(head, exchange.keeps, context)?;
            exchange.status = Some(head.status);
            context.response_began = true;
            Ok((head.length, Looked::Begun(Begun { head: answer, framing: head.framing, reusable: head.keeps })))
        })?;
        let Some((length, looked)) = read else { return Ok(Looked::More) };
        input.advance(length);
        Ok(looked)
    }
}
