//! Sockets that are bound before anything else starts, so that a port in use is a clear error and not a panic.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::server::{Fds, ListenFds};
use tokio::net::TcpListener;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (`{what}`)")]
pub struct BindError {
    what: &'static str,
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: StdListener,
    address: SocketAddr,
}

impl Bound {
    /// Listens on `address`, which `what` configures. Port 0 lets the system choose.
    pub(crate) fn bind(what: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let bound = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound().map_err(|source| BindError { what, address, source })
    }

    /// The address, with the port that the system chose.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn into_tokio(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.listener)
    }

    /// The socket as pingora takes over those of another process: it finds it under the `name` that it would bind.
    pub(crate) fn into_pingora(self, name: String) -> ListenFds {
        let mut sockets = Fds::new();
        sockets.add(name, self.listener.into_raw_fd());
        Arc::new(Mutex::new(sockets))
    }
}
