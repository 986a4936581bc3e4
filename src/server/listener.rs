//! Sockets that are bound before anything else starts, so that a port in use is a clear error and not a panic.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;

use tokio::net::TcpListener;

use crate::config::Listen;
use crate::server::takeover::{Predecessor, named};

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
    /// What it is called for one who takes over.
    name: String,
}

impl Bound {
    /// Listens on `address`, which `what` configures. Port 0 lets the system choose.
    pub(crate) fn bind(what: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let bound = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let name = named(what, address);
            Ok(Self { address: listener.local_addr()?, listener, name })
        };
        bound().map_err(|source| BindError { what, address, source })
    }

    /// What another process listened with, for `what`, which is at `configured`; nothing if it cannot be used.
    pub(crate) fn taken(socket: OwnedFd, what: &'static str, configured: SocketAddr) -> Option<Self> {
        let listener = StdListener::from(socket);
        let address = listener.set_nonblocking(true).and_then(|()| listener.local_addr()).ok()?;
        Some(Self { listener, address, name: named(what, configured) })
    }

    /// The socket for another process, with what it is called.
    pub(crate) fn offer(&self) -> io::Result<(String, OwnedFd)> {
        Ok((self.name.clone(), self.listener.try_clone()?.into()))
    }

    /// The address, with the port that the system chose.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn into_tokio(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.listener)
    }
}

/// Every socket that a gateway listens on, but those of its own backends.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) http: Bound,
    pub(crate) https: Option<Bound>,
    pub(crate) admin: Bound,
}

impl Sockets {
    /// Listens where `listen` says, on what the `predecessor` listens on where that is the same.
    pub(crate) fn bind(listen: &Listen, mut predecessor: Option<&mut Predecessor>) -> Result<Self, BindError> {
        let mut bound = |what, address| {
            let taken = predecessor.as_mut().and_then(|predecessor| predecessor.socket(what, address));
            taken.map_or_else(|| Bound::bind(what, address), Ok)
        };
        Ok(Self {
            http: bound("listen.http", listen.http)?,
            https: listen.https.as_ref().map(|https| bound("listen.https", https.address)).transpose()?,
            admin: bound("listen.admin", listen.admin)?,
        })
    }

    /// All of them, for another process.
    pub(crate) fn offer(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        [Some(&self.http), self.https.as_ref(), Some(&self.admin)].into_iter().flatten().map(Bound::offer).collect()
    }
}
