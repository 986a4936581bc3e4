//! The test of the canary alone against a rate that it may never exceed, whatever stable does.
//!
//! Allowed is any history of rates that stays at or below the limit. A true 4 % under a limit of 5 % can look like 10 %
//! for a minute; this test trips on it with a probability of at most alpha, ever, since each bet is a plain likelihood ratio
//! against the limit itself (Wald, "Sequential Tests of Statistical Hypotheses", 1945), mixed as the relative test's are.

use crate::judge::Counts;
use crate::judge::mixture::{ALTERNATIVES, HIGHEST_ALLOWED, Mixture, Stake, alternatives};
use crate::judge::stream::likelihood_ratio;

/// A limit below this is taken for this: a rate of 0 cannot be told from it, and would make one failure a proof.
const LOWEST: f64 = 1e-6;

/// All that the test remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitState {
    /// The bets.
    pub stakes: [Stake; ALTERNATIVES],
    /// The canary's outcomes so far.
    pub canary: Counts,
}

/// The test.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LimitTest {
    limit: f64,
    mixture: Mixture,
    canary: Counts,
}

impl LimitTest {
    /// A test against `limit`, a share, that has seen nothing and is to hold without any `aside` failures.
    pub(crate) fn new(limit: f64, aside: u64) -> Self {
        Self::resume(limit, aside, LimitState { stakes: [Stake::START; ALTERNATIVES], canary: Counts::default() })
    }

    /// The test that was in this state.
    pub(crate) fn resume(limit: f64, aside: u64, state: LimitState) -> Self {
        Self { limit: limit.max(LOWEST), mixture: Mixture::new(state.stakes, aside), canary: state.canary }
    }

    pub(crate) fn state(&self) -> LimitState {
        LimitState { stakes: self.mixture.stakes(), canary: self.canary }
    }

    pub(crate) fn log_evidence(&self) -> f64 {
        self.mixture.log_evidence()
    }

    /// The limit, a share.
    pub(crate) fn limit(&self) -> f64 {
        self.limit
    }

    pub(crate) fn canary(&self) -> Counts {
        self.canary
    }

    /// Bets on what is new. A limit that nothing can exceed is never tripped.
    pub(crate) fn observe(&mut self, canary: Counts) {
        let canary = canary.sound();
        self.canary = self.canary.plus(canary);
        if canary.requests > 0 && self.limit <= HIGHEST_ALLOWED {
            let limit = self.limit;
            self.mixture.bet(canary, limit, alternatives(limit), |p1| likelihood_ratio(canary, p1, limit));
        }
    }
}
