//! One release on trial: every stream of outcomes, the absolute limits, and the evidence of all of them together.

use std::time::Duration;

use crate::judge::assurance::DOUBT;
use crate::judge::limit::{LimitState, LimitTest};
use crate::judge::numeric::log_add;
use crate::judge::report::{Report, report};
use crate::judge::stream::{StreamState, StreamTest};
use crate::judge::{Check, Counts, Rate, Tolerance};

/// A kind of outcome in which the canary is compared with stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Failures.
    Errors,
    /// Answers slower than stable's median, with the latency tolerance on top for the canary.
    LatencyP50,
    /// The same for stable's ninetieth percentile.
    LatencyP90,
    /// The same for stable's ninety-ninth.
    LatencyP99,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Self; 4] = [Self::Errors, Self::LatencyP50, Self::LatencyP90, Self::LatencyP99];

    /// As written in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "error_rate",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP90 => "latency_p90",
            Self::LatencyP99 => "latency_p99",
        }
    }
}

/// What one stream is judged by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamSettings {
    /// Which. Each at most once in a trial.
    pub stream: Stream,
    /// How much worse than stable the canary may be. Latency has its tolerance in what counts as slow already, so there it
    /// is [`Tolerance::STRICT`].
    pub tolerance: Tolerance,
    /// What stable did before the canary came: it speeds the judge up and is trusted with nothing.
    pub history: Counts,
}

/// What of the canary is held against a rate that it may not exceed, whatever stable does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absolute {
    /// Failures.
    Errors,
    /// Answers that take longer than they ever may.
    Latency,
}

impl Absolute {
    /// Both, in the order in which they are stored and told.
    pub const BOTH: [Self; 2] = [Self::Errors, Self::Latency];

    /// The check that it is.
    #[must_use]
    pub fn check(self) -> Check {
        match self {
            Self::Errors => Check::MaxErrorRate,
            Self::Latency => Check::MaxLatency,
        }
    }
}

/// What a trial judges by. It stays the same for as long as the trial lasts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The probability of ever rolling back a canary that is healthy in every respect: alpha, above 0 and below 1.
    pub false_rollback: Rate,
    /// The comparisons with stable.
    pub streams: Vec<StreamSettings>,
    /// The rate of failures that the canary may not exceed, whatever stable does.
    pub max_error_rate: Option<Rate>,
    /// The share of its answers that may take longer than they ever may, whatever stable does.
    pub max_slow_rate: Option<Rate>,
    /// After this many failures that users met the canary is taken out, whatever the statistics say.
    pub harm_budget: Option<u64>,
    /// Before this many requests to the canary no statistics take it out. The harm budget does.
    pub min_requests: u64,
    /// How many failures of the canary the evidence must hold without: as many as one user may add, so that one alone is
    /// none. 0 where users are unknown.
    pub aside: Aside,
}

/// How many outcomes of each kind are set aside before the rest is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aside {
    /// Failures.
    pub errors: u64,
    /// Slow answers.
    pub latency: u64,
}

impl Aside {
    /// What one user may add, as the recorder hears them: one failure, and two slow answers, since that an answer is slow is
    /// not known when the next request is heard.
    pub const ONE_USER: Self = Self { errors: 1, latency: 2 };

    fn of_stream(self, stream: Stream) -> u64 {
        if stream == Stream::Errors { self.errors } else { self.latency }
    }

    fn of_limit(self, limit: Absolute) -> u64 {
        match limit {
            Absolute::Errors => self.errors,
            Absolute::Latency => self.latency,
        }
    }
}

impl Settings {
    fn limit(&self, of: Absolute) -> Option<f64> {
        let rate = match of {
            Absolute::Errors => self.max_error_rate,
            Absolute::Latency => self.max_slow_rate,
        };
        rate.map(Rate::as_share)
    }
}

/// The share of alpha that the comparison with stable gets when there are absolute limits as well; these share the rest
/// equally. The shares sum to 1, so all together trip on a healthy canary with a probability of at most alpha (the union
/// bound). The comparison gets more, since it is the one that catches regressions early; a quarter of alpha costs the limit
/// `ln 4` nats, three quarters cost the comparison `ln 4/3`.
const SHARE_OF_COMPARISON: f64 = 0.75;

/// New outcomes of one stream, of requests that were assigned by percentage under the same share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Which stream they belong to. Those of a stream that is not on trial are passed over.
    pub stream: Stream,
    /// The canary's share of requests when these were routed, in any unit. Outcomes of different shares are never added up:
    /// where the share and stable's rate change together, the sums would lie (Simpson's paradox).
    pub share: f64,
    /// Stable's new outcomes.
    pub stable: Counts,
    /// The canary's.
    pub canary: Counts,
}

/// Everything that a trial remembers, as plain numbers to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialState {
    /// The time of the last observation, since the trial began.
    pub at: Duration,
    /// Each stream's memory.
    pub streams: Vec<(Stream, StreamState)>,
    /// Each absolute limit's memory.
    pub limits: Vec<(Absolute, LimitState)>,
    /// Requests to the canary, all of them.
    pub requests: u64,
    /// Failures that its users met.
    pub harm: u64,
}

/// One release on trial.
///
/// The evidence starts at 1 and is never restarted while the release is the same: not by a restart of the process, for
/// which there are [`Trial::state`] and [`Trial::resume`], and not by a step of a ramp, which is another stratum.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    false_rollback: f64,
    at: Duration,
    tests: Vec<Weighed>,
    limits: Vec<(Absolute, LimitTest)>,
    requests: u64,
    min_requests: u64,
    harm: u64,
    harm_budget: Option<u64>,
}

/// A stream's test and its weight in the evidence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weighed {
    pub(crate) stream: Stream,
    /// Above 0; all weights sum to 1.
    pub(crate) weight: f64,
    pub(crate) test: StreamTest,
}

impl Trial {
    /// A trial that has seen nothing of the canary.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let tests = settings.streams.iter().map(|of| Weighed {
            stream: of.stream,
            weight: weight(of.stream, &settings.streams),
            test: StreamTest::new(of.tolerance, settings.aside.of_stream(of.stream), of.history),
        });
        let limits = Absolute::BOTH.into_iter().filter_map(|of| {
            let limit = settings.limit(of)?;
            Some((of, LimitTest::new(limit, settings.aside.of_limit(of))))
        });
        Self {
            false_rollback: settings.false_rollback.as_share(),
            at: Duration::ZERO,
            tests: tests.collect(),
            limits: limits.collect(),
            requests: 0,
            min_requests: settings.min_requests,
            harm: 0,
            harm_budget: settings.harm_budget,
        }
    }

    /// The trial that was in this state, under the settings that it had.
    ///
    /// A stream or limit that is in the settings and not in the state begins now. For the bound on false rollbacks the
    /// settings have to be those that the trial began with.
    #[must_use]
    pub fn resume(settings: &Settings, state: TrialState) -> Self {
        let mut trial = Self::new(settings);
        trial.at = state.at;
        for (stream, state) in state.streams {
            if let Some(weighed) = trial.tests.iter_mut().find(|weighed| weighed.stream == stream) {
                let aside = settings.aside.of_stream(stream);
                weighed.test = StreamTest::resume(weighed.test.tolerance(), aside, state);
            }
        }
        for (of, state) in state.limits {
            if let Some((_, test)) = trial.limits.iter_mut().find(|(known, _)| *known == of) {
                *test = LimitTest::resume(test.limit(), settings.aside.of_limit(of), state);
            }
        }
        (trial.requests, trial.harm) = (state.requests, state.harm);
        trial
    }

    /// What [`Trial::resume`] needs.
    #[must_use]
    pub fn state(&self) -> TrialState {
        TrialState {
            at: self.at,
            streams: self.tests.iter().map(|weighed| (weighed.stream, weighed.test.state())).collect(),
            limits: self.limits.iter().map(|(of, test)| (*of, test.state())).collect(),
            requests: self.requests,
            harm: self.harm,
        }
    }

    /// Takes in what is new in the comparison with stable: one call a tick, `at` that time since the trial began, which
    /// does not go backwards. The order of the samples of one stream and share does not matter.
    pub fn observe(&mut self, at: Duration, samples: &[Sample]) {
        self.at = self.at.max(at);
        for weighed in &mut self.tests {
            weighed.test.give_up(self.at);
            for sample in samples.iter().filter(|sample| sample.stream == weighed.stream) {
                weighed.test.gather(self.at, sample.share, sample.stable, sample.canary);
            }
            weighed.test.settle(self.at);
        }
    }

    /// Takes in new outcomes of the canary for an absolute limit: of all its requests, however they came to be the canary's.
    pub fn observe_canary(&mut self, of: Absolute, canary: Counts) {
        if let Some((_, test)) = self.limits.iter_mut().find(|(known, _)| *known == of) {
            test.observe(canary);
        }
    }

    /// Takes in how many more requests the canary has had, whatever the tests hear of them, and how many of their failures
    /// users met.
    pub fn observe_traffic(&mut self, requests: u64, harm: u64) {
        self.requests = self.requests.saturating_add(requests);
        self.harm = self.harm.saturating_add(harm);
    }

    /// ln M of the comparison with stable: the weighted mean of the streams' evidence, which is evidence itself however the
    /// streams depend on each other. 0 at the start and without streams.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        if self.tests.is_empty() {
            return 0.0;
        }
        self.tests.iter().map(Weighed::log_part).fold(f64::NEG_INFINITY, log_add)
    }

    /// What [`Trial::log_evidence`] must reach for a rollback: `ln(1 / alpha)` of the comparison's share of alpha.
    #[must_use]
    pub fn log_limit(&self) -> f64 {
        let share = if self.limits.is_empty() { 1.0 } else { SHARE_OF_COMPARISON };
        -(self.false_rollback * share).ln()
    }

    /// ln M of the canary against each of its absolute limits.
    fn absolute(&self) -> impl Iterator<Item = (Absolute, f64)> {
        self.limits.iter().map(|(of, test)| (*of, test.log_evidence()))
    }

    /// What each of those must reach for a rollback.
    pub(crate) fn log_absolute_limit(&self) -> f64 {
        -(self.false_rollback * (1.0 - SHARE_OF_COMPARISON) / self.limits.len().max(1) as f64).ln()
    }

    /// By how much the evidence exceeds its limit, in nats: that of the comparison or that of an absolute limit, whichever
    /// does by most.
    #[must_use]
    pub fn log_surplus(&self) -> f64 {
        let absolute = self.absolute().map(|(_, value)| value - self.log_absolute_limit());
        absolute.fold(self.log_evidence() - self.log_limit(), f64::max)
    }

    /// ln of the evidence that the canary does not fail more than stable by the smallest regression that matters (1.8 times
    /// what is allowed), gathered since [`Trial::ask_for_assurance`], and what it must reach to be sure of that: `ln 20`, so
    /// that a canary that is that much worse passes with a probability of at most 5 %, however often one looks.
    ///
    /// Nothing without a comparison of failures with stable's.
    #[must_use]
    pub fn assurance(&self) -> Option<(f64, f64)> {
        let errors = self.tests.iter().find(|weighed| weighed.stream == Stream::Errors)?;
        Some((errors.test.log_assurance(), -DOUBT.ln()))
    }

    /// Whether that evidence is enough to give the canary more traffic.
    #[must_use]
    pub fn is_assured(&self) -> bool {
        self.assurance().is_some_and(|(value, limit)| value >= limit)
    }

    /// Begins to gather that evidence anew, as for another step of a ramp: that the canary was good at 1 % does not show
    /// that it is at 50 %. The evidence against it stays.
    pub fn ask_for_assurance(&mut self) {
        self.tests.iter_mut().for_each(|weighed| weighed.test.ask_for_assurance());
    }

    /// Whether statistics may take the canary out by now.
    #[must_use]
    pub fn has_enough_requests(&self) -> bool {
        self.requests >= self.min_requests
    }

    /// Whether the harm budget is used up.
    #[must_use]
    pub fn has_done_enough_harm(&self) -> bool {
        self.harm_budget.is_some_and(|budget| self.harm >= budget)
    }

    /// Whether the canary is to be taken out.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.has_done_enough_harm() || (self.has_enough_requests() && self.log_surplus() >= 0.0)
    }

    /// Requests to the canary so far, and how many statistics wait for.
    pub(crate) fn requests(&self) -> (u64, u64) {
        (self.requests, self.min_requests)
    }

    /// Failures that users have met, and how many they may.
    pub(crate) fn harm(&self) -> (u64, Option<u64>) {
        (self.harm, self.harm_budget)
    }

    /// What the outcomes say, with what that rests on.
    #[must_use]
    pub fn report(&self) -> Report {
        report(self, &self.tests, &self.limits)
    }
}

impl Weighed {
    /// The logarithm of what the stream adds to the evidence.
    pub(crate) fn log_part(&self) -> f64 {
        self.weight.ln() + self.test.log_evidence()
    }
}

/// A stream's weight among `streams`: one half for errors and one half for latency, shared by its quantiles; all of it for
/// whichever is on trial alone.
fn weight(stream: Stream, streams: &[StreamSettings]) -> f64 {
    let is_error = |stream: Stream| stream == Stream::Errors;
    let same = streams.iter().filter(|other| is_error(other.stream) == is_error(stream)).count();
    let half = if same == streams.len() { 1.0 } else { 0.5 };
    half / same.max(1) as f64
}
