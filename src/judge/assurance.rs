//! The evidence *for* a canary: that it is not worse than stable by as much as matters.
//!
//! That nothing has been found against a canary says little while nothing could have been found yet. A step of a ramp
//! asks for more. So the bet is turned round: the null is now that the canary is worse by the smallest regression that
//! matters, at every moment, `p_canary(t) >= margin(p_stable(t))` with `margin = points + factor * p_stable`, and what is bet on
//! are rates below that. Its bets are the same e-variables as the judge's, whose proof asks only for a half-plane, so with a
//! probability of at most `doubt` a canary that is that much worse is ever taken for one that is not. In other words, an
//! anytime-valid confidence sequence for `p_canary - factor * p_stable` has come to lie below `points`.

use crate::judge::Counts;
use crate::judge::mixture::{HIGHEST_ALLOWED, SMALLEST_REGRESSION};
use crate::judge::numeric::log_add;
use crate::judge::stream::log_factor;
use crate::judge::tolerance::Tolerance;

/// How many rates below the margin are bet on.
pub const BETTER: usize = 4;

/// Those rates, as parts of the margin: from a canary without failures to one that is only just better.
const PARTS: [f64; BETTER] = [0.03, 0.3, 0.55, 0.75];

/// The share of the stake on each.
const WEIGHTS: [f64; BETTER] = [0.2, 0.3, 0.3, 0.2];

/// The probability, at each step, of going on with a canary that is worse by the smallest regression that matters: 5 %.
/// Going on is no promise, since rollback stays possible at every moment after.
pub(crate) const DOUBT: f64 = 0.05;

/// What has been bet and won on each of the rates: logarithms, which start at 0.
pub type AssuranceState = [f64; BETTER];

/// The evidence for a canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Assurance {
    margin: Tolerance,
    log_wealth: AssuranceState,
}

impl Assurance {
    /// The evidence under the tolerance that the canary is judged by.
    pub(crate) fn new(tolerance: Tolerance, log_wealth: AssuranceState) -> Self {
        Self { margin: tolerance.times(SMALLEST_REGRESSION), log_wealth }
    }

    pub(crate) fn state(&self) -> AssuranceState {
        self.log_wealth
    }

    /// Forgets all evidence.
    pub(crate) fn begin_anew(&mut self) {
        self.log_wealth = [0.0; BETTER];
    }

    /// Bets on one more block, with what stable's rate was believed to be before it.
    pub(crate) fn bet(&mut self, p0: f64, stable: Counts, canary: Counts) {
        let margin = self.margin.allowed(p0);
        if margin > HIGHEST_ALLOWED {
            return;
        }
        for (log_wealth, part) in self.log_wealth.iter_mut().zip(PARTS) {
            *log_wealth += log_factor(self.margin, p0, part * margin, stable, canary);
        }
    }

    /// ln of the evidence.
    pub(crate) fn log_evidence(&self) -> f64 {
        let parts = self.log_wealth.iter().zip(WEIGHTS).map(|(wealth, weight)| weight.ln() + wealth);
        parts.fold(f64::NEG_INFINITY, log_add)
    }
}
