//! What stable's rate is about to be, guessed from what came before.
//!
//! The guess steers what is bet on. A wrong one costs time, never validity: it is made before the outcomes it is used on.

use crate::judge::Counts;
use crate::judge::numeric::divergence;

/// How many stable requests the slow memory reaches back: enough to know a rate of 0.1 % to a fifteenth of itself.
const SLOW: f64 = 2e5;

/// How many the fast memory reaches back, for changes too small to show in a block.
const FAST: f64 = 2e3;

/// How many nats of evidence against the slow memory make it give way. About one false alarm in 3,000 looks, and those cost
/// a little precision only.
const SURPRISE: f64 = 8.0;

/// The fast memory is not believed with fewer requests.
const FEWEST_FAST: f64 = 200.0;

/// A block is not believed with fewer.
const FEWEST_BLOCK: f64 = 20.0;

/// What is believed before anything is known: one failure in a hundred, with the weight of twenty requests.
const PRIOR_FAILURES: f64 = 0.2;
const PRIOR_REQUESTS: f64 = 20.0;

/// Requests and failures, fading.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Memory {
    /// Requests, 0 or more.
    pub requests: f64,
    /// Failures, from 0 to `requests`.
    pub failures: f64,
}

impl Memory {
    /// The counts, as if they had been remembered with a `reach` of that many requests.
    fn of(counts: Counts, reach: f64) -> Self {
        let requests = counts.requests as f64;
        let kept = if requests > reach { reach / requests } else { 1.0 };
        Self { requests: requests * kept, failures: counts.failures.min(counts.requests) as f64 * kept }
    }

    fn learn(&mut self, counts: Counts, reach: f64) {
        let kept = (-(counts.requests as f64) / reach).exp();
        let new = Self::of(counts, reach);
        self.requests = self.requests * kept + new.requests;
        self.failures = self.failures * kept + new.failures;
    }

    /// The rate with the prior, above 0 and below 1.
    fn rate(self) -> f64 {
        (self.failures + PRIOR_FAILURES) / (self.requests + PRIOR_REQUESTS)
    }
}

/// The two memories of one stream's stable arm.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Baseline {
    /// What is believed.
    pub(crate) slow: Memory,
    /// What is compared with it.
    pub(crate) fast: Memory,
}

impl Baseline {
    /// Begins with what stable did before the canary came.
    pub(crate) fn new(history: Counts) -> Self {
        Self { slow: Memory::of(history, SLOW), fast: Memory::of(history, FAST) }
    }

    /// The guess.
    pub(crate) fn rate(&self) -> f64 {
        self.slow.rate()
    }

    /// Takes a block's stable outcomes into account, for the blocks after it.
    pub(crate) fn learn(&mut self, stable: Counts) {
        if stable.requests == 0 {
            return;
        }
        let requests = stable.requests as f64;
        let surprise = requests * divergence(stable.error_rate().as_share().min(1.0), self.rate());
        if requests >= FEWEST_BLOCK && surprise > SURPRISE {
            *self = Self::new(stable);
            return;
        }
        self.slow.learn(stable, SLOW);
        self.fast.learn(stable, FAST);
        let Memory { requests, failures } = self.fast;
        if requests > FEWEST_FAST && requests * divergence(failures / requests, self.rate()) > SURPRISE {
            self.slow = self.fast;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(history: (u64, u64), blocks: usize, block: (u64, u64), from: f64, to: f64) {
        let counts = |(requests, failures)| Counts { requests, failures };
        let mut baseline = Baseline::new(counts(history));
        (0..blocks).for_each(|_| baseline.learn(counts(block)));
        assert!((from..to).contains(&baseline.rate()), "{}", baseline.rate());
    }

    #[test]
    fn the_guess_follows_what_happens() {
        check((0, 0), 0, (0, 0), 0.009, 0.011);
        check((20_000, 21), 0, (0, 0), 0.001, 0.0011);
        check((u64::MAX, u64::MAX / 1000), 0, (0, 0), 0.000_9, 0.001_1);
        check((20_000, 21), 1, (100, 50), 0.3, 0.5);
        check((20_000, 21), 2000, (10, 5), 0.4, 0.6);
        check((20_000, 10_000), 400, (10, 0), 0.0, 0.1);
        check((20_000, 200), 1000, (100, 1), 0.009_9, 0.010_1);
    }
}
