//! What latencies have been like lately.

use std::time::Duration;

use crate::outcome::latency::{LATENCY_BUCKETS, LatencyHistogram, latency_bucket_limit_us};

/// How many requests are remembered: enough to know a 99th percentile, and few enough to forget yesterday's.
const REACH: f64 = 1e4;

/// How many requests above a quantile it takes to believe in it: with fewer it may be anywhere.
const ENOUGH_ABOVE: f64 = 5.0;

/// And how many in all, so that a median is more than a guess.
const ENOUGH: f64 = 20.0;

/// A histogram that fades: each request counts for less the more have come after it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecentLatencies {
    counts: Vec<f64>,
    /// What had been counted when it was last looked at.
    seen: LatencyHistogram,
}

impl Default for RecentLatencies {
    fn default() -> Self {
        Self { counts: vec![0.0; LATENCY_BUCKETS], seen: LatencyHistogram::default() }
    }
}

impl RecentLatencies {
    /// Takes in a histogram that only ever grows, as it is now.
    pub fn learn(&mut self, total: LatencyHistogram) {
        let new = total.count().saturating_sub(self.seen.count()) as f64;
        if new > 0.0 {
            let (kept, weight) = ((-new / REACH).exp(), if new > REACH { REACH / new } else { 1.0 });
            for (bucket, count) in self.counts.iter_mut().enumerate() {
                let added = total.bucket(bucket).saturating_sub(self.seen.bucket(bucket));
                *count = *count * kept + added as f64 * weight;
            }
        }
        self.seen = total;
    }

    /// Says that what it learns from next begins at nothing again.
    pub fn begin_anew(&mut self) {
        self.seen = LatencyHistogram::default();
    }

    /// The duration that the share `q` of recent requests, 0 to 1, does not exceed, as the upper limit of a bucket;
    /// nothing if there are too few to tell.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total: f64 = self.counts.iter().sum();
        if total < ENOUGH || total * (1.0 - q) < ENOUGH_ABOVE {
            return None;
        }
        let mut below = 0.0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= q * total
        });
        bucket.map(|bucket| Duration::from_micros(latency_bucket_limit_us(bucket)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::latency::latency_bucket;

    /// A histogram of this many requests at each of these milliseconds.
    fn histogram(requests: u64, millis: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut counts = vec![0; LATENCY_BUCKETS];
        millis.into_iter().for_each(|millis| counts[latency_bucket(Duration::from_millis(millis))] += requests);
        LatencyHistogram::new(counts, 0)
    }

    fn millis(recent: &RecentLatencies, q: f64) -> Option<u128> {
        recent.quantile(q).map(|latency| latency.as_millis())
    }

    #[test]
    fn a_quantile_takes_enough_requests_to_tell() {
        let mut recent = RecentLatencies::default();
        recent.learn(histogram(1, 1..=19));
        assert_eq!(recent.quantile(0.5), None);
        recent.learn(histogram(1, 1..=99));
        assert_eq!((millis(&recent, 0.5), millis(&recent, 0.9), millis(&recent, 0.99)), (Some(51), Some(91), None));
        recent.learn(histogram(6, 1..=99));
        assert_eq!(millis(&recent, 0.99), Some(100));
    }

    #[test]
    fn old_requests_fade() {
        let mut recent = RecentLatencies::default();
        recent.learn(histogram(100, 1..=99));
        recent.begin_anew();
        let mut total = LatencyHistogram::default();
        for _ in 0..40 {
            total.add(&histogram(1000, [400]));
            recent.learn(total.clone());
        }
        assert_eq!(millis(&recent, 0.5), Some(410));
        let before = recent.clone();
        recent.learn(total);
        assert_eq!(recent, before, "nothing new changes nothing");
        recent.begin_anew();
        recent.learn(histogram(u64::from(u32::MAX), [7]));
        assert_eq!(millis(&recent, 0.99), Some(7), "7.1 ms");
    }
}
