//! What a trial's evidence means, for people.

use crate::judge::limit::LimitTest;
use crate::judge::mixture::{HIGHEST_ALLOWED, SMALLEST_REGRESSION, price_of_not_knowing};
use crate::judge::numeric::{divergence, with_odds};
use crate::judge::stream::StreamTest;
use crate::judge::trial::Weighed;
use crate::judge::{Absolute, Check, Counts, Rate, Stream, Trial};

/// Where a trial stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outlook {
    /// The smallest regression that matters would have been seen by now, and there is no sign of one.
    Healthy,
    /// Too early to say.
    Inconclusive {
        /// About how many more canary requests it takes, at the present rates and share, until the smallest regression that
        /// matters (odds 1.8 times those of the highest allowed rate) would be seen; nothing if no traffic tells yet.
        canary_requests: Option<u64>,
    },
    /// To be taken out.
    Worse {
        /// The check that says so: of several streams the one that adds most to the evidence.
        cause: Check,
    },
}

/// A stream's part in a [`Report`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamReport {
    /// Which stream.
    pub stream: Stream,
    /// Its weight in the evidence, above 0 up to 1.
    pub weight: f64,
    /// ln M of this stream alone.
    pub log_evidence: f64,
    /// Stable's outcomes that the evidence rests on.
    pub stable: Counts,
    /// The canary's.
    pub canary: Counts,
    /// What stable's rate is taken to be now.
    pub believed: Rate,
    /// The highest rate that the canary is allowed at that.
    pub allowed: Rate,
    /// About how many more canary requests it takes until the smallest regression that matters would be seen; 0 if it would
    /// have been seen, nothing if no traffic tells yet.
    pub canary_requests: Option<u64>,
}

/// An absolute limit's part in a [`Report`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitReport {
    /// Which limit.
    pub of: Absolute,
    /// The rate that the canary may not exceed.
    pub limit: Rate,
    /// ln M of the canary against the limit.
    pub log_evidence: f64,
    /// What that must reach for a rollback.
    pub log_limit: f64,
    /// The canary's outcomes that it rests on.
    pub canary: Counts,
    /// About how many more canary requests it takes until a rate of 1.8 times the limit's odds would be seen; 0 if it would
    /// have been seen, nothing if the limit cannot be exceeded.
    pub canary_requests: Option<u64>,
}

/// What the outcomes say, with what that rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Where the trial stands.
    pub outlook: Outlook,
    /// ln M of the comparison with stable.
    pub log_evidence: f64,
    /// What that must reach for a rollback.
    pub log_limit: f64,
    /// Each stream.
    pub streams: Vec<StreamReport>,
    /// Each absolute limit.
    pub limits: Vec<LimitReport>,
    /// Requests to the canary.
    pub requests: u64,
    /// How many of them statistics wait for.
    pub min_requests: u64,
    /// Failures that users met.
    pub harm: u64,
    /// How many they may meet, if that is bounded.
    pub harm_budget: Option<u64>,
    /// Whether the canary has been shown not to be much worse: see [`Trial::is_assured`].
    pub assured: bool,
}

impl Report {
    /// The check by which the canary is worse, if it is.
    #[must_use]
    pub fn worse(&self) -> Option<Check> {
        match self.outlook {
            Outlook::Worse { cause } => Some(cause),
            Outlook::Healthy | Outlook::Inconclusive { .. } => None,
        }
    }
}

pub(crate) fn report(trial: &Trial, tests: &[Weighed], limits: &[(Absolute, LimitTest)]) -> Report {
    let (log_evidence, log_limit) = (trial.log_evidence(), trial.log_limit());
    let streams: Vec<_> = tests.iter().map(|weighed| stream_report(weighed, log_limit)).collect();
    let limits: Vec<_> = limits.iter().map(|(of, test)| limit_report(*of, test, trial.log_absolute_limit())).collect();
    let exceeded = limits.iter().find(|limit| limit.log_evidence >= limit.log_limit);
    let leading = leading(tests).filter(|_| log_evidence >= log_limit);
    let by_statistics = exceeded.map(|limit| limit.of.check()).or(leading.map(Check::WorseThanStable));
    let by_harm = trial.has_done_enough_harm().then_some(Check::HarmBudget);
    let cause = by_statistics.filter(|_| trial.has_enough_requests()).or(by_harm);
    let outlook = if let Some(cause) = cause {
        Outlook::Worse { cause }
    } else {
        // A stream that nothing has come in of yet has no say: there may never be answers enough to draw its line.
        match streams.iter().filter_map(|stream| stream.canary_requests).max() {
            Some(0) => Outlook::Healthy,
            canary_requests => Outlook::Inconclusive { canary_requests },
        }
    };
    let ((requests, min_requests), (harm, harm_budget)) = (trial.requests(), trial.harm());
    let assured = trial.is_assured();
    Report { outlook, log_evidence, log_limit, streams, limits, requests, min_requests, harm, harm_budget, assured }
}

fn limit_report(of: Absolute, test: &LimitTest, log_limit: f64) -> LimitReport {
    let limit = test.limit();
    let gain = divergence(with_odds(limit, SMALLEST_REGRESSION), limit);
    LimitReport {
        of,
        limit: Rate::clamped(limit),
        log_evidence: test.log_evidence(),
        log_limit,
        canary: test.canary(),
        canary_requests: (limit <= HIGHEST_ALLOWED)
            .then(|| requests_to_see(test.log_evidence(), test.canary().requests, gain, log_limit)),
    }
}

/// The stream that adds most to the evidence.
fn leading(tests: &[Weighed]) -> Option<Stream> {
    let most = tests.iter().max_by(|a, b| a.log_part().total_cmp(&b.log_part()));
    most.map(|weighed| weighed.stream)
}

fn stream_report(weighed: &Weighed, log_limit: f64) -> StreamReport {
    let Weighed { stream, weight, ref test } = *weighed;
    let (stable, canary) = test.counts();
    let believed = test.believed();
    StreamReport {
        stream,
        weight,
        log_evidence: test.log_evidence(),
        stable,
        canary,
        believed: Rate::clamped(believed),
        allowed: Rate::clamped(test.tolerance().allowed(believed)),
        canary_requests: gain_of_smallest(test)
            .map(|gain| requests_to_see(test.log_evidence(), canary.requests, gain, log_limit - weight.ln())),
    }
}

/// About how many more canary requests it takes until the smallest regression that matters would be seen, if each is
/// worth `gain` nats and `seen` have been.
///
/// One that had been there from the start takes `limit / I` requests, with Wald's approximation for the length of a
/// sequential test and `I` the nats that a canary request is worth. Where the evidence already leans towards a regression,
/// what is missing to the limit counts instead.
fn requests_to_see(log_evidence: f64, seen: u64, gain: f64, limit: f64) -> u64 {
    let missing = if log_evidence > 0.0 {
        (limit - log_evidence).max(0.0) / gain
    } else {
        (limit + price_of_not_knowing()) / gain - seen as f64
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "such a cast stops at the ends of a u64"
    )]
    let missing = missing.ceil().max(0.0) as u64;
    if log_evidence > 0.0 { missing.max(1) } else { missing }
}

/// What a canary request is worth on average against the smallest regression that matters, in nats; nothing before any
/// traffic, or where nothing could be worse.
fn gain_of_smallest(test: &StreamTest) -> Option<f64> {
    let (p0, share) = (test.believed(), test.share()?);
    let allowed = test.tolerance().allowed(p0);
    let p1 = with_odds(allowed, SMALLEST_REGRESSION);
    (allowed <= HIGHEST_ALLOWED).then(|| test.tolerance().information(share, p0, p1))
}
