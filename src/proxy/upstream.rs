//! The backends as the gateway reaches them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;

use crate::flag::BackendName;
use crate::proxy::rescue::{Budget, RescueConfig};

/// How long an idle connection to a server is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a backend may take to take a part of the request, as a share of the time it has to answer. Less than all of
/// it, so that a backend that takes nothing is told from a client that sends nothing.
const WRITE_SHARE: f64 = 0.8;

/// A backend as it is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// The backend's name, which is also the variant's.
    pub name: BackendName,
    /// Its servers; requests go to them in turn.
    pub servers: Vec<Server>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// What happens to requests that it fails as the canary, and what it takes on as stable.
    pub rescue: RescueConfig,
}

/// Where one server of a backend listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How long each step of an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// Between two reads of the answer, and so also until its first byte. Each write of the request has a little less.
    pub read: Duration,
}

impl Default for Timeouts {
    /// 500 ms to connect, which is long within a data centre, and 30 s to answer, which is what clients wait for.
    fn default() -> Self {
        Self { connect: Duration::from_millis(500), read: Duration::from_secs(30) }
    }
}

/// Why a backend cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
#[error("the backend `{backend}` cannot be reached at {}", path.display())]
pub struct UpstreamError {
    backend: BackendName,
    path: PathBuf,
    #[source]
    source: Box<pingora_error::Error>,
}

/// A backend in use.
#[derive(Debug)]
pub(crate) struct Upstream {
    name: BackendName,
    variant: HeaderValue,
    rescue: RescueConfig,
    budget: Budget,
    peers: Vec<HttpPeer>,
    next: AtomicUsize,
}

impl Upstream {
    fn new(config: UpstreamConfig, now: Instant) -> Result<Self, UpstreamError> {
        let mut peers = Vec::new();
        for server in config.servers {
            let mut peer = match server {
                Server::Tcp(address) => HttpPeer::new(address, false, String::new()),
                Server::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), false, String::new())
                    .map_err(|source| UpstreamError { backend: config.name.clone(), path, source })?,
            };
            peer.options.connection_timeout = Some(config.timeouts.connect);
            peer.options.total_connection_timeout = Some(config.timeouts.connect);
            peer.options.read_timeout = Some(config.timeouts.read);
            peer.options.write_timeout = Some(config.timeouts.read.mul_f64(WRITE_SHARE));
            peer.options.idle_timeout = Some(IDLE_TIMEOUT);
            peers.push(peer);
        }
        // A backend's name is of letters, digits and hyphens, which is what a header value may hold.
        let variant = HeaderValue::from_str(config.name.as_str()).unwrap_or(HeaderValue::from_static("unknown"));
        let budget = Budget::new(config.rescue.budget, now);
        let next = AtomicUsize::new(0);
        Ok(Self { name: config.name, variant, rescue: config.rescue, budget, peers, next })
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(crate) fn variant(&self) -> HeaderValue {
        self.variant.clone()
    }

    /// What happens to requests that it fails as the canary.
    pub(crate) fn rescue(&self) -> RescueConfig {
        self.rescue
    }

    /// What it takes on as stable.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The server for the next request, in turn; `None` if the backend has none.
    pub(crate) fn peer(&self) -> Option<Box<HttpPeer>> {
        // Relaxed: whose turn it is orders nothing else.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(self.peers.len())?;
        self.peers.get(index).cloned().map(Box::new)
    }
}

/// Every backend.
#[derive(Debug)]
pub(crate) struct Upstreams {
    by_name: HashMap<BackendName, Arc<Upstream>>,
}

impl Upstreams {
    pub(crate) fn new(configs: Vec<UpstreamConfig>, now: Instant) -> Result<Self, UpstreamError> {
        let built = configs.into_iter().map(|config| Ok((config.name.clone(), Arc::new(Upstream::new(config, now)?))));
        Ok(Self { by_name: built.collect::<Result<_, _>>()? })
    }

    pub(crate) fn get(&self, name: &BackendName) -> Option<Arc<Upstream>> {
        self.by_name.get(name).map(Arc::clone)
    }
}
