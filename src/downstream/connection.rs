//! One connection of a client, as pingora is to see it: only heads that are whole and mean one thing, only bodies that
//! keep to their framing, and nothing of the next request before its turn.
//!
//! pingora reads leniently in places (bare line feeds, lengths that are equal, values that it repairs). So its bytes are
//! read here first, strictly, and it never sees what is refused. The answer to that is written here, too.

mod answering;
mod transport;
mod whole;

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use pingora_core::protocols::SocketDigest;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_core::protocols::tls::SslDigest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use uuid::Uuid;

use crate::clock;
use crate::downstream::Limits;
use crate::downstream::chunks::Chunks;
use crate::downstream::head::{self, Framing, Head};
use crate::downstream::patience::{Pace, Timer, poll_timer};
use crate::downstream::refusal::Refusal;
use crate::downstream::turned_away::TurnedAway;

/// What is read at once of a head, and of a body that comes with it.
const READ: usize = 16 * 1024;

/// What there is room for, at least, in what was read before.
const MORE: usize = 4096;

/// How long, and for how many bytes, a refused client may go on sending: closing at once would reset the connection and
/// could take the answer with it (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// The beginning of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) use crate::downstream::connection::whole::{Next, OF_CONNECTION, WHOLE_BODY, Whole};

/// Where in the client's messages the connection is.
#[derive(Debug)]
enum State {
    /// Between two requests, or within the head of the next.
    Head,
    /// A head is whole; so many of its bytes are still to be handed on.
    Handing { left: usize, framing: Framing },
    /// In a body of which so many bytes are to come.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunks),
    /// In another protocol: nothing is looked at.
    Raw,
    /// An answer of ours goes out, and then nothing more.
    Refusing { answer: Bytes, until: Option<Instant>, drained: usize },
    /// Nothing more is read.
    Ended,
}

/// A connection of a client over `S`.
pub(crate) struct Connection<S> {
    socket: S,
    limits: Arc<Limits>,
    state: State,
    /// What was read and not handed on.
    input: BytesMut,
    /// How much of it was looked at for the end of a head.
    seen: usize,
    /// What was answered and not sent.
    output: BytesMut,
    /// Since when a head, or the first byte of one, is waited for.
    waiting: Option<Instant>,
    /// Whether the request asked for another protocol, and the answer to that is out.
    upgrade: bool,
    /// Whether the request asks for more than an answer to what is there.
    asks_more: bool,
    timer: Timer,
    reading: Pace,
    writing: Pace,
    speaks: Speaks,
    http2: bool,
    fd: RawFd,
    socket_digest: Arc<SocketDigest>,
    tls_digest: Option<Arc<SslDigest>>,
    turned_away: TurnedAway,
    /// What is done when the connection ends.
    _seat: Option<Box<dyn Send + Sync>>,
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.state).field("http2", &self.http2).finish_non_exhaustive()
    }
}

/// What is known of a connection's ends.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) fd: RawFd,
    /// Who is at the other end.
    pub(crate) peer: SocketAddr,
    /// The address that was connected to.
    pub(crate) local: SocketAddr,
    /// About the encryption, if there is any.
    pub(crate) tls: Option<SslDigest>,
    /// Which HTTP was agreed on.
    pub(crate) speaks: Speaks,
    /// Who is told if the client is refused.
    pub(crate) turned_away: TurnedAway,
}

/// Which version of HTTP a client begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Its first bytes say so.
    Either,
    /// Agreed on by ALPN.
    Http1,
    /// Agreed on by ALPN.
    Http2,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection that is about to begin. `seat` is dropped with it.
    pub(crate) fn new(socket: S, ends: Ends, limits: Arc<Limits>, seat: Option<Box<dyn Send + Sync>>) -> Self {
        // Noted now: a digest may outlive the socket, and its number may then be another's.
        let socket_digest = SocketDigest::from_raw_fd(ends.fd);
        let _ = socket_digest.peer_addr.set(Some(PingoraAddress::Inet(ends.peer)));
        let _ = socket_digest.local_addr.set(Some(PingoraAddress::Inet(ends.local)));
        Self {
            socket,
            state: State::Head,
            input: BytesMut::new(),
            seen: 0,
            output: BytesMut::new(),
            waiting: None,
            upgrade: false,
            asks_more: false,
            timer: Timer::default(),
            reading: Pace::new(limits.body_timeout, limits.min_rate),
            writing: Pace::new(limits.write_timeout, 0),
            speaks: ends.speaks,
            http2: false,
            fd: ends.fd,
            socket_digest: Arc::new(socket_digest),
            tls_digest: ends.tls.map(Arc::new),
            turned_away: ends.turned_away,
            limits,
            _seat: seat,
        }
    }

    /// Waits for the first bytes, and sees whether they are HTTP/2. Until then the connection costs little more than its
    /// socket. `false` if there is nothing to serve.
    pub(crate) async fn begins(&mut self) -> bool {
        std::future::poll_fn(|context| self.poll_begins(context)).await
    }

    fn poll_begins(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        loop {
            if self.input.starts_with(HTTP2_PREFACE) && self.speaks != Speaks::Http1 {
                self.http2 = true;
                self.state = State::Raw;
                return Poll::Ready(true);
            }
            let may_be_http2 = HTTP2_PREFACE.starts_with(&self.input);
            match self.speaks {
                Speaks::Http1 if !self.input.is_empty() => return Poll::Ready(true),
                Speaks::Either if !may_be_http2 => return Poll::Ready(true),
                Speaks::Http2 if !may_be_http2 => return Poll::Ready(false),
                Speaks::Http1 | Speaks::Either | Speaks::Http2 => {}
            }
            match self.poll_more(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
                Poll::Pending => {
                    let deadline = self.deadline();
                    ready!(poll_timer(&mut self.timer, deadline, context));
                    return Poll::Ready(false);
                }
            }
        }
    }

    /// Refuses the client without having read anything.
    pub(crate) async fn refuse(mut self, refusal: Refusal) {
        self.begin_refusal(refusal);
        std::future::poll_fn(|context| self.poll_refusal(context)).await;
    }

    /// Ends the connection after an answer. A client that is still sending is let go on for a while.
    pub(crate) async fn end(&mut self) {
        if matches!(self.state, State::Length(_) | State::Chunked(_)) {
            // What waits to be sent is the answer; a client that is gone needs none.
            let answer = std::mem::take(&mut self.output).freeze();
            self.state = State::Refusing { answer, until: None, drained: 0 };
            std::future::poll_fn(|context| self.poll_refusal(context)).await;
        }
    }

    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.input.is_empty() {
            self.input.reserve(MORE);
            return poll_read_buf(Pin::new(&mut self.socket), context, &mut self.input);
        }
        // Who waits holds no buffer, and mostly there is nothing yet.
        let mut space = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut read))?;
        self.input = BytesMut::from(read.filled());
        Poll::Ready(Ok(self.input.len()))
    }

    /// When the head has to be there, or its first byte.
    fn deadline(&mut self) -> Instant {
        let now = clock::now();
        let since = *self.waiting.get_or_insert(now);
        since + if self.input.is_empty() { self.limits.idle } else { self.limits.header_timeout }
    }

    fn begin_refusal(&mut self, refusal: Refusal) {
        tracing::debug!(%refusal, "a client is refused");
        let id = Uuid::new_v4().to_string();
        let client = match self.socket_digest.peer_addr() {
            Some(PingoraAddress::Inet(client)) => Some(client.ip()),
            _ => None,
        };
        let (status, why) = refusal.in_short();
        self.turned_away.tell(client, self.tls_digest.is_some(), Some((status, &id)), why);
        self.state = State::Refusing { answer: refusal.answer(&id), until: None, drained: 0 };
        self.input = BytesMut::new();
    }

    /// Reads until a head is whole. A `probe` only asks whether the client is still there, while the answer to its last
    /// request is made: it is given nothing of the next.
    fn poll_head(&mut self, context: &mut Context<'_>, probe: bool) -> Poll<io::Result<()>> {
        loop {
            if probe && !self.input.is_empty() {
                return Poll::Pending;
            }
            if self.seen == 0 && self.input.starts_with(b"\r\n") {
                // Some clients end a body with one line end too many (RFC 9112, section 2.2).
                self.input.advance(2);
            }
            // The same, of which half is there.
            let is_line_end = self.seen == 0 && *self.input == *b"\r";
            let read = if is_line_end { Ok(None) } else { head::read(&self.input, &mut self.seen, &self.limits.head) };
            match read {
                Ok(None) => {}
                Ok(Some(head)) => {
                    match self.check_body_so_far(&head) {
                        Ok(()) => self.state = State::Handing { left: head.length, framing: head.framing },
                        Err(refusal) => self.begin_refusal(refusal),
                    }
                    (self.seen, self.waiting) = (0, None);
                    (self.upgrade, self.asks_more) = (head.upgrade, head.asks_more);
                    return Poll::Ready(Ok(()));
                }
                Err(refusal) => {
                    self.begin_refusal(refusal);
                    return Poll::Ready(Ok(()));
                }
            }
            let was_empty = self.input.is_empty();
            match self.poll_more(context) {
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) => {
                    if was_empty {
                        // The time for the head begins with its first byte.
                        self.waiting = None;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if probe => return Poll::Pending,
                Poll::Pending => {
                    let deadline = self.deadline();
                    ready!(poll_timer(&mut self.timer, deadline, context));
                    if self.input.is_empty() {
                        self.state = State::Ended;
                    } else {
                        self.begin_refusal(Refusal::SlowHeader);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// As [`Self::poll_head`], where nothing is waiting: reads into `out`, and is done if that is a head that is whole, with at
    /// most its own body after it. It mostly is, and then nothing is copied. Otherwise what was read is put by.
    fn poll_whole_head(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = out.filled().len();
        match Pin::new(&mut self.socket).poll_read(context, out) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                let deadline = self.deadline();
                ready!(poll_timer(&mut self.timer, deadline, context));
                self.state = State::Ended;
                return Poll::Ready(Ok(true));
            }
        }
        let read = out.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.state = State::Ended;
            return Poll::Ready(Ok(true));
        }
        self.waiting = None;
        if let Ok(Some(head)) = head::read(read, &mut 0, &self.limits.head) {
            let beyond = (read.len() - head.length) as u64;
            let body = match head.framing {
                Framing::Length(length) if length > self.limits.body => None,
                Framing::Length(length) => length.checked_sub(beyond).map(State::Length),
                Framing::Chunked => (beyond == 0).then(|| State::Chunked(Chunks::new())),
            };
            if let Some(body) = body {
                self.upgrade = head.upgrade;
                match body {
                    State::Length(0) => self.await_head(),
                    body => self.state = body,
                }
                return Poll::Ready(Ok(true));
            }
        }
        self.input = BytesMut::from(read);
        out.set_filled(before);
        Poll::Ready(Ok(false))
    }

    /// What came with the head is looked at before the head is handed on: then no backend hears of a request that is
    /// broken from the start. A body that is too long by its own account is not even begun.
    fn check_body_so_far(&self, head: &Head) -> Result<(), Refusal> {
        match head.framing {
            Framing::Length(length) if length > self.limits.body => Err(Refusal::BodyTooLong),
            Framing::Length(_) => Ok(()),
            Framing::Chunked => Chunks::new().follow(self.input.get(head.length..).unwrap_or_default()).map(|_| ()),
        }
    }

    /// Hands on a part of the body, and keeps what lies beyond its end for the next request.
    fn poll_body(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        if self.input.is_empty() {
            match Pin::new(&mut self.socket).poll_read(context, out) {
                Poll::Ready(Ok(())) => self.reading.moved(out.filled().len() - before),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.reading.waits(context) {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Refusal::SlowBody)));
                    }
                    return Poll::Pending;
                }
            }
        } else {
            hand_on(&mut self.input, out, usize::MAX);
        }
        let read = out.filled().get(before..).unwrap_or_default();
        let (belonging, ended) = match &mut self.state {
            State::Length(left) => {
                let belonging = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
                *left -= belonging as u64;
                (belonging, *left == 0)
            }
            State::Chunked(chunks) => {
                let followed =
                    chunks.follow(read).map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal));
                (followed?, chunks.is_done())
            }
            _ => (read.len(), false),
        };
        if belonging < read.len() {
            let mut beyond = BytesMut::from(read.get(belonging..).unwrap_or_default());
            beyond.unsplit(std::mem::take(&mut self.input));
            self.input = beyond;
            out.set_filled(before + belonging);
        }
        if ended {
            self.await_head();
        }
        Poll::Ready(Ok(()))
    }

    fn await_head(&mut self) {
        self.reading.restart();
        self.state = State::Head;
    }

    /// Sends the answer, says that nothing more will come, and lets the client finish its sentence.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let State::Refusing { answer, until, drained } = &mut self.state else { return Poll::Ready(()) };
        let now = clock::now();
        let deadline = *until.get_or_insert(now + LINGER);
        let socket = &mut self.socket;
        let mut goodbye = || -> Poll<io::Result<()>> {
            while !answer.is_empty() {
                let written = ready!(Pin::new(&mut *socket).poll_write(context, answer))?;
                answer.advance(written);
            }
            ready!(Pin::new(&mut *socket).poll_shutdown(context))?;
            let mut waste = [0; MORE];
            while *drained < LINGER_BYTES {
                let mut waste = ReadBuf::new(&mut waste);
                ready!(Pin::new(&mut *socket).poll_read(context, &mut waste))?;
                if waste.filled().is_empty() {
                    break;
                }
                *drained += waste.filled().len();
            }
            Poll::Ready(Ok(()))
        };
        if goodbye().is_pending() {
            self.timer.put_away();
            ready!(poll_timer(&mut self.timer, deadline, context));
        }
        self.state = State::Ended;
        Poll::Ready(())
    }
}

/// Moves up to `most` bytes from `input` to `out`.
fn hand_on(input: &mut BytesMut, out: &mut ReadBuf<'_>, most: usize) -> usize {
    let length = input.len().min(out.remaining()).min(most);
    out.put_slice(input.get(..length).unwrap_or_default());
    input.advance(length);
    if input.is_empty() {
        *input = BytesMut::new();
    }
    length
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                // pingora reads one byte at a time where it only waits for the client to leave.
                State::Head if this.input.is_empty() && out.remaining() > 1 => {
                    if ready!(this.poll_whole_head(context, out))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Head => ready!(this.poll_head(context, out.remaining() == 1))?,
                State::Handing { left, framing } => {
                    *left -= hand_on(&mut this.input, out, *left);
                    if *left == 0 {
                        match *framing {
                            Framing::Length(0) => this.await_head(),
                            Framing::Length(length) => this.state = State::Length(length),
                            Framing::Chunked => this.state = State::Chunked(Chunks::new()),
                        }
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Length(_) | State::Chunked(_) => return this.poll_body(context, out),
                State::Raw if this.input.is_empty() => return Pin::new(&mut this.socket).poll_read(context, out),
                State::Raw => {
                    hand_on(&mut this.input, out, usize::MAX);
                    return Poll::Ready(Ok(()));
                }
                State::Refusing { .. } => ready!(this.poll_refusal(context)),
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
