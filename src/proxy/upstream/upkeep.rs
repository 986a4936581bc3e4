//! Looks after the servers, off the path of requests: checks their health, resolves their names, and tells how they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora_core::connectors::{ConnectorOptions, TransportConnector, http::Connector};
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_error::{Error, ErrorType};
use pingora_http::RequestHeader;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::availability::{Availability, Condition, ServerCondition};
use crate::clock;
use crate::proxy::upstream::endpoint::Endpoint;
use crate::proxy::upstream::{ServerPlace, Upstream, Upstreams};

/// How often it is told how the servers are, beside each time that it changes.
const TELL: Duration = Duration::from_secs(1);

/// How long a name may take to be resolved.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How it is found out whether a server is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for by GET, and has to be answered 2xx or 3xx; without a path, a connection is enough.
    pub path: Option<String>,
    /// How often.
    pub interval: Duration,
    /// How long the server has to answer.
    pub timeout: Duration,
    /// After so many failures one after the other it is unwell. The very first check counts alone.
    pub unhealthy_after: u32,
    /// After so many successes one after the other it is well again.
    pub healthy_after: u32,
}

/// Looks after the servers of every backend.
#[derive(Debug)]
pub struct Upkeep {
    upstreams: watch::Receiver<Arc<Upstreams>>,
    availability: Arc<Availability>,
    roots: Option<String>,
}

/// What the checks of one endpoint have found so far.
#[derive(Debug)]
struct Record {
    endpoint: Arc<Endpoint>,
    checked: bool,
    /// How many of the last checks, one after the other, said otherwise than what holds.
    against: u32,
}

impl Upkeep {
    /// Looks after `upstreams`, as they are at any time, and tells `availability`. Who may vouch for servers of backends that
    /// name nobody is in the PEM file `roots`, or known to the system.
    #[must_use]
    pub fn new(
        upstreams: watch::Receiver<Arc<Upstreams>>,
        availability: Arc<Availability>,
        roots: Option<String>,
    ) -> Self {
        Self { upstreams, availability, roots }
    }

    /// Resolves every name of `upstreams` for the first time.
    pub async fn prepare(upstreams: &Upstreams, availability: &Availability) {
        for upstream in upstreams.all() {
            resolve(upstream).await;
            tell(upstream, availability);
        }
    }

    /// Looks after the servers until `stopping` turns true.
    pub async fn run_until(mut self, mut stopping: watch::Receiver<bool>) {
        let options = || ConnectorOptions { ca_file: self.roots.clone(), ..ConnectorOptions::new(1) };
        let http: Arc<Connector> = Arc::new(Connector::new(Some(options())));
        let transport = Arc::new(TransportConnector::new(Some(options())));
        let mut each = JoinSet::new();
        let mut kept: Vec<(Arc<Upstream>, AbortHandle)> = Vec::new();
        loop {
            let upstreams = Arc::clone(&self.upstreams.borrow_and_update());
            kept.retain(|(upstream, keeper)| {
                let stays = upstreams.all().any(|other| Arc::ptr_eq(other, upstream));
                if !stays {
                    keeper.abort();
                    upstream.retire();
                }
                stays
            });
            for upstream in upstreams.all() {
                if kept.iter().any(|(other, _)| Arc::ptr_eq(other, upstream)) {
                    continue;
                }
                let keeper = Keeper {
                    upstream: Arc::clone(upstream),
                    availability: Arc::clone(&self.availability),
                    http: Arc::clone(&http),
                    transport: Arc::clone(&transport),
                };
                kept.push((Arc::clone(upstream), each.spawn(keeper.run_until(stopping.clone()))));
            }
            self.availability.keep_only(|name| upstreams.by_name.contains_key(name));
            tokio::select! {
                // Whoever could change them may be gone before the stop.
                Ok(()) = self.upstreams.changed() => {}
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        while each.join_next().await.is_some() {}
    }
}

/// What it is time for.
enum Due {
    Check,
    Lookup,
    Tell,
}

/// Looks after the servers of one backend.
struct Keeper {
    upstream: Arc<Upstream>,
    availability: Arc<Availability>,
    http: Arc<Connector>,
    transport: Arc<TransportConnector>,
}

impl Keeper {
    async fn run_until(self, mut stopping: watch::Receiver<bool>) {
        let config = &self.upstream.config;
        let every = |period: Duration| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut checks = every(config.health_check.as_ref().map_or(TELL, |check| check.interval));
        let mut lookups = every(config.resolve);
        let mut tellings = every(TELL);
        let mut records: Vec<Record> = Vec::new();
        loop {
            let due = tokio::select! {
                _ = checks.tick(), if config.health_check.is_some() => Due::Check,
                _ = lookups.tick() => Due::Lookup,
                _ = tellings.tick() => Due::Tell,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            match due {
                Due::Check => self.check(&mut records).await,
                Due::Lookup => resolve(&self.upstream).await,
                Due::Tell => self.upstream.prune(clock::now()),
            }
            tell(&self.upstream, &self.availability);
        }
    }

    /// Checks every endpoint once, all at the same time.
    async fn check(&self, records: &mut Vec<Record>) {
        let Some(check) = &self.upstream.config.health_check else { return };
        let endpoints = self.upstream.endpoints.load_full();
        records.retain(|record| endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, &record.endpoint)));
        for endpoint in endpoints.iter() {
            if !records.iter().any(|record| Arc::ptr_eq(endpoint, &record.endpoint)) {
                records.push(Record { endpoint: Arc::clone(endpoint), checked: false, against: 0 });
            }
        }
        let mut asked = JoinSet::new();
        for (place, record) in records.iter().enumerate() {
            let (endpoint, check) = (Arc::clone(&record.endpoint), check.clone());
            let (http, transport) = (Arc::clone(&self.http), Arc::clone(&self.transport));
            asked.spawn(async move {
                let asked = ask(&endpoint, check.path.as_deref(), check.timeout, &http, &transport);
                let answer = timeout(check.timeout, asked).await;
                (place, answer.unwrap_or_else(|_| Err(Error::new_up(ErrorType::ReadTimedout))))
            });
        }
        while let Some(answered) = asked.join_next().await {
            if let Ok((place, answer)) = answered
                && let Some(record) = records.get_mut(place)
            {
                self.take_in(record, &answer, check);
            }
        }
    }

    fn take_in(&self, record: &mut Record, answer: &Result<(), Box<Error>>, check: &HealthCheck) {
        let endpoint = &record.endpoint;
        if endpoint.is_healthy() == answer.is_ok() {
            record.against = 0;
        } else {
            record.against += 1;
            let needed = if answer.is_ok() { check.healthy_after } else { check.unhealthy_after };
            if record.against >= needed || !record.checked {
                record.against = 0;
                endpoint.set_healthy(answer.is_ok());
                let (backend, server) = (self.upstream.name(), endpoint.name());
                match answer {
                    Ok(()) => info!(backend, server, "the server is well again"),
                    Err(error) => warn!(backend, server, %error, "the server fails its health check"),
                }
            }
        }
        record.checked = true;
    }
}

/// Asks one server whether it is well.
async fn ask(
    endpoint: &Endpoint,
    path: Option<&str>,
    time: Duration,
    http: &Connector,
    transport: &TransportConnector,
) -> Result<(), Box<Error>> {
    let mut peer = endpoint.peer().clone();
    peer.options.connection_timeout = Some(time);
    peer.options.total_connection_timeout = Some(time);
    let Some(path) = path else {
        return transport.new_stream(&peer).await.map(drop);
    };
    let (mut session, _) = http.get_http_session(&peer).await?;
    session.set_read_timeout(Some(time));
    session.set_write_timeout(Some(time));
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(2))?;
    let host = if peer.sni.is_empty() { endpoint.host() } else { &peer.sni };
    request.insert_header("host", host)?;
    request.insert_header("user-agent", "tidegate-health-check")?;
    session.write_request_header(Box::new(request)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map_or(0, |header| header.status.as_u16());
    // Dropped and not kept: what counts is that a new connection is taken.
    session.shutdown().await;
    if (200..400).contains(&status) { Ok(()) } else { Err(Error::new_up(ErrorType::HTTPStatus(status))) }
}

/// Looks the names of a backend's servers up. What cannot be resolved keeps the addresses that it had.
async fn resolve(upstream: &Upstream) {
    let now = clock::now();
    let current = upstream.endpoints.load_full();
    let mut endpoints = Vec::new();
    for server in &upstream.config.servers {
        let ServerPlace::Name(name, port) = &server.place else {
            endpoints.extend(current.iter().filter(|endpoint| endpoint.name() == server.text).cloned());
            continue;
        };
        let of_this = format!("{} (", server.text);
        let looked_up = timeout(LOOKUP_TIMEOUT, lookup_host((name.as_str(), *port))).await;
        let addresses: BTreeSet<SocketAddr> = match looked_up {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                warn!(backend = upstream.name(), server = %server, %error, "the server's name cannot be resolved");
                BTreeSet::new()
            }
            Err(_) => {
                warn!(backend = upstream.name(), server = %server, "the server's name takes too long to resolve");
                BTreeSet::new()
            }
        };
        if addresses.is_empty() {
            endpoints.extend(current.iter().filter(|endpoint| endpoint.name().starts_with(&of_this)).cloned());
        }
        for address in addresses {
            let full_name = format!("{of_this}{address})");
            let known = current.iter().find(|endpoint| endpoint.name() == full_name).cloned();
            let peer_address = PeerAddress::Inet(address);
            endpoints.push(known.unwrap_or_else(|| Arc::new(upstream.endpoint(server, peer_address, full_name, now))));
        }
    }
    let same = endpoints.len() == current.len()
        && endpoints.iter().zip(current.iter()).all(|(new, old)| Arc::ptr_eq(new, old));
    if !same {
        let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.name()).collect();
        info!(backend = upstream.name(), addresses = addresses.join(", "), "the backend's addresses changed");
        upstream.endpoints.store(Arc::new(endpoints));
    }
}

/// Tells how the servers of a backend are.
fn tell(upstream: &Upstream, availability: &Availability) {
    let now = clock::now();
    let endpoints = upstream.endpoints.load();
    let usable = endpoints.iter().any(|endpoint| endpoint.is_healthy());
    // Relaxed: see `Upstream::is_available`.
    if upstream.available.swap(usable, Ordering::Relaxed) != usable {
        let backend = upstream.name();
        if usable {
            info!(backend, "the backend is available again");
        } else {
            warn!(backend, "no server of the backend can be used; as a canary it gets no requests");
        }
    }
    let servers = endpoints.iter().map(|endpoint| ServerCondition {
        name: endpoint.name().to_owned(),
        healthy: endpoint.is_healthy(),
        ejected: endpoint.is_ejected(now),
    });
    let condition = Condition {
        unavailable_since: None,
        servers: servers.collect(),
        // Relaxed: counts.
        retries: upstream.retries.load(Ordering::Relaxed),
        ejections: upstream.ejections.load(Ordering::Relaxed),
    };
    availability.note(&upstream.config.name, usable, condition, now);
}
