//! How many requests one asker may make: a bucket of them for each token or address, in a bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::access::RateLimit;
use crate::admin::attempts::network;

/// The most askers that are remembered. Of more, whoever asked longest ago is forgotten first.
const MAX_ASKERS: usize = 1024;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// Whoever has proved it, by name.
    Known(String),
    /// The network of somebody who has not, or does not have to.
    At(IpAddr),
}

impl Asker {
    /// Somebody at `address`.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::At(network(address))
    }
}

/// What each asker may still ask.
#[derive(Debug, Default)]
pub struct Rates {
    limit: ArcSwap<RateLimit>,
    buckets: Mutex<HashMap<Asker, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    last: Instant,
}

impl Rates {
    /// Has `limit` hold from now on.
    pub fn set(&self, limit: RateLimit) {
        self.limit.store(limit.into());
    }

    /// Takes a request of `asker`, or says how long to wait for the next.
    pub(crate) fn take(&self, asker: Asker, now: Instant) -> Result<(), Duration> {
        let RateLimit { per_second, burst } = **self.limit.load();
        let (rate, full) = (f64::from(per_second), f64::from(burst));
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_ASKERS && !buckets.contains_key(&asker) {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.last).map(|(asker, _)| asker.clone());
            oldest.map(|oldest| buckets.remove(&oldest));
        }
        let bucket = buckets.entry(asker).or_insert(Bucket { left: full, last: now });
        let since = now.saturating_duration_since(bucket.last).as_secs_f64();
        bucket.left = (bucket.left + since * rate).min(full);
        bucket.last = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn rates(per_second: u32, burst: u32) -> Rates {
        let rates = Rates::default();
        rates.set(RateLimit { per_second, burst });
        rates
    }

    #[test]
    fn a_bucket_fills_with_time() {
        let (rates, start, half) = (rates(2, 4), clock::now(), Duration::from_millis(500));
        let ann = || Asker::Known("ann".to_owned());
        for _ in 0..4 {
            assert_eq!(rates.take(ann(), start), Ok(()));
        }
        assert_eq!(rates.take(ann(), start), Err(half));
        assert_eq!(rates.take(Asker::at([127, 0, 0, 1].into()), start), Ok(()), "everybody has one of their own");
        assert_eq!(rates.take(ann(), start + half), Ok(()));
        assert!(rates.take(ann(), start + half).is_err());
        rates.set(RateLimit { per_second: 2, burst: 1 });
        assert_eq!(rates.take(ann(), start + 20 * half), Ok(()));
        assert!(rates.take(ann(), start + 20 * half).is_err(), "another limit holds at once");
    }

    #[test]
    fn memory_is_bounded() {
        let (rates, start) = (rates(1, 1), clock::now());
        for number in 0..3000_u32 {
            let now = start + Duration::from_millis(number.into());
            assert_eq!(rates.take(Asker::at(number.to_be_bytes().into()), now), Ok(()));
        }
        assert_eq!(rates.buckets.lock().len(), MAX_ASKERS);
    }
}
