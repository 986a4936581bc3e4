//! Evidence that does not know how bad the canary is, nor since when: a mixture over both.
//!
//! Over *how bad*, the [`alternatives`] have fixed weights. Over *since when*, each of them bets most of its stake from
//! the start and keeps the rest for later starts. The reserve is spent by the number of failures that tell one start from
//! another, not by time, so that a long healthy past costs about `1.2 ln(1 + failures)` nats of evidence (after the
//! mixtures over change points of Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
//! detection"; that the logarithm cannot be saved is Lorden, "Procedures for reacting to a change in distribution", 1971).

use crate::judge::Counts;
use crate::judge::numeric::{log_add, with_odds};

/// How many ways of being worse are bet on.
pub const ALTERNATIVES: usize = 7;

/// The odds ratio over the allowed rate from which on a regression matters. Smaller ones are bet on too, and take long.
pub(crate) const SMALLEST_REGRESSION: f64 = 1.8;

/// The share of the whole stake on each alternative: more on small regressions, which take longest to see. A plain disaster
/// is over in a handful of requests whatever its weight is.
const WEIGHTS: [f64; ALTERNATIVES] = [0.14, 0.22, 0.21, 0.16, 0.12, 0.08, 0.07];

/// The weight of the alternatives that see the smallest regression that matters.
const WEIGHT_OF_SMALLEST: f64 = 0.22;

/// The share of each alternative's stake that is on a canary that is bad from the start, as most bad ones are.
const FROM_THE_START: f64 = 0.7;

/// How slowly the reserve for later starts is spent: it shrinks as `(1 + spent)^-THRIFT`.
const THRIFT: f64 = 0.2;

/// No alternative is above this, so that a single success is no proof of health.
const HIGHEST: f64 = 0.95;

/// Every alternative is at least this odds ratio above the allowed rate.
const LEAST_ODDS: f64 = 1.3;

/// With an allowed rate above this there is nothing left that could be worse.
pub(crate) const HIGHEST_ALLOWED: f64 = 0.97;

/// The rates bet on when `allowed` is the highest allowed one: five odds ratios over it and two plain rates.
///
/// `allowed` must lie between 0 and 1, neither included. Each alternative is above it.
pub(crate) fn alternatives(allowed: f64) -> [f64; ALTERNATIVES] {
    let over = |ratio| with_odds(allowed, ratio).min(HIGHEST);
    let least = with_odds(allowed, LEAST_ODDS);
    [over(1.4), over(2.2), over(4.0), over(10.0), over(40.0), 0.25, 0.85].map(|rate| rate.max(least))
}

/// What the mixture would need, beyond the limit, to see the smallest regression that was there from the start, in nats:
/// the price of not having known it.
pub(crate) fn price_of_not_knowing() -> f64 {
    -(WEIGHT_OF_SMALLEST * FROM_THE_START).ln()
}

/// One alternative's stake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stake {
    /// The logarithm of what has been bet and won so far, over all starts; never minus infinity.
    pub log_wealth: f64,
    /// What has been spent of the reserve: canary requests times the alternative's distance from the allowed rate, 0 or more.
    pub spent: f64,
    /// The most that one fixed failure of the canary may have been worth to it on average, in nats: the logarithm of the
    /// alternative's odds ratio over the allowed rate; 0 while nothing has failed.
    pub dearest: f64,
}

impl Stake {
    /// Before the first outcome.
    pub const START: Self = Self { log_wealth: LOG_FROM_THE_START, spent: 0.0, dearest: 0.0 };

    /// Bets on one more block of `requests` canary requests whose alternative is `distance` above the allowed rate, and
    /// whose factor, the likelihood ratio, is `exp(log_factor)`.
    fn bet(&mut self, requests: f64, distance: f64, log_factor: f64) {
        let before = self.log_reserve();
        let spent = requests * distance.max(0.0);
        // R(u) - R(u') as a share of R(u), exact also where it is tiny.
        let share = -(-THRIFT * (spent / (1.0 + self.spent)).ln_1p()).exp_m1();
        self.log_wealth = log_add(self.log_wealth, before + share.ln()) + log_factor;
        self.spent += spent;
    }

    /// `ln R(u)`: what is left for starts to come.
    fn log_reserve(&self) -> f64 {
        LOG_RESERVE - THRIFT * self.spent.ln_1p()
    }

    /// What it would be worth at most had any `aside` failures not happened.
    fn log_total(&self, aside: f64) -> f64 {
        log_add(self.log_wealth - aside * self.dearest, self.log_reserve())
    }
}

/// The logarithm of [`FROM_THE_START`].
const LOG_FROM_THE_START: f64 = -0.356_674_943_938_732_45;

/// The logarithm of `1 - FROM_THE_START`.
const LOG_RESERVE: f64 = -1.203_972_804_325_936;

/// The stakes on all alternatives. What they are worth together starts at 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mixture {
    stakes: [Stake; ALTERNATIVES],
    aside: f64,
    /// Kept, since it is asked for more often than it changes.
    log_evidence: f64,
}

impl Mixture {
    /// A mixture whose evidence is to hold without any `aside` failures of the canary.
    ///
    /// They are taken off every stake at the highest price that one ever had. If one request of the canary in a block fails for
    /// certain, the block's factor is `p1/g A^(n_c - 1) B^n_s` on average, with A and B the means of one request to either arm;
    /// since `A^n_c B^n_s <= 1`, that is at most `(p1/g) / A`, and A is at least `(1 - p1) / (1 - g)`: the odds ratio, which is
    /// highest at the lowest g. So what is left is evidence although one user, behind no more than that many failures, would
    /// have failed on either arm.
    pub(crate) fn new(stakes: [Stake; ALTERNATIVES], aside: u64) -> Self {
        let mut mixture = Self { stakes, aside: aside as f64, log_evidence: 0.0 };
        mixture.weigh();
        mixture
    }

    pub(crate) fn stakes(&self) -> [Stake; ALTERNATIVES] {
        self.stakes
    }

    /// ln M.
    pub(crate) fn log_evidence(&self) -> f64 {
        self.log_evidence
    }

    /// Bets on one more block. `allowed` and `rates` were chosen before its outcomes were known; `log_factor` is each
    /// alternative's logarithm of a factor that is at most 1 on average while the canary is no worse than allowed.
    pub(crate) fn bet(
        &mut self,
        canary: Counts,
        allowed: f64,
        rates: [f64; ALTERNATIVES],
        log_factor: impl Fn(f64) -> f64,
    ) {
        for (stake, rate) in self.stakes.iter_mut().zip(rates) {
            stake.bet(canary.requests as f64, rate - allowed, log_factor(rate));
            if canary.failures > 0 {
                stake.dearest = stake.dearest.max((rate * (1.0 - allowed) / (allowed * (1.0 - rate))).ln());
            }
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        let aside = self.aside;
        let parts = self.stakes.iter().zip(WEIGHTS).map(|(stake, weight)| weight.ln() + stake.log_total(aside));
        self.log_evidence = parts.fold(f64::NEG_INFINITY, log_add);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn evidence_starts_at_one() {
        assert!(Mixture::new([Stake::START; ALTERNATIVES], 0).log_evidence().abs() < 1e-12);
        assert!((LOG_FROM_THE_START - FROM_THE_START.ln()).abs() < 1e-15);
        assert!((LOG_RESERVE - (1.0 - FROM_THE_START).ln()).abs() < 1e-15);
        assert!((WEIGHTS.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn every_alternative_is_above_what_is_allowed() {
        for allowed in [1e-9, 1e-4, 0.01, 0.2, 0.3, 0.7, 0.9, HIGHEST_ALLOWED] {
            assert!(alternatives(allowed).iter().all(|rate| *rate > allowed && *rate < 1.0), "{allowed}");
        }
    }

    proptest! {
        #[test]
        fn no_stake_is_made_or_lost_without_evidence(
            blocks in prop::collection::vec((0_u64..1_000_000, 1e-9_f64..0.98), 0..60),
        ) {
            // Factors of 1 leave the total what it was: what the reserve loses, the bets hold.
            let mut mixture = Mixture::new([Stake::START; ALTERNATIVES], 0);
            for (requests, distance) in blocks {
                mixture.bet(Counts { requests, failures: 0 }, 0.01, [0.01 + distance; ALTERNATIVES], |_| 0.0);
                prop_assert!(mixture.log_evidence().abs() < 1e-9, "{}", mixture.log_evidence());
            }
        }
    }
}
