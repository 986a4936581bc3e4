//! Latencies in buckets of two significant decimal digits.
//!
//! The buckets are decimal so that the limits people write (2.5 ms, 1 s) are bucket limits exactly: a histogram of
//! ours can be exported under such limits without guessing. The relative error of a quantile is at most 10 %.

use std::time::Duration;

/// Decades of microseconds with two significant digits: 10 µs up to 1,000 s.
const DECADES: usize = 8;
/// Buckets of one decade: its numbers 10 to 99.
const PER_DECADE: usize = 90;
/// Buckets below 10 µs, one a microsecond.
const SMALL: usize = 10;

/// How many buckets there are. The last one also takes everything that is longer.
pub const LATENCY_BUCKETS: usize = SMALL + DECADES * PER_DECADE;

/// The bucket that `duration` falls into, below [`LATENCY_BUCKETS`].
#[must_use]
pub fn latency_bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let Some(decade) = micros.checked_ilog10().and_then(|digits| digits.checked_sub(1)) else {
        return usize::try_from(micros).unwrap_or(0);
    };
    let lead = usize::try_from(micros / 10_u64.pow(decade)).unwrap_or(0);
    let decade = usize::try_from(decade).unwrap_or(DECADES);
    (decade * PER_DECADE + lead).min(LATENCY_BUCKETS - 1)
}

/// The lowest duration, in microseconds, that is above everything in `bucket`.
#[must_use]
pub fn latency_bucket_limit_us(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(SMALL) else { return bucket as u64 + 1 };
    let (decade, lead) = (above / PER_DECADE, above % PER_DECADE + SMALL);
    (lead as u64 + 1) * 10_u64.pow(u32::try_from(decade).unwrap_or(0))
}

/// How many durations fell into each bucket, and their sum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatencyHistogram {
    /// Count by bucket; empty stands for all zero.
    counts: Vec<u64>,
    /// The sum of all durations, in microseconds.
    sum_us: u64,
}

impl LatencyHistogram {
    /// A histogram with these counts by bucket and this sum.
    #[must_use]
    pub fn new(counts: Vec<u64>, sum_us: u64) -> Self {
        Self { counts, sum_us }
    }

    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many fell into `bucket`.
    #[must_use]
    pub fn bucket(&self, bucket: usize) -> u64 {
        self.counts.get(bucket).copied().unwrap_or(0)
    }

    /// The sum of all durations, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many durations are below `limit`, which should be a bucket's limit; of a bucket it cuts, none count.
    #[must_use]
    pub fn below(&self, limit: Duration) -> u64 {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        self.counts
            .iter()
            .enumerate()
            .take_while(|(bucket, _)| latency_bucket_limit_us(*bucket) <= limit)
            .map(|(_, count)| count)
            .sum()
    }

    /// The duration that the share `q` of all durations, 0 to 1, does not exceed: the limit of its bucket, so at most
    /// 10 % too high. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in 0 to the total")]
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(latency_bucket_limit_us(bucket)));
            }
        }
        None
    }

    /// Adds `other` to this histogram.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_us += other.sum_us;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_lies_in_its_bucket(micros in 0_u64..1_000_000_000) {
            let bucket = latency_bucket(Duration::from_micros(micros));
            prop_assert!(bucket < LATENCY_BUCKETS);
            prop_assert!(micros < latency_bucket_limit_us(bucket));
            let lowest = bucket.checked_sub(1).map_or(0, latency_bucket_limit_us);
            prop_assert!(lowest <= micros, "{micros} µs in bucket {bucket}, which begins at {lowest}");
            prop_assert!(micros < 10 || latency_bucket_limit_us(bucket) as f64 <= 1.1 * micros as f64 + 1.0);
        }
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        assert_eq!(latency_bucket(Duration::from_secs(1_000_000)), LATENCY_BUCKETS - 1);
        assert_eq!(latency_bucket(Duration::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_limits() {
        let mut counts = vec![0; LATENCY_BUCKETS];
        for millis in 1..=100 {
            counts[latency_bucket(Duration::from_millis(millis))] += 1;
        }
        let histogram = LatencyHistogram::new(counts, 5_050_000);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_millis(51)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_millis(100)));
        assert_eq!(histogram.below(Duration::from_millis(25)), 24);
        assert_eq!(LatencyHistogram::default().quantile(0.5), None);
    }
}
