//! Accepts connections, as many as there may be.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::downstream::Limits;
use crate::downstream::connection::{Connection, Ends};
use crate::downstream::refusal::Refusal;

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

/// Hands every connection that `listener` takes to `app`, until `stopping` turns true.
///
/// Then those that wait for their next request are let go. `exempt` are the networks whose addresses speak for many
/// clients.
pub async fn accept<A: ServerApp + Send + Sync + 'static>(
    listener: TcpListener,
    app: Arc<A>,
    limits: Arc<Limits>,
    seats: Arc<Seats>,
    exempt: Arc<[IpNet]>,
    stopping: watch::Receiver<bool>,
) {
    let mut stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            // A sender that is gone stops nobody any more; then it is time, too.
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let counted = Some(peer.ip()).filter(|ip| !exempt.iter().any(|network| network.contains(ip)));
                let seat = seats.take(counted.map(household), &limits);
                let telling = Arc::clone(&seats.told).try_acquire_owned();
                if seat.is_err() && telling.is_err() {
                    continue;
                }
                let telling = telling.ok().filter(|_| seat.is_err());
                let (app, limits, stopping) = (Arc::clone(&app), Arc::clone(&limits), stopping.clone());
                tokio::spawn(async move {
                    let _telling = telling;
                    if let Err(error) = serve(socket, peer, app, limits, seat, stopping).await {
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
    drop(listener);
    app.cleanup().await;
}

/// Whom an address stands for: one network of IPv6 is one customer's (RFC 6177).
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

async fn serve<A: ServerApp + Send + Sync + 'static>(
    socket: TcpStream,
    peer: SocketAddr,
    app: Arc<A>,
    limits: Arc<Limits>,
    seat: Result<Seat, Refusal>,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let ends = Ends { fd: socket.as_raw_fd(), peer, local: socket.local_addr()?, tls: None, http2: false };
    let seat = match seat {
        Ok(seat) => seat,
        Err(refusal) => {
            Connection::new(socket, ends, limits, None).refuse(refusal).await;
            return Ok(());
        }
    };
    let mut connection = Connection::new(socket, ends, limits, Some(Box::new(seat)));
    let begun = tokio::select! {
        begun = connection.begins() => begun,
        _ = stopping.wait_for(|stop| *stop) => false,
    };
    if begun {
        // What is left of the connection is for pingora to reuse, and it does so within.
        drop(app.process_new(Box::new(connection), &stopping).await);
    }
    Ok(())
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
