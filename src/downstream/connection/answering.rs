//! The way back: answers are corked, sent, and watched for a client that does not take them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::downstream::connection::{Connection, State};

/// Answers up to this size wait for a flush, so that head and body go out together; the same as pingora's own buffer.
const CORKED: usize = 1460;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends what waits to be sent.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.socket).poll_write(context, &self.output) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.output.advance(written);
                    self.writing.moved(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_reader(context).map(Err),
            }
        }
        self.output = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// The error that ends a client who takes no answer for too long.
    fn poll_reader(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.writing.waits(context) {
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer"));
        }
        Poll::Pending
    }

    /// An answer begins: if it grants another protocol, the rest of the connection is none of ours.
    fn note_answer(&mut self, begins: &[u8]) {
        if self.upgrade && !begins.starts_with(b"HTTP/1.1 1") {
            self.upgrade = false;
        } else if self.upgrade && begins.starts_with(b"HTTP/1.1 101 ") {
            self.upgrade = false;
            self.state = State::Raw;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_answer(bytes);
        if this.output.len() + bytes.len() <= CORKED {
            this.output.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        if !this.output.is_empty() && this.socket.is_write_vectored() {
            let both = [io::IoSlice::new(&this.output), io::IoSlice::new(bytes)];
            match Pin::new(&mut this.socket).poll_write_vectored(context, &both) {
                Poll::Ready(Ok(written)) => {
                    this.writing.moved(written);
                    let waiting = this.output.len();
                    if written > waiting {
                        this.output = BytesMut::new();
                        return Poll::Ready(Ok(written - waiting));
                    }
                    // Nothing of `bytes` went out; the rest before it has to.
                    this.output.advance(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return this.poll_reader(context).map(Err),
            }
        }
        ready!(this.poll_drain(context))?;
        match Pin::new(&mut this.socket).poll_write(context, bytes) {
            Poll::Ready(written) => {
                this.writing.moved(*written.as_ref().unwrap_or(&0));
                Poll::Ready(written)
            }
            Poll::Pending => this.poll_reader(context).map(Err),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        match Pin::new(&mut this.socket).poll_flush(context) {
            Poll::Pending => this.poll_reader(context).map(Err),
            flushed @ Poll::Ready(_) => flushed,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        match Pin::new(&mut this.socket).poll_shutdown(context) {
            Poll::Pending => this.poll_reader(context).map(Err),
            ended @ Poll::Ready(_) => ended,
        }
    }
}
