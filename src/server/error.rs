//! Why a gateway does not start.

use std::io;
use std::path::PathBuf;

use crate::backend;
use crate::diagnostic::Diagnostic;
use crate::proxy::UpstreamError;
use crate::server::link::LinkError;
use crate::server::listener::BindError;
use crate::store::StoreError;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The flag files are bad; each problem has its place.
    #[error("the flag files cannot be used; `--tolerate-bad-flags` would start without them and serve stable")]
    Flags(Vec<Diagnostic>),
    /// The file of tokens is bad; each problem has its place.
    #[error("the file of tokens cannot be used")]
    Tokens(Vec<Diagnostic>),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store cannot be used.
    #[error("cannot open the store {url}; without it a latched rollback might be missed")]
    Store {
        /// Where it should be.
        url: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A file of keys or certificates, or what is told of requests, cannot be used.
    #[error("{0}")]
    Keys(String),
    /// A backend cannot be reached as configured.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The system trusts nobody, and a backend relies on it.
    #[error("the system has no certificates to trust, which the backend `{name}` needs; set `backends.{name}.tls.ca`")]
    Roots {
        /// The backend's name.
        name: String,
        /// Why they cannot be read, if they are there.
        #[source]
        source: Option<io::Error>,
    },
    /// A built-in backend did not start.
    #[error("the built-in backend `{name}` did not start")]
    Backend {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: backend::Error,
    },
    /// Nobody can ask to take over where it should be.
    #[error("cannot listen at {} (`listen.handover`)", path.display())]
    Handover {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A gateway runs there.
    #[error("a gateway listens at {} (`listen.handover`) already; `--upgrade` takes over from it", .0.display())]
    Running(PathBuf),
    /// It is not said where the running gateway is.
    #[error(
        "`--upgrade` asks the running gateway at `listen.handover`, which is not set; set it, and restart once without \
         `--upgrade`"
    )]
    NoHandover,
    /// There is no gateway to take over from.
    #[error("no gateway listens at {} (`listen.handover`); without `--upgrade` one is started", path.display())]
    NoPredecessor {
        /// The socket's path.
        path: PathBuf,
        /// Why it cannot be reached.
        #[source]
        source: io::Error,
    },
    /// The running gateway was not ready to give way.
    #[error("cannot take over from the gateway at {}, which goes on", path.display())]
    Takeover {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// A signal came before it had taken over.
    #[error("told to stop before it had taken over; the running gateway goes on")]
    Interrupted,
    /// A part that runs until the stop ended before it.
    #[error("a part of the gateway ended by itself; its log says more")]
    PartEnded,
    /// The operating system refused something.
    #[error("the operating system refused what the gateway needs")]
    System(#[from] io::Error),
}
