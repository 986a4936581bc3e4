//! The client, as far as an answer to a plain request differs with how it is sent.

use std::io;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType};
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt as _;

use crate::downstream::{Connection, Transport};
use crate::proxy::answer::write_field;
use crate::proxy::context::Context;
use crate::proxy::direct::head::{AnswerHead, Ending, Framing};

/// Whoever waits for an answer.
pub(super) trait Client: Send {
    /// The head of an answer.
    type Head: Send;

    /// What the client is to get of a backend's answer, and whether another request may follow.
    fn head(answer: &AnswerHead<'_>, keeps: bool, context: &Context) -> pingora_error::Result<Self::Head>;

    /// An answer of the gateway's own, which has a body of known length.
    fn own(response: ResponseHeader, keeps: bool) -> Self::Head;

    /// What the client is to get of an answer that announces another; where it can get none, nothing.
    fn interim(answer: &AnswerHead<'_>) -> Vec<u8>;

    /// Whether the client is gone.
    fn poll_gone(&mut self, task: &mut Task<'_>) -> Poll<()>;

    /// The body of the request, if it is still to come.
    fn body(&mut self) -> impl Future<Output = pingora_error::Result<Option<Bytes>>> + Send;

    /// Announces an answer.
    fn announce(&mut self, interim: &[u8]) -> impl Future<Output = pingora_error::Result<()>> + Send;

    /// Begins an answer.
    fn begin(&mut self, head: Self::Head, framing: Framing) -> impl Future<Output = pingora_error::Result<()>> + Send;

    /// Goes on with the body, and ends it if this is the last part. It may wait for [`Client::flush`].
    fn part(&mut self, part: Bytes, is_last: bool) -> impl Future<Output = pingora_error::Result<()>> + Send;

    /// Has the client get all that was said so far.
    fn flush(&mut self) -> impl Future<Output = pingora_error::Result<()>> + Send;
}

/// A client that speaks HTTP/1.1.
pub(super) struct Http1<'c, S> {
    connection: &'c mut Connection<S>,
    /// Whether the answer's body goes out in chunks.
    chunked: bool,
}

impl<'c, S: Transport> Http1<'c, S> {
    pub(super) fn new(connection: &'c mut Connection<S>) -> Self {
        Self { connection, chunked: false }
    }

    async fn write(&mut self, bytes: &[u8]) -> pingora_error::Result<()> {
        self.connection.write_all(bytes).await.map_err(not_taken)
    }
}

impl<S: Transport> Client for Http1<'_, S> {
    type Head = Vec<u8>;

    fn head(answer: &AnswerHead<'_>, keeps: bool, context: &Context) -> pingora_error::Result<Vec<u8>> {
        let chunked = !matches!(answer.framing, Framing::Length(_));
        Ok(answer.write(Ending { chunked, keeps }, context))
    }

    fn own(response: ResponseHeader, keeps: bool) -> Vec<u8> {
        let reason = response.status.canonical_reason().unwrap_or_default();
        let mut out = Vec::new();
        for part in ["HTTP/1.1 ", response.status.as_str(), " ", reason, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        response.header_to_h1_wire(&mut out);
        write_field(&mut out, b"date", get_cached_date().as_bytes());
        out.extend_from_slice(if keeps { b"\r\n" } else { b"connection: close\r\n\r\n" });
        out
    }

    fn interim(answer: &AnswerHead<'_>) -> Vec<u8> {
        answer.write_interim()
    }

    fn poll_gone(&mut self, task: &mut Task<'_>) -> Poll<()> {
        self.connection.poll_gone(task)
    }

    async fn body(&mut self) -> pingora_error::Result<Option<Bytes>> {
        Ok(None)
    }

    async fn announce(&mut self, interim: &[u8]) -> pingora_error::Result<()> {
        self.write(interim).await?;
        self.flush().await
    }

    async fn begin(&mut self, head: Vec<u8>, framing: Framing) -> pingora_error::Result<()> {
        self.chunked = !matches!(framing, Framing::Length(_));
        self.write(&head).await
    }

    async fn part(&mut self, part: Bytes, is_last: bool) -> pingora_error::Result<()> {
        if !self.chunked {
            return self.write(&part).await;
        }
        if !part.is_empty() {
            self.write(format!("{:x}\r\n", part.len()).as_bytes()).await?;
            self.write(&part).await?;
            self.write(b"\r\n").await?;
        }
        if is_last { self.write(b"0\r\n\r\n").await } else { Ok(()) }
    }

    async fn flush(&mut self) -> pingora_error::Result<()> {
        self.connection.flush().await.map_err(not_taken)
    }
}

/// The client takes no answer.
fn not_taken(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorType::WriteTimedout,
        _ => ErrorType::WriteError,
    };
    Error::because(kind, "sending the answer", error).into_down()
}
