//! Requests that are all there and hold nothing unusual, for a reader that needs no more than that.

use std::net::IpAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use pingora_core::protocols::l4::socket::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock;
use crate::downstream::connection::{Connection, State};
use crate::downstream::head::{Framing, first_line, named, trimmed};
use crate::downstream::patience::poll_timer;

/// The longest body, in bytes, that is waited for before anything is done: as much as may be sent twice.
pub(crate) const WHOLE_BODY: u64 = 64 * 1024;

/// How long such a body is waited for, once the head is there. Clients often send the two one after the other.
const PATIENCE: Duration = Duration::from_millis(20);

/// Headers that say something about the connection, or how a message goes over it, beyond whether it is kept.
pub(crate) const OF_CONNECTION: [HeaderName; 10] = [
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request of HTTP/1.1 that is all there.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    /// Whether the client means to ask again on this connection.
    pub(crate) keeps: bool,
    /// As it came.
    head: Bytes,
}

/// What comes next on a connection.
#[derive(Debug)]
pub(crate) enum Next {
    /// A request that is all there.
    Whole(Box<Whole>),
    /// A request that is longer, or asks for more: it is still to be read.
    Other,
    /// Nothing.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Whether HTTP/2 is spoken.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2
    }

    /// The client's address.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        match self.socket_digest.peer_addr() {
            Some(SocketAddr::Inet(client)) => Some(client.ip().to_canonical()),
            _ => None,
        }
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls_digest.is_some()
    }

    /// Whether the head of the next request is there, or the client is being refused.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.state, State::Handing { .. } | State::Refusing { .. })
    }

    /// Waits for the next request.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        loop {
            match self.state {
                State::Head => {
                    if ready!(self.poll_head(context, false)).is_err() {
                        return Poll::Ready(Next::End);
                    }
                }
                State::Handing { left, framing: Framing::Length(length @ 0..=WHOLE_BODY) } if !self.asks_more => {
                    let whole = left.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
                    ready!(self.poll_until(whole, context));
                    self.waiting = None;
                    return Poll::Ready(self.take_whole(left, whole).map_or(Next::Other, Next::Whole));
                }
                State::Handing { .. } => return Poll::Ready(Next::Other),
                State::Refusing { .. } => ready!(self.poll_refusal(context)),
                State::Length(_) | State::Chunked(_) | State::Raw | State::Ended => return Poll::Ready(Next::End),
            }
        }
    }

    /// Waits for so many bytes, for a while.
    fn poll_until(&mut self, length: usize, context: &mut Context<'_>) -> Poll<()> {
        while self.input.len() < length {
            self.input.reserve(length - self.input.len());
            match self.poll_more(context) {
                Poll::Ready(Ok(1..)) => {}
                // Whoever reads on will find it out.
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Pending => {
                    let until = *self.waiting.get_or_insert_with(clock::now) + PATIENCE;
                    ready!(poll_timer(&mut self.timer, until, context));
                    break;
                }
            }
        }
        Poll::Ready(())
    }

    /// The request in the first `whole` bytes, with a head of `length`, if it is there and nothing about it is unusual.
    fn take_whole(&mut self, length: usize, whole: usize) -> Option<Box<Whole>> {
        if self.input.len() < whole {
            return None;
        }
        let head = self.input.split_to(length).freeze();
        let body = self.input.split_to(whole - length).freeze();
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        match read(&head, body.len()) {
            Some((parts, keeps)) => {
                self.await_head();
                Some(Box::new(Whole { parts, body, keeps, head }))
            }
            None => {
                self.put_back(&head, &body);
                None
            }
        }
    }

    /// Has a request that was taken be read once more.
    pub(crate) fn give_back(&mut self, request: &Whole) {
        self.put_back(&request.head, &request.body);
        self.state = State::Handing { left: request.head.len(), framing: Framing::Length(request.body.len() as u64) };
    }

    fn put_back(&mut self, head: &[u8], body: &[u8]) {
        let mut input = BytesMut::with_capacity(head.len() + body.len() + self.input.len());
        for part in [head, body, &self.input] {
            input.extend_from_slice(part);
        }
        self.input = input;
    }

    /// Whether the client is gone, while the answer to its last request is made.
    pub(crate) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.state {
            State::Head => self.poll_head(context, true).map(drop),
            _ => Poll::Pending,
        }
    }
}

/// The request whose `head` was found to be good and has a body of so many bytes, and whether its client keeps the connection;
/// `None` if there is more to it.
fn read(head: &Bytes, body: usize) -> Option<(Parts, bool)> {
    let (line, mut rest) = first_line(head);
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    if !target.starts_with(b"/") || words.next()? != b"HTTP/1.1" {
        return None;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method).ok()?;
    parts.uri = Uri::from_maybe_shared(head.slice_ref(target)).ok()?;
    parts.headers.reserve(USUAL_FIELDS);
    let mut keeps = None;
    while let Some(lines) = rest {
        let line;
        (line, rest) = first_line(lines);
        let Some(colon) = memchr::memchr(b':', line) else { break };
        let (name, value) = (line.get(..colon)?, trimmed(line.get(colon + 1..)?));
        let is_alias = |own: &[u8]| named(name, own) && name.contains(&b'_');
        if [&b"content-length"[..], b"transfer-encoding"].into_iter().any(is_alias) {
            return None;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        if name == CONNECTION {
            let wish = match value {
                _ if keeps.is_some() => return None,
                value if value.eq_ignore_ascii_case(b"keep-alive") => true,
                value if value.eq_ignore_ascii_case(b"close") => false,
                _ => return None,
            };
            keeps = Some(wish);
        } else if OF_CONNECTION.contains(&name) {
            return None;
        } else {
            parts.headers.append(name, HeaderValue::from_maybe_shared(head.slice_ref(value)).ok()?);
        }
    }
    (body == 0 || parts.headers.contains_key(CONTENT_LENGTH)).then_some((parts, keeps.unwrap_or(true)))
}

/// As many header fields as a request commonly has, with those that the gateway adds.
const USUAL_FIELDS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, body: usize, expected: Option<(&str, usize, bool)>) {
        let read = read(&Bytes::copy_from_slice(head.as_bytes()), body);
        let found = read.as_ref().map(|(parts, keeps)| (parts.uri.path(), parts.headers.len(), *keeps));
        assert_eq!(found, expected, "{head:?}");
    }

    #[test]
    fn a_plain_request_is_read() {
        check("GET /a?b=c HTTP/1.1\r\nhost: x\r\nX-Y:  z \r\n\r\n", 0, Some(("/a", 2, true)));
        check("GET / HTTP/1.1\r\nhost: x\r\nConnection: Keep-Alive\r\n\r\n", 0, Some(("/", 1, true)));
        check("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 0, Some(("/", 1, false)));
        check("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n", 3, Some(("/", 2, true)));
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        for (line, field) in [
            ("GET / HTTP/1.0", "x: y"),
            ("OPTIONS * HTTP/1.1", "x: y"),
            ("GET http://x/ HTTP/1.1", "x: y"),
            ("GET / HTTP/1.1", "upgrade: websocket"),
            ("GET / HTTP/1.1", "Expect: 100-continue"),
            ("GET / HTTP/1.1", "te: trailers"),
            ("GET / HTTP/1.1", "transfer-encoding: chunked"),
            ("GET / HTTP/1.1", "transfer_encoding: chunked"),
            ("GET / HTTP/1.1", "Content_Length: 0"),
            ("GET / HTTP/1.1", "keep-alive: 5"),
            ("GET / HTTP/1.1", "connection: x-user-id"),
            ("GET / HTTP/1.1", "connection: keep-alive, x-user-id"),
            ("GET / HTTP/1.1", "connection: close\r\nconnection: keep-alive"),
            ("GET / HTTP/1.1", "http2-settings: x"),
        ] {
            check(&format!("{line}\r\nhost: x\r\n{field}\r\n\r\n"), 0, None);
        }
        check("POST / HTTP/1.1\r\nhost: x\r\n\r\n", 3, None);
    }
}
