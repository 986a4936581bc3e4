//! The side of the clients: accepts their connections, holds them to limits, and lets through only HTTP that means one
//! thing to every reader.

mod accept;
mod chunks;
mod connection;
mod head;
mod patience;
mod proxy_header;
mod refusal;
mod tls;
mod turned_away;

use std::time::Duration;

pub use crate::downstream::accept::{Entrance, Seats};
pub use crate::downstream::head::HeadLimits;
pub use crate::downstream::refusal::Refusal;
pub use crate::downstream::tls::{CertificateFiles, ClientCertificates, Demand, Handshakes, Offer, Tls, TlsConfig};
pub use crate::downstream::turned_away::TurnedAway;

pub(crate) use crate::downstream::accept::{Serve, Transport, accept};
pub(crate) use crate::downstream::connection::{Connection, Next, OF_CONNECTION, WHOLE_BODY, Whole};
pub(crate) use crate::downstream::head::is_token;
pub(crate) use crate::downstream::patience::{Pace, Timer};

/// What clients may take of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address; of one /64 of IPv6. Trusted proxies are exempt: they speak for many.
    pub connections_per_address: usize,
    /// What a request's head may measure.
    pub head: HeadLimits,
    /// The longest body of a request, in bytes.
    pub body: u64,
    /// How long a connection may wait for its next request.
    pub idle: Duration,
    /// How long a head may take from its first byte to its last.
    pub header_timeout: Duration,
    /// How long a body may make the gateway wait; over this long, at least `min_rate` has to come.
    pub body_timeout: Duration,
    /// Bytes a second, of a body.
    pub min_rate: u64,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Streams of one HTTP/2 connection at a time.
    pub streams: u32,
    /// Requests under way on one route, unless the route says otherwise.
    pub in_flight: usize,
}
