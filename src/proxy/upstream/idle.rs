//! Connections to a server by which nothing is under way, for the requests that the gateway proxies without pingora.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use pingora_core::protocols::l4::ext::{connect, connect_uds};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::either::Either;

/// The most that are kept, for one address of a server.
const MOST: usize = 1024;

/// A connection to a server.
pub(crate) type Socket = Either<TcpStream, UnixStream>;

/// Connections that wait for a request, the longest first. Nobody waits for a lock here.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    waiting: SegQueue<(Socket, Instant)>,
    count: AtomicUsize,
    /// Whether nobody looks after them any more.
    closed: AtomicBool,
}

impl Idle {
    /// Puts a connection by, on which nothing is left to be read.
    pub(crate) fn put(&self, socket: Socket, now: Instant) {
        // Relaxed, here and below: one more or less than `MOST` does no harm.
        if self.count.fetch_add(1, Ordering::Relaxed) < MOST {
            self.waiting.push((socket, now));
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        // SeqCst, here and below: either this sees that they are closed, or who closes them sees this one.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
    }

    /// Closes them all, and each that comes from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.waiting.pop().is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection that has waited for less than `most`, and that the server has not given up.
    pub(crate) fn take(&self, most: Duration, now: Instant) -> Option<Socket> {
        loop {
            let (socket, since) = self.waiting.pop()?;
            self.count.fetch_sub(1, Ordering::Relaxed);
            if now.saturating_duration_since(since) < most && is_silent(&socket) {
                return Some(socket);
            }
        }
    }

    /// Closes those that have waited for `most`, or that the server has given up.
    pub(crate) fn prune(&self, most: Duration, now: Instant) {
        for _ in 0..self.count.load(Ordering::Relaxed) {
            let Some((socket, since)) = self.waiting.pop() else { break };
            if now.saturating_duration_since(since) < most && is_silent(&socket) {
                self.waiting.push((socket, since));
            } else {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
    }
}

/// Whether a server has sent nothing by itself: neither its end of the connection nor an answer that nobody asked for. The
/// system is only asked if it has told of something.
fn is_silent(socket: &Socket) -> bool {
    let mut byte = [0];
    let read = match socket {
        Either::Left(socket) => socket.try_read(&mut byte),
        Either::Right(socket) => socket.try_read(&mut byte),
    };
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// A new connection to `address`.
pub(crate) async fn open(address: &SocketAddr, within: Duration) -> pingora_error::Result<Socket> {
    let opening = async {
        match address {
            SocketAddr::Inet(address) => {
                let socket = connect(address, None).await?;
                let delays = |error| Error::because(ErrorType::SocketError, "setting TCP_NODELAY", error);
                socket.set_nodelay(true).map_err(delays)?;
                Ok(Either::Left(socket))
            }
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?;
                connect_uds(path).await.map(Either::Right)
            }
        }
    };
    let opened = timeout(within, opening).await;
    opened.unwrap_or_else(|_| Error::e_explain(ErrorType::ConnectTimedout, "connecting to the server"))
}
