//! From outcomes to a verdict.
//!
//! [`judge`] is a pure function: what it needs is handed to it, the [`Window`] of outcomes included, and the window takes
//! the time as an argument. So a verdict can be repeated, simulated and tested without a gateway.
#![warn(clippy::wildcard_enum_match_arm)]

mod baseline;
mod limit;
mod mixture;
mod numeric;
mod report;
mod stream;
mod tolerance;
mod trial;
mod window;

use std::fmt;
use std::time::Duration;

pub use baseline::Memory;
pub use limit::LimitState;
pub use mixture::{ALTERNATIVES, Stake};
pub use report::{LimitReport, Outlook, Report, StreamReport};
pub use stream::{Gathering, MAX_STRATA, PATIENCE, StreamState};
pub use tolerance::Tolerance;
pub use trial::{Sample, Settings, Stream, StreamSettings, Trial, TrialState};
pub use window::Window;

/// How far back the error rate is looked at.
pub const WINDOW: Duration = Duration::from_secs(10);

/// With fewer requests in the window, no rate is trusted. At 20 requests one failure is 5 %, so a single failure cannot
/// exceed the default limit.
pub const MIN_REQUESTS: u64 = 20;

/// A share of requests, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// None at all.
    pub const ZERO: Self = Self(0.0);

    /// The rate of `percent`, 0 to 100; `None` outside.
    #[must_use]
    pub fn from_percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent / 100.0))
    }

    /// The rate of `share`, 0 to 1; `None` outside.
    #[must_use]
    pub fn from_share(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The rate nearest to `share`.
    fn clamped(share: f64) -> Self {
        Self(share.clamp(0.0, 1.0))
    }

    /// As a share, 0 to 1.
    #[must_use]
    pub fn as_share(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Rate {
    /// In percent, rounded to hundredths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (self.0 * 10_000.0).round() / 100.0)
    }
}

/// The policy that says what is worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// The canary's own error rate may not exceed this, whatever stable does.
    pub max_error_rate: Rate,
}

impl Default for Guard {
    /// 5 %: high enough for the ordinary failures of a service in use, and the limit that a fixed threshold usually has.
    fn default() -> Self {
        Self { max_error_rate: Rate(0.05) }
    }
}

/// Requests that count, and how many of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Successes and failures.
    pub requests: u64,
    /// Failures.
    pub failures: u64,
}

impl Counts {
    /// The error rate; 0 without requests.
    #[must_use]
    pub fn error_rate(self) -> Rate {
        if self.requests == 0 { Rate(0.0) } else { Rate(self.failures as f64 / self.requests as f64) }
    }

    /// Both together; at the end of what a number can hold, the sum stays there.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let requests = self.requests.saturating_add(other.requests);
        let failures = self.failures.saturating_add(other.failures.min(other.requests));
        Self { requests, failures: failures.min(requests) }
    }

    /// The counts with no more failures than requests.
    fn sound(self) -> Self {
        Self { failures: self.failures.min(self.requests), ..self }
    }
}

/// A guard's check: its name is also the cause of the rollback that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The canary's error rate against its absolute limit.
    MaxErrorRate,
    /// The canary against stable, in a stream of outcomes.
    WorseThanStable(Stream),
}

impl Check {
    /// As written in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxErrorRate => "max_error_rate",
            Self::WorseThanStable(stream) => stream.as_str(),
        }
    }
}

/// What the outcomes say about the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Within its limits.
    Healthy,
    /// Too little to go by.
    Inconclusive,
    /// To be taken out.
    Worse,
}

impl Verdict {
    /// As written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Inconclusive => "inconclusive",
            Self::Worse => "worse",
        }
    }
}

/// A verdict with what it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// What it came to.
    pub verdict: Verdict,
    /// The canary's error rate in the window.
    pub value: Rate,
    /// The rate that it may not exceed.
    pub limit: Rate,
    /// What the value was counted from.
    pub counts: Counts,
}

/// Judges the canary by its outcomes in the last [`WINDOW`].
#[must_use]
pub fn judge(guard: &Guard, canary: Counts) -> Finding {
    let value = canary.error_rate();
    let verdict = if canary.requests < MIN_REQUESTS {
        Verdict::Inconclusive
    } else if value > guard.max_error_rate {
        Verdict::Worse
    } else {
        Verdict::Healthy
    };
    Finding { check: Check::MaxErrorRate, verdict, value, limit: guard.max_error_rate, counts: canary }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(requests: u64, failures: u64, verdict: Verdict) {
        assert_eq!(judge(&Guard::default(), Counts { requests, failures }).verdict, verdict);
    }

    #[test]
    fn a_rate_above_the_limit_is_worse() {
        check(0, 0, Verdict::Inconclusive);
        check(19, 19, Verdict::Inconclusive);
        check(20, 1, Verdict::Healthy);
        check(20, 2, Verdict::Worse);
        check(1000, 50, Verdict::Healthy);
        check(1000, 51, Verdict::Worse);
    }

    proptest! {
        #[test]
        fn another_failure_never_clears_the_canary(requests in MIN_REQUESTS..10_000, failures in 0_u64..10_000) {
            let failures = failures.min(requests - 1);
            let before = judge(&Guard::default(), Counts { requests, failures }).verdict;
            let after = judge(&Guard::default(), Counts { requests, failures: failures + 1 }).verdict;
            prop_assert!(before != Verdict::Worse || after == Verdict::Worse);
        }
    }
}
