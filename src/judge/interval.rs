//! Rates with intervals that hold at all times at once, for people and for steps of a ramp.
//!
//! An ordinary confidence interval is wrong with its stated probability at *one* look. These are confidence sequences:
//! with the stated probability none of the intervals that anybody ever looks at is wrong. They are Robbins' mixtures, after
//! S. Howard and others, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (2021).
//!
//! For a fixed l, `exp(l S - sum of ln(1 - p_i + p_i e^l))` is a martingale that starts at 1, where S counts the failures of
//! requests with the rates `p_i`, each of which may depend on the past. The logarithm is concave in the rate, so with the
//! mean rate p in place of each `p_i` the expression can only become smaller. A mixture over l that is fixed beforehand
//! keeps all that. So what is covered is the mean of the rates that the requests really had, whatever they did.

use crate::judge::numeric::log_add;
use crate::judge::{Counts, Rate};

/// The steepest l. Steeper ones matter to rates beside 0 or 1 only.
const STEEPEST: f64 = 8.0;

/// Each further l is this many times as steep as the one before: the best of them is then never far from the best of all.
const STEP: f64 = 0.6;

/// How many there are: down to what is best for some ten million requests.
const STEPS: u32 = 22;

/// Halvings of an interval's end: to a millionth of a millionth.
const HALVINGS: u32 = 40;

/// A rate and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// How much higher rates of this interval are than those of `other`, at least and at most.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { low: self.low - other.high, high: self.high - other.low }
    }
}

/// The interval of the rate that is behind `counts`: with a probability of at least `1 - doubt` it holds the mean rate
/// of the requests so far at every moment, however often one looks.
#[must_use]
pub fn rate_interval(counts: Counts, doubt: Rate) -> Interval {
    let counts = counts.sound();
    if counts.requests == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    // Each end may be wrong with half of it.
    let limit = (2.0 / doubt.as_share()).ln();
    let observed = counts.error_rate().as_share();
    let successes = Counts { failures: counts.requests - counts.failures, ..counts };
    Interval { low: lower(counts, limit).min(observed), high: (1.0 - lower(successes, limit)).max(observed) }
}

/// How much higher the canary's rate is than stable's, in shares from -1 to 1, at least and at most: at every moment,
/// with a probability of at least `1 - doubt`.
///
/// Each arm's interval gets half of the doubt, so the difference holds however the arms depend on each other.
#[must_use]
pub fn difference_interval(stable: Counts, canary: Counts, doubt: Rate) -> Interval {
    let half = Rate::clamped(doubt.as_share() / 2.0);
    rate_interval(canary, half).minus(rate_interval(stable, half))
}

/// The lowest rate that the failures of `counts` are not evidence against.
fn lower(counts: Counts, limit: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if log_evidence(counts, middle) >= limit {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The logarithm of the evidence that the mean rate is above `rate`.
fn log_evidence(counts: Counts, rate: f64) -> f64 {
    let (requests, failures) = (counts.requests as f64, counts.failures as f64);
    let each = (0..STEPS).map(|step| {
        let slope = STEEPEST * STEP.powi(step.cast_signed());
        failures * slope - requests * (rate * slope.exp_m1()).ln_1p()
    });
    each.fold(f64::NEG_INFINITY, log_add) - f64::from(STEPS).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn doubt() -> Rate {
        Rate::from_share(0.05).unwrap()
    }

    #[track_caller]
    fn check(requests: u64, failures: u64, low: f64, high: f64) {
        let found = rate_interval(Counts { requests, failures }, doubt());
        let near = |a: f64, b: f64| (a - b).abs() <= 0.02 * b.max(0.01);
        assert!(near(found.low, low) && near(found.high, high), "{found:?}");
    }

    #[test]
    fn intervals_are_as_narrow_as_the_counts_allow() {
        check(0, 0, 0.0, 1.0);
        check(100, 0, 0.0, 0.0543);
        check(1000, 10, 0.002_45, 0.025_35);
        check(1_000_000, 1000, 0.000_892, 0.001_116);
        check(100, 100, 0.9457, 1.0);
    }

    /// The probability that an interval is wrong at any of the first looks, without chance: the mass of the paths on which
    /// it was not wrong yet is carried on from request to request.
    fn ever_wrong(requests: u64, rate: impl Fn(u64) -> f64) -> f64 {
        let (mut right, mut sum) = (vec![1.0], 0.0);
        for number in 1..=requests {
            let now = rate(number);
            sum += now;
            let mut next = vec![0.0; right.len() + 1];
            for (failures, mass) in right.iter().enumerate() {
                next[failures] += mass * (1.0 - now);
                next[failures + 1] += mass * now;
            }
            let mean = sum / number as f64;
            for (failures, mass) in next.iter_mut().enumerate() {
                // As `rate_interval` finds its ends, without looking for them.
                let failed = Counts { requests: number, failures: failures as u64 };
                let held = Counts { failures: number - failed.failures, ..failed };
                if log_evidence(failed, mean).max(log_evidence(held, 1.0 - mean)) >= 40_f64.ln() {
                    *mass = 0.0;
                }
            }
            right = next;
        }
        1.0 - right.iter().sum::<f64>()
    }

    #[test]
    fn no_more_are_ever_wrong_than_stated() {
        for rate in [0.001, 0.05, 0.5] {
            let wrong = ever_wrong(300, |_| rate);
            assert!(wrong <= 0.05, "{rate}: {wrong}");
        }
        // Also where the rate does what it likes.
        let wrong = ever_wrong(300, |number| if number % 60 < 20 { 0.9 } else { 0.01 });
        assert!(wrong <= 0.05, "{wrong}");
    }

    proptest! {
        #[test]
        fn an_interval_holds_what_was_seen(requests in 1_u64..1_000_000, part in 0.0_f64..=1.0) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the requests")]
            let counts = Counts { requests, failures: (requests as f64 * part) as u64 };
            let Interval { low, high } = rate_interval(counts, doubt());
            let seen = counts.error_rate().as_share();
            prop_assert!(0.0 <= low && low <= seen && seen <= high && high <= 1.0, "{low} {seen} {high}");
            let more = rate_interval(Counts { requests: counts.requests + 1, failures: counts.failures + 1 }, doubt());
            prop_assert!(more.low >= low - 1e-9);
            let apart = difference_interval(counts, counts, doubt());
            prop_assert!(apart.low <= 0.0 && apart.high >= 0.0);
        }
    }
}
