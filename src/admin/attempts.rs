//! Slows those down who try tokens, by address, in a bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So many failed attempts in a row are looked at from one address.
const BURST: f64 = 10.0;

/// How soon another one is.
const REFILL: Duration = Duration::from_secs(2);

/// The most addresses that are remembered. Of more, those that failed longest ago are forgotten first.
const MAX_ADDRESSES: usize = 1024;

/// Failed attempts of late.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<IpAddr, Failures>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    /// How many there are, of which one is forgotten in each [`REFILL`].
    count: f64,
    last: Instant,
}

impl Failures {
    fn count_at(self, now: Instant) -> f64 {
        (self.count - now.saturating_duration_since(self.last).as_secs_f64() / REFILL.as_secs_f64()).max(0.0)
    }
}

impl Attempts {
    /// How long `client` has to wait before another attempt is looked at, if it has to.
    pub(crate) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let count = self.0.lock().get(&network(client))?.count_at(now);
        (count > BURST - 1.0).then(|| REFILL.mul_f64(count - (BURST - 1.0)))
    }

    /// Takes note of a failed attempt.
    pub(crate) fn failed(&self, client: IpAddr, now: Instant) {
        let mut failures = self.0.lock();
        let client = network(client);
        let count = failures.get(&client).map_or(0.0, |failures| failures.count_at(now));
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&client) {
            failures.retain(|_, failures| failures.count_at(now) > 0.0);
            let oldest = failures.iter().min_by_key(|(_, failures)| failures.last).map(|(client, _)| *client);
            if let Some(oldest) = oldest.filter(|_| failures.len() >= MAX_ADDRESSES) {
                failures.remove(&oldest);
            }
        }
        failures.insert(client, Failures { count: count + 1.0, last: now });
    }
}

/// Who owns one address of IPv6 owns all of its /64.
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn who_fails_often_waits() {
        let (attempts, start) = (Attempts::default(), clock::now());
        let client = "2001:db8::1".parse().unwrap();
        for _ in 0..10 {
            assert_eq!(attempts.wait(client, start), None);
            attempts.failed(client, start);
        }
        assert_eq!(attempts.wait("2001:db8::2".parse().unwrap(), start), Some(REFILL), "it is the same network");
        assert_eq!(attempts.wait("2001:db8:0:1::1".parse().unwrap(), start), None);
        assert_eq!(attempts.wait(client, start + REFILL), None);
        attempts.failed(client, start + REFILL);
        assert_eq!(attempts.wait(client, start + REFILL), Some(REFILL));
        assert_eq!(attempts.wait(client, start + REFILL * 20), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (attempts, start) = (Attempts::default(), clock::now());
        for number in 0..5000_u32 {
            attempts.failed(std::net::Ipv4Addr::from_bits(number).into(), start + Duration::from_millis(number.into()));
        }
        assert_eq!(attempts.0.lock().len(), MAX_ADDRESSES);
    }
}
