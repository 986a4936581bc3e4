//! Sockets that are bound before anything else starts, so that a port in use is a clear error and not a panic.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::net::TcpListener;

use crate::config::Listen;

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
}

/// Every socket that a gateway listens on, but those of its own backends.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) http: Bound,
    pub(crate) https: Option<Bound>,
    pub(crate) admin: Bound,
}

impl Sockets {
    /// Listens where `listen` says.
    pub(crate) fn bind(listen: &Listen) -> Result<Self, BindError> {
        let https = listen.https.as_ref().map(|https| Bound::bind("listen.https", https.address));
        Ok(Self {
            http: Bound::bind("listen.http", listen.http)?,
            https: https.transpose()?,
            admin: Bound::bind("listen.admin", listen.admin)?,
        })
    }
}
