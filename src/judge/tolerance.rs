//! How much worse than stable a canary may be, and the point of that allowance which is hardest to tell from a regression.

use std::time::Duration;

use crate::judge::numeric::divergence;

/// What the canary is allowed: a rate of up to `points + factor * stable's rate`, at every moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    points: f64,
    factor: f64,
}

impl Default for Tolerance {
    /// 0.2 points and a quarter of stable's rate: below that, a difference is not worth a rollback at night.
    fn default() -> Self {
        Self { points: 0.002, factor: 1.25 }
    }
}

impl Tolerance {
    /// Nothing is allowed: any rate above stable's is worse.
    pub const STRICT: Self = Self { points: 0.0, factor: 1.0 };

    /// Allows `points`, a share from 0 to below 1, on top of `factor` times stable's rate, 1 or more; `None` outside.
    ///
    /// They are the delta and rho of the formulas; a `relative` of 25 % in a flag file is a factor of 1.25.
    #[must_use]
    pub fn new(points: f64, factor: f64) -> Option<Self> {
        let meaningful = (0.0..1.0).contains(&points) && (1.0..=1e6).contains(&factor);
        meaningful.then_some(Self { points, factor })
    }

    /// The highest rate that the canary may have while stable has `rate`. It can exceed 1, where nothing is forbidden.
    #[must_use]
    pub fn allowed(self, rate: f64) -> f64 {
        self.points + self.factor * rate
    }

    /// What is allowed `times` over.
    pub(crate) fn times(self, times: f64) -> Self {
        Self { points: self.points * times, factor: self.factor * times }
    }

    /// Stable's rate on the boundary of what is allowed, where that is nearest to the rates `p0` and `p1`, when a `share` of
    /// the requests is the canary's.
    ///
    /// It is the q that solves `share factor (g - p1) / (g (1 - g)) + (1 - share) (q - p0) / (q (1 - q)) = 0` with
    /// `g = points + factor q`: the reverse information projection of Turner, Ly and Grünwald, "Generic E-variables for
    /// exact sequential k-sample tests that allow for optional stopping". Multiplied out it is a cubic with one root between
    /// `p0` and `(p1 - points) / factor`, found by Newton's steps, and by halving where those leave the bracket.
    ///
    /// `0 < p0 < 1`, `0 < p1 < 1` and `0 < share < 1` must hold. For a regression, `p1` is above what is allowed at `p0`; for a
    /// canary that is to be shown better than the boundary, below.
    pub(crate) fn nearest(self, share: f64, p0: f64, p1: f64) -> f64 {
        let Self { points, factor } = self;
        if points <= 0.0 && factor <= 1.0 {
            return share * p1 + (1.0 - share) * p0;
        }
        let (canary, stable) = (share * factor, 1.0 - share);
        let other = ((p1 - points) / factor).max(0.0);
        let (mut low, mut high) = (p0.min(other), p0.max(other));
        let mut q = p0 + share * (other - p0);
        for _ in 0..MAX_STEPS {
            let g = points + factor * q;
            let (stable_spread, canary_spread) = (q * (1.0 - q), g * (1.0 - g));
            let height = canary * (g - p1) * stable_spread + stable * (q - p0) * canary_spread;
            if height < 0.0 {
                low = q;
            } else {
                high = q;
            }
            let slope = canary * (factor * stable_spread + (g - p1) * (1.0 - 2.0 * q))
                + stable * (canary_spread + (q - p0) * factor * (1.0 - 2.0 * g));
            let newton = q - height / slope;
            let next = if newton > low && newton < high { newton } else { f64::midpoint(low, high) };
            let step = (next - q).abs();
            q = next;
            if step <= q * f64::EPSILON {
                break;
            }
        }
        q
    }

    /// What one canary request, with the stable ones that come with it, is worth on average as evidence of a regression from
    /// `p0` to `p1`, in nats: no test that keeps its bound can gain more. 0 where the regression is within the tolerance.
    ///
    /// It is `KL(p1 || g) + (1 - share) / share KL(p0 || q)`. `0 < share < 1`; the rates are shares from 0 to 1.
    #[must_use]
    pub fn information(self, share: f64, p0: f64, p1: f64) -> f64 {
        let (p0, p1) = (p0.max(TINY), p1.min(1.0 - TINY));
        if self.allowed(p0) >= p1 {
            return 0.0;
        }
        let q = self.nearest(share, p0, p1);
        divergence(p1, self.allowed(q)) + (1.0 - share) / share * divergence(p0, q)
    }
}

/// How much slower than stable the canary may be before it counts as slower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyTolerance(f64);

impl Default for LatencyTolerance {
    /// A fifth: less is seen in no user's day.
    fn default() -> Self {
        Self(0.2)
    }
}

/// Whatever the tolerance, the canary may be slower by this: a colder cache of connections, or another thread's turn on
/// the processor, is no work of the canary's.
const LEAST_SLACK: Duration = Duration::from_millis(1);

impl LatencyTolerance {
    /// Allows a `share` of stable's latency on top of it, from 0 to 100; `None` outside.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=100.0).contains(&share).then_some(Self(share))
    }

    /// How many times stable's latency is allowed: from 1 to 101.
    #[must_use]
    pub fn times(self) -> f64 {
        1.0 + self.0
    }

    /// What a canary's answer has to exceed to be as slow as one of stable's that takes longer than `stable`.
    #[must_use]
    pub fn allowed(self, stable: Duration) -> Duration {
        let slower = Duration::try_from_secs_f64(stable.as_secs_f64() * self.times()).unwrap_or(Duration::MAX);
        slower.max(stable.saturating_add(LEAST_SLACK))
    }
}

/// Stands for rates of 0 and, from the other side, of 1, whose odds are no numbers.
const TINY: f64 = 1e-12;

/// Halving alone closes the bracket to the last bit in this many steps; Newton's need about six.
const MAX_STEPS: u32 = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_has_a_meaning_is_a_tolerance() {
        for (points, factor) in [(-0.1, 1.0), (1.0, 1.0), (0.0, 0.9), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert_eq!(Tolerance::new(points, factor), None, "{points} {factor}");
        }
        assert_eq!(Tolerance::new(0.0, 1.0), Some(Tolerance::STRICT));
    }

    #[test]
    fn what_is_slower_is_so_by_a_share_and_by_a_millisecond() {
        let allowed = |share: f64, stable| LatencyTolerance::new(share).unwrap().allowed(Duration::from_micros(stable));
        assert_eq!(allowed(0.2, 100_000), Duration::from_micros(120_000));
        assert_eq!(allowed(0.2, 300), Duration::from_micros(1_300));
        assert_eq!(allowed(0.0, 50_000), Duration::from_micros(51_000));
        assert_eq!([-0.1, 100.1, f64::NAN].map(LatencyTolerance::new), [None; 3]);
    }

    proptest! {
        #[test]
        fn the_nearest_allowed_world_solves_its_equation(
            share in 0.001_f64..0.999, p0 in 1e-6_f64..0.6, over in 1.3_f64..40.0, points in 0.0_f64..0.05,
            factor in 1.0_f64..1.5,
        ) {
            let tolerance = Tolerance::new(points, factor).unwrap();
            let allowed = tolerance.allowed(p0);
            prop_assume!(allowed < 0.97);
            let p1 = crate::judge::numeric::with_odds(allowed, over);
            let q = tolerance.nearest(share, p0, p1);
            let g = tolerance.allowed(q);
            prop_assert!(q >= p0 && g <= p1 * (1.0 + 1e-12));
            let canary = share * factor * (g - p1) / (g * (1.0 - g));
            let stable = (1.0 - share) * (q - p0) / (q * (1.0 - q));
            prop_assert!((canary + stable).abs() <= 1e-9 * stable.abs().max(1.0), "{canary} {stable}");
        }
    }
}
