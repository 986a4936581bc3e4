//! The backends as the gateway reaches them.

mod balance;
mod endpoint;
mod idle;
mod server;
mod tls;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use http::HeaderValue;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::upstreams::peer::HttpPeer;

use crate::flag::BackendName;
use crate::proxy::rescue::{Budget, RescueConfig};
use crate::proxy::upstream::balance::pick;
use crate::proxy::upstream::tls::PeerTls;

pub use crate::proxy::upstream::balance::Balance;
pub use crate::proxy::upstream::endpoint::Ejection;
pub use crate::proxy::upstream::server::{Server, ServerPlace};
pub use crate::proxy::upstream::tls::{Protocol, TlsConfig, TlsError};
pub use crate::proxy::upstream::upkeep::{HealthCheck, Upkeep};

pub(crate) use crate::proxy::upstream::balance::Tried;
pub(crate) use crate::proxy::upstream::endpoint::{Endpoint, Lease};
pub(crate) use crate::proxy::upstream::idle::{Socket, open};

/// How long a backend may take to take a part of the request, as a share of the time it has to answer. Less than all of
/// it, so that a backend that takes nothing is told from a client that sends nothing.
const WRITE_SHARE: f64 = 0.8;

/// Requests at a time on one HTTP/2 connection: what servers commonly allow (RFC 9113, section 6.5.2, advises at least 100).
const MAX_H2_STREAMS: usize = 100;

/// A backend as it is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// The backend's name, which is also the variant's.
    pub name: BackendName,
    /// Its servers.
    pub servers: Vec<Server>,
    /// How requests are spread over them.
    pub balance: Balance,
    /// The version of HTTP that they speak.
    pub protocol: Protocol,
    /// How they prove who they are, and the gateway to them.
    pub tls: TlsConfig,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// How it is found out whether they are well.
    pub health_check: Option<HealthCheck>,
    /// When one is set aside for failing requests.
    pub ejection: Ejection,
    /// How often names are resolved again.
    pub resolve: Duration,
    /// What happens to requests that it fails as the canary, and what it takes on as stable.
    pub rescue: RescueConfig,
}

/// How long each step of an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// Between two reads of the answer, and so also until its first byte.
    pub read: Duration,
    /// To write a part of the request; by default a little less than `read`.
    pub write: Option<Duration>,
    /// For which a connection without a request is kept.
    pub idle: Duration,
    /// From the choice of a server to the last byte of its answer; by default for ever.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    /// 500 ms to connect, which is long within a data centre, 30 s to answer, which is what clients wait for, and 60 s idle,
    /// which is less than servers commonly keep a connection.
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(500),
            read: Duration::from_secs(30),
            write: None,
            idle: Duration::from_secs(60),
            total: None,
        }
    }
}

impl Timeouts {
    /// To write a part of the request.
    pub(crate) fn write(&self) -> Duration {
        self.write.unwrap_or_else(|| self.read.mul_f64(WRITE_SHARE))
    }
}

/// Why a backend cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
#[error("the backend `{backend}` cannot be reached at {server}")]
pub struct UpstreamError {
    backend: BackendName,
    server: String,
    #[source]
    source: Box<pingora_error::Error>,
}

/// A backend in use.
#[derive(Debug)]
pub(crate) struct Upstream {
    config: UpstreamConfig,
    variant: HeaderValue,
    tls: PeerTls,
    /// Keeps its connections from other backends, whose certificates may be checked otherwise.
    group: u64,
    budget: Budget,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    available: AtomicBool,
    turns: AtomicU64,
    retries: AtomicU64,
    ejections: AtomicU64,
}

impl Upstream {
    fn new(config: UpstreamConfig, group: u64, now: Instant) -> Result<Self, UpstreamError> {
        // A backend's name is of letters, digits and hyphens, which is what a header value may hold.
        let variant = HeaderValue::from_str(config.name.as_str()).unwrap_or(HeaderValue::from_static("unknown"));
        let upstream = Self {
            variant,
            tls: PeerTls::new(&config.tls),
            group,
            budget: Budget::new(config.rescue.budget, now),
            endpoints: ArcSwap::default(),
            available: AtomicBool::new(true),
            turns: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            config,
        };
        let mut endpoints = Vec::new();
        for server in &upstream.config.servers {
            let address = match &server.place {
                ServerPlace::Address(address) => PeerAddress::Inet(*address),
                ServerPlace::Unix(path) => {
                    let peer = HttpPeer::new_uds(&path.to_string_lossy(), false, String::new());
                    let refused = |source| UpstreamError {
                        backend: upstream.config.name.clone(),
                        server: server.text.clone(),
                        source,
                    };
                    peer.map_err(refused)?._address
                }
                // Upkeep resolves it.
                ServerPlace::Name(..) => continue,
            };
            endpoints.push(Arc::new(upstream.endpoint(server, address, server.text.clone(), now)));
        }
        upstream.endpoints.store(Arc::new(endpoints));
        Ok(upstream)
    }

    /// An address of `server`.
    fn endpoint(&self, server: &Server, address: PeerAddress, name: String, now: Instant) -> Endpoint {
        let timeouts = &self.config.timeouts;
        // pingora takes only TCP addresses here; the real one is put in below.
        let mut peer = HttpPeer::new(SocketAddr::from(([127, 0, 0, 1], 1)), server.tls, String::new());
        peer._address = address;
        peer.group_key = self.group;
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.read_timeout = Some(timeouts.read);
        peer.options.write_timeout = Some(timeouts.write());
        peer.options.idle_timeout = Some(timeouts.idle);
        peer.options.max_h2_streams = MAX_H2_STREAMS;
        self.tls.apply(&mut peer, server, self.config.protocol);
        Endpoint::new(name, server.host().unwrap_or_else(|| "localhost".to_owned()), peer, now)
    }

    /// Takes over what the checks of `before` found of the servers that it has, too.
    fn believe(&self, before: &Self) {
        let known = before.endpoints.load();
        for endpoint in self.endpoints.load().iter() {
            if let Some(known) = known.iter().find(|known| known.name() == endpoint.name()) {
                endpoint.set_healthy(known.is_healthy());
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    pub(crate) fn variant(&self) -> HeaderValue {
        self.variant.clone()
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }

    /// What happens to requests that it fails as the canary.
    pub(crate) fn rescue(&self) -> RescueConfig {
        self.config.rescue
    }

    /// What it takes on as stable.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether its servers speak plain HTTP/1.1.
    pub(crate) fn is_plain(&self) -> bool {
        self.config.protocol != Protocol::H2 && !self.config.servers.iter().any(|server| server.tls)
    }

    /// Closes connections that have been without a request for too long.
    fn prune(&self, now: Instant) {
        for endpoint in self.endpoints.load().iter() {
            endpoint.idle().prune(self.config.timeouts.idle, now);
        }
    }

    /// Closes all connections that are without a request, now and later: it is not configured any more.
    fn retire(&self) {
        for endpoint in self.endpoints.load().iter() {
            endpoint.idle().close();
        }
    }

    /// Whether a request's server depends on its targeting key.
    pub(crate) fn balances_by_key(&self) -> bool {
        self.config.balance == Balance::Hash
    }

    /// Whether any of its servers can be used, as far as their checks say.
    pub(crate) fn is_available(&self) -> bool {
        // Relaxed: a request that misses the change by a moment goes the way that it would have gone a moment ago.
        self.available.load(Ordering::Relaxed)
    }

    /// A server for a request that was tried on those of `tried`; `None` if there is no other.
    pub(crate) fn pick(&self, key: Option<u64>, tried: &Tried, now: Instant) -> Option<Lease> {
        // Relaxed: whose turn it is orders nothing else. Only a request's first try takes a turn, or a server that is gone
        // would take the next one's turn along with its own.
        let turn = match tried.is_empty() {
            true => self.turns.fetch_add(1, Ordering::Relaxed),
            false => self.turns.load(Ordering::Relaxed),
        };
        let endpoints = self.endpoints.load();
        pick(&endpoints, self.config.balance, turn, key, tried, now).cloned().map(Lease::new)
    }

    /// Whether a request that `tried` could not reach has another server to go to.
    pub(crate) fn has_another(&self, tried: &Tried, now: Instant) -> bool {
        let endpoints = self.endpoints.load();
        tried.may_try_another() && pick(&endpoints, Balance::RoundRobin, 0, None, tried, now).is_some()
    }

    /// Counts a request that is tried again on another server.
    pub(crate) fn note_retry(&self) {
        // Relaxed: a count.
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that `endpoint` failed a request.
    pub(crate) fn note_failure(&self, endpoint: &Endpoint, now: Instant) {
        if endpoint.failed(self.config.ejection, now) {
            // Relaxed: a count.
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Every backend.
#[derive(Debug)]
pub struct Upstreams {
    by_name: HashMap<BackendName, Arc<Upstream>>,
    /// Those that are not configured any more. Requests may still be decided for them by flags of a moment ago.
    retired: HashMap<BackendName, Arc<Upstream>>,
    /// The group of the next backend that is made.
    next_group: u64,
}

impl Upstreams {
    /// The backends that `configs` describe. Names are resolved by [`Upkeep`].
    ///
    /// # Errors
    ///
    /// If an address cannot be used.
    pub fn new(configs: Vec<UpstreamConfig>, now: Instant) -> Result<Self, UpstreamError> {
        Self { by_name: HashMap::new(), retired: HashMap::new(), next_group: 1 }.renewed(configs, now)
    }

    /// The backends that `configs` describe: those of these that are the same, with all that is known of them, and others made
    /// anew. A server that is known to be unwell stays so until its next check.
    ///
    /// # Errors
    ///
    /// If an address cannot be used.
    pub fn renewed(&self, configs: Vec<UpstreamConfig>, now: Instant) -> Result<Self, UpstreamError> {
        let (mut by_name, mut next_group) = (HashMap::new(), self.next_group);
        for config in configs {
            let before = self.by_name.get(&config.name);
            let upstream = match before.filter(|before| before.config == config) {
                Some(same) => Arc::clone(same),
                None => {
                    let made = Upstream::new(config, next_group, now)?;
                    next_group += 1;
                    if let Some(before) = before {
                        made.believe(before);
                    }
                    Arc::new(made)
                }
            };
            by_name.insert(upstream.config.name.clone(), upstream);
        }
        let gone = self.by_name.iter().filter(|(name, _)| !by_name.contains_key(*name));
        let retired = gone.map(|(name, upstream)| (name.clone(), Arc::clone(upstream))).collect();
        Ok(Self { by_name, retired, next_group })
    }

    pub(crate) fn get(&self, name: &BackendName) -> Option<Arc<Upstream>> {
        self.by_name.get(name).or_else(|| self.retired.get(name)).map(Arc::clone)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_name.values()
    }
}
