//! Accepts connections, as many as there may be.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::downstream::connection::{Connection, Ends, Speaks};
use crate::downstream::refusal::Refusal;
use crate::downstream::tls::agreed;
use crate::downstream::turned_away::TurnedAway;
use crate::downstream::{Limits, Tls, proxy_header};

/// How long the gateway waits after the system refused it a connection, most likely for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// How many clients at a time are told that there is no room; others are only hung up on.
const TOLD: usize = 256;

/// Who sits where: counts connections, in all and by address. It is asked when a connection begins and ends, and by no
/// request.
#[derive(Debug)]
pub struct Seats {
    taken: Mutex<Taken>,
    /// Those who are told that there is no room: not many at a time, or they would take what they are not given.
    told: Arc<Semaphore>,
}

impl Default for Seats {
    fn default() -> Self {
        Self { taken: Mutex::default(), told: Arc::new(Semaphore::new(TOLD)) }
    }
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's seat, free again once it is dropped.
struct Seat {
    seats: Arc<Seats>,
    address: Option<IpAddr>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.all -= 1;
        if let Some(address) = self.address
            && let Some(count) = taken.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

impl Seats {
    /// How many connections there are.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.lock().all
    }

    /// A seat for a client at `address`; `None` for one who is counted in all only.
    fn take(self: &Arc<Self>, address: Option<IpAddr>, limits: &Limits) -> Result<Seat, Refusal> {
        let mut taken = self.taken.lock();
        if taken.all >= limits.connections {
            return Err(Refusal::Full);
        }
        if let Some(address) = address {
            let count = taken.by_address.entry(address).or_default();
            if *count >= limits.connections_per_address {
                return Err(Refusal::AddressFull);
            }
            *count += 1;
        }
        taken.all += 1;
        Ok(Seat { seats: Arc::clone(self), address })
    }
}

/// Who may come in, and how.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// What clients may take.
    pub limits: Arc<Limits>,
    /// Where they sit.
    pub seats: Arc<Seats>,
    /// Networks of proxies that speak for many clients: their addresses are not counted.
    pub trusted: Arc<[IpNet]>,
    /// Whether these proxies say first whom they speak for, by the PROXY protocol.
    pub proxy_protocol: bool,
    /// Who is told of those who do not come in.
    pub turned_away: TurnedAway,
    /// Whether the connections are encrypted.
    pub tls: Option<Arc<Tls>>,
}

impl Entrance {
    fn trusts(&self, peer: SocketAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&peer.ip()))
    }
}

/// What carries a client's connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send + Sync + 'static {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send + Sync + 'static> Transport for S {}

/// Who answers clients.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Serves a connection that has begun, until `stopping` turns true.
    fn serve<S: Transport>(
        &self,
        connection: Box<Connection<S>>,
        stopping: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;
}

/// Hands every connection that `listener` takes to `app`, until `closing` turns true.
///
/// Each is let in by the `entrance` of that moment, and goes on after the end until `stopping` turns true as well. Those that
/// wait for their next request are let go then.
pub(crate) async fn accept<A: Serve>(
    listener: TcpListener,
    app: Arc<A>,
    entrance: Arc<ArcSwap<Entrance>>,
    mut closing: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            // A sender that is gone stops nobody any more; then it is time, too.
            _ = closing.wait_for(|close| *close) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let entrance = entrance.load_full();
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let counted = (!entrance.trusts(peer)).then(|| household(peer.ip()));
                let seat = entrance.seats.take(counted, &entrance.limits);
                let telling = Arc::clone(&entrance.seats.told).try_acquire_owned();
                if seat.is_err() && telling.is_err() {
                    continue;
                }
                let telling = telling.ok().filter(|_| seat.is_err());
                let (app, entrance, stopping) = (Arc::clone(&app), Arc::clone(&entrance), stopping.clone());
                tokio::spawn(async move {
                    let _telling = telling;
                    if let Err(error) = welcome(socket, peer, app, entrance, seat, stopping).await {
                        debug!(%error, "a connection ended before it began");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "the system gives no connection; trying again");
                sleep(BREATH).await;
            }
        }
    }
}

/// Whom an address stands for: one network of IPv6 is one customer's (RFC 6177).
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Finds out who is there and which protocols they speak, then serves them.
async fn welcome<A: Serve>(
    mut socket: TcpStream,
    mut peer: SocketAddr,
    app: Arc<A>,
    entrance: Arc<Entrance>,
    mut seat: Result<Seat, Refusal>,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (fd, local) = (socket.as_raw_fd(), socket.local_addr()?);
    if entrance.proxy_protocol && entrance.trusts(peer) && seat.is_ok() {
        // Boxed, as all that only some connections need.
        let named = Box::pin(timeout(entrance.limits.header_timeout, proxy_header::read(&mut socket)));
        let named = tokio::select! {
            named = named => named,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        let named = named.map_err(io::Error::from).and_then(|named| named);
        if named.as_ref().is_err_and(is_worth_telling) {
            entrance.turned_away.tell(Some(peer.ip()), entrance.tls.is_some(), None, "proxy-header");
        }
        if let Some(client) = named? {
            peer = SocketAddr::new(client.ip().to_canonical(), client.port());
            let counted = (!entrance.trusts(peer)).then(|| household(peer.ip()));
            // In the place of the proxy's seat, which is counted in all only.
            drop(seat);
            seat = entrance.seats.take(counted, &entrance.limits);
        }
    }
    let limits = Arc::clone(&entrance.limits);
    let seat = match (seat, &entrance.tls) {
        (Ok(seat), _) => seat,
        (Err(refusal), Some(_)) => {
            // Whoever waits for a handshake understands nothing else.
            entrance.turned_away.tell(Some(peer.ip()), true, None, refusal.in_short().1);
            return Ok(());
        }
        (Err(refusal), None) => {
            let turned_away = entrance.turned_away.clone();
            let ends = Ends { fd, peer, local, tls: None, speaks: Speaks::Either, turned_away };
            Connection::new(socket, ends, limits, None).refuse(refusal).await;
            return Ok(());
        }
    };
    let turned_away = entrance.turned_away.clone();
    match &entrance.tls {
        None => {
            let ends = Ends { fd, peer, local, tls: None, speaks: Speaks::Either, turned_away };
            serve(Connection::new(socket, ends, limits, Some(Box::new(seat))), app, stopping).await;
        }
        Some(tls) => {
            let shaken = tokio::select! {
                shaken = Box::pin(tls.shake_hands(socket)) => shaken,
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            };
            if shaken.as_ref().is_err_and(is_worth_telling) {
                turned_away.tell(Some(peer.ip()), true, None, "tls-handshake");
            }
            let shaken = shaken?;
            let (digest, speaks) = agreed(&shaken);
            let ends = Ends { fd, peer, local, tls: Some(digest), speaks, turned_away };
            let connection = Connection::new(shaken, ends, limits, Some(Box::new(seat)));
            Box::pin(serve(connection, app, stopping)).await;
        }
    }
    Ok(())
}

/// Whoever only looks whether somebody listens, as load balancers do every second, is not turned away.
fn is_worth_telling(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

async fn serve<A: Serve, S: Transport>(
    mut connection: Connection<S>,
    app: Arc<A>,
    mut stopping: watch::Receiver<bool>,
) {
    let begun = tokio::select! {
        // Who has asked is answered.
        biased;
        begun = connection.begins() => begun,
        _ = stopping.wait_for(|stop| *stop) => false,
    };
    if begun {
        app.serve(Box::new(connection), stopping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_of_ipv6_is_one() {
        assert_eq!(household("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(household("192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
