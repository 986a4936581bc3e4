//! Why a client is refused before any backend hears of it, and what it is told.

use std::fmt;

use bytes::Bytes;

use crate::api::Problem;

/// How long a client that came at a bad moment is asked to wait, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it sent is no HTTP, or can be understood in two ways; says what.
    #[error("{0}")]
    Malformed(&'static str),
    /// The target is too long.
    #[error("the request's target is longer than `limits.uri`")]
    UriTooLong,
    /// The request line and the header are too long.
    #[error("the request's header is longer than `limits.header`")]
    HeaderTooLong,
    /// There are too many header fields.
    #[error("the request has more header fields than `limits.header_fields`")]
    TooManyFields,
    /// The body is too long.
    #[error("the request's body is longer than `limits.body`")]
    BodyTooLong,
    /// The header did not come in time.
    #[error("the request's header did not arrive within `limits.header_timeout`")]
    SlowHeader,
    /// The body stopped coming, or comes too slowly.
    #[error("the rest of the request did not arrive in time")]
    SlowBody,
    /// CONNECT, which this gateway does not do.
    #[error("this gateway opens no tunnels")]
    Connect,
    /// A transfer coding other than chunked.
    #[error("no transfer coding but `chunked` is understood")]
    TransferCoding,
    /// Another version of HTTP.
    #[error("HTTP/1.0, HTTP/1.1 and HTTP/2 are understood")]
    Version,
    /// The gateway has as many connections as it may.
    #[error("the gateway has no connection left to give")]
    Full,
    /// The client's address has as many connections as it may.
    #[error("this address has as many connections as it may")]
    AddressFull,
    /// The route has as many requests in flight as it may.
    #[error("as many requests are under way here as may be")]
    RouteFull,
}

impl Refusal {
    /// The status, the kind of problem and its title.
    fn terms(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Malformed(_) => (400, "bad-request", "Bad request"),
            Self::Connect => (405, "method-not-allowed", "Method not allowed"),
            Self::SlowHeader | Self::SlowBody => (408, "request-timeout", "Request timeout"),
            Self::BodyTooLong => (413, "content-too-large", "Content too large"),
            Self::UriTooLong => (414, "uri-too-long", "URI too long"),
            Self::AddressFull => (429, "too-many-connections", "Too many requests"),
            Self::HeaderTooLong | Self::TooManyFields => (431, "header-too-large", "Request header fields too large"),
            Self::TransferCoding => (501, "not-implemented", "Not implemented"),
            Self::Full | Self::RouteFull => (503, "overloaded", "Service unavailable"),
            Self::Version => (505, "http-version", "HTTP version not supported"),
        }
    }

    /// The status, and why in a word.
    pub(crate) fn in_short(self) -> (u16, &'static str) {
        let (status, kind, _) = self.terms();
        (status, kind)
    }

    /// What the client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        let (status, kind, title) = self.terms();
        Problem::new(status, kind, title, self.to_string())
    }

    /// How long the client should wait before it tries again, in seconds; `None` if that would not help.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::Full | Self::AddressFull | Self::RouteFull => Some(RETRY_AFTER_S),
            Self::Malformed(_)
            | Self::UriTooLong
            | Self::HeaderTooLong
            | Self::TooManyFields
            | Self::BodyTooLong
            | Self::SlowHeader
            | Self::SlowBody
            | Self::Connect
            | Self::TransferCoding
            | Self::Version => None,
        }
    }

    /// The whole answer as it is sent over HTTP/1.1, after which the connection is closed.
    pub(crate) fn answer(self, id: &str) -> Bytes {
        let (status, _, title) = self.terms();
        let problem = Problem { request_id: Some(id.to_owned()), ..self.problem() };
        // A problem document is strings and a number: writing it cannot fail.
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let retry = self.retry_after().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let allow = if self == Self::Connect { "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" } else { "" };
        let head = format_args!(
            "HTTP/1.1 {status} {title}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
             x-request-id: {id}\r\n{retry}{allow}connection: close\r\n\r\n{body}",
            Problem::MEDIA_TYPE,
            body.len(),
        );
        fmt::format(head).into()
    }
}
