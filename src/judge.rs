//! From outcomes to a verdict.
//!
//! A [`Trial`] takes in counts and the time as arguments and nothing else, so a verdict can be repeated, simulated and
//! tested without a gateway. `docs/judge.md` derives what it computes.
#![warn(clippy::wildcard_enum_match_arm)]

mod assurance;
mod baseline;
mod interval;
mod limit;
mod mixture;
mod numbers;
mod numeric;
#[cfg(test)]
mod proof;
mod report;
mod stream;
mod tolerance;
mod trial;

use std::fmt;
use std::time::Duration;

pub use assurance::{AssuranceState, BETTER};
pub use baseline::Memory;
pub use interval::{Interval, difference_interval, rate_interval};
pub use limit::LimitState;
pub use mixture::{ALTERNATIVES, Stake};
pub use report::{LimitReport, Outlook, Report, StreamReport};
pub use stream::{Gathering, MAX_STRATA, PATIENCE, StreamState};
pub use tolerance::{LatencyTolerance, Tolerance};
pub use trial::{Absolute, Aside, Sample, Settings, Stream, StreamSettings, Trial, TrialState};

/// A share of requests, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
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
    /// How much worse than stable it may be.
    pub tolerance: Tolerance,
    /// How much slower than stable it may be.
    pub latency_tolerance: LatencyTolerance,
    /// At most [`MAX_SLOW_RATE`] of its answers may take longer than this, whatever stable does.
    pub max_latency: Option<Duration>,
    /// After this many failures that users met it is taken out, whatever the statistics say.
    pub harm_budget: Option<u64>,
    /// After no server of its could be used for so long it is taken out.
    pub max_unavailable: Duration,
    /// Before this many requests to it no statistics take it out.
    pub min_requests: u64,
    /// The probability, for each release, of rolling back a canary that keeps to both: above 0, below 1.
    pub false_rollback: Rate,
}

impl Default for Guard {
    /// At most 5 % of failures, which is high enough for the ordinary failures of a service in use, and one release in a
    /// thousand rolled back wrongly, which is less than people make of it.
    fn default() -> Self {
        Self {
            max_error_rate: Rate(0.05),
            tolerance: Tolerance::default(),
            latency_tolerance: LatencyTolerance::default(),
            max_latency: None,
            harm_budget: None,
            max_unavailable: Duration::from_secs(30),
            min_requests: 0,
            false_rollback: Rate(0.001),
        }
    }
}

/// The share of the canary's answers that may take longer than [`Guard::max_latency`]: it is a limit for the 99th
/// percentile, which is what limits of latency are usually set for.
pub const MAX_SLOW_RATE: Rate = Rate(0.01);

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
    /// The share of its answers that take longer than they ever may, against its limit.
    MaxLatency,
    /// The failures that users met, against how many they may.
    HarmBudget,
    /// The canary against stable, in a stream of outcomes.
    WorseThanStable(Stream),
}

impl Check {
    /// As written in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxErrorRate => "max_error_rate",
            Self::MaxLatency => "max_latency",
            Self::HarmBudget => "harm_budget",
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
