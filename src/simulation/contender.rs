//! The judge and what others use instead, on one footing: each turns outcomes into a number, and stops at a limit.

use std::collections::VecDeque;

use crate::judge::{Absolute, Counts, Sample, Settings, Stream, StreamSettings, Tolerance, Trial};
use crate::simulation::race::Race;
use crate::simulation::world::{TICK, normal_quantile};

/// A way to decide about a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Tidegate's judge.
    Judge,
    /// More than 5 % of the canary's requests of the last 30 seconds failed, of 20 or more: what most canary tools do.
    Window,
    /// A one-sided z-test of two proportions on all outcomes so far, looked at every second as if each look were the only one.
    ZTest,
    /// The label test of Lindon, Sanden and Shirikian, "Rapid Regression Detection in Software Deployments through Sequential
    /// Testing": does the canary have a larger part of the failures than its configured share? With a uniform prior.
    Label,
}

/// All of them, the judge first.
pub const METHODS: [Method; 4] = [Method::Judge, Method::Window, Method::ZTest, Method::Label];

/// The failure rate of the fixed window.
const WINDOW_LIMIT: f64 = 0.05;

/// Its length.
const WINDOW_TICKS: usize = 300;

/// How few requests it takes.
const WINDOW_MIN: u64 = 20;

/// How often the z-test is looked at.
const LOOK_TICKS: u64 = 10;

impl Method {
    /// As in a table's head.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Window => "5 % / 30 s",
            Self::ZTest => "z-test 1/s",
            Self::Label => "label test",
        }
    }

    /// The value at which it stops when false stops are to have probability `alpha`, in a race that is run with
    /// `race_alpha`: the judge tells its evidence as a surplus over the limit of that.
    #[must_use]
    pub fn limit(self, alpha: f64, race_alpha: f64) -> f64 {
        match self {
            Self::Judge => (race_alpha / alpha).ln(),
            Self::Label => -alpha.ln(),
            Self::Window => 1.0,
            Self::ZTest => normal_quantile(alpha),
        }
    }

    /// One that has seen nothing but what the race tells beforehand.
    pub(crate) fn begin(self, race: &Race<'_>) -> Box<dyn Contender + Send> {
        self.rival().unwrap_or_else(|| Box::new(Judge::new(race)))
    }

    /// One of the others, which need to be told nothing.
    pub(crate) fn rival(self) -> Option<Box<dyn Contender + Send>> {
        match self {
            Self::Judge => None,
            Self::Window => Some(Box::new(Window::default())),
            Self::ZTest => Some(Box::new(ZTest::default())),
            Self::Label => Some(Box::new(Label { canary: 1.0, stable: 1.0, log_evidence: 0.0 })),
        }
    }
}

/// A method at work.
pub(crate) trait Contender {
    /// Takes in a tick's outcomes and gives the value to be held against the limit.
    fn observe(&mut self, tick: u64, samples: &[Sample]) -> f64;
}

/// The judge, with what it is held against.
#[derive(Debug)]
struct Judge {
    trial: Trial,
}

impl Judge {
    fn new(race: &Race<'_>) -> Self {
        let streams = race.world.streams.iter().map(|stream| {
            let tolerance = if *stream == Stream::Errors { race.tolerance } else { Tolerance::STRICT };
            StreamSettings { stream: *stream, tolerance, history: race.world.history_of(*stream) }
        });
        let false_rollback = race.false_rollback;
        let Race { max_error_rate, harm_budget, min_requests, aside, .. } = *race;
        let streams = streams.collect();
        let settings =
            Settings { false_rollback, streams, max_error_rate, max_slow_rate: None, harm_budget, min_requests, aside };
        Self { trial: Trial::new(&settings) }
    }
}

impl Contender for Judge {
    fn observe(&mut self, tick: u64, samples: &[Sample]) -> f64 {
        self.trial.observe(TICK * u32::try_from(tick).unwrap_or(u32::MAX), samples);
        let (_, canary) = errors(samples);
        self.trial.observe_canary(Absolute::Errors, canary);
        self.trial.observe_traffic(canary.requests, canary.failures);
        if self.trial.has_done_enough_harm() {
            f64::INFINITY
        } else if self.trial.has_enough_requests() {
            self.trial.log_surplus()
        } else {
            f64::NEG_INFINITY
        }
    }
}

/// The failures of all gateways, stable's and the canary's.
fn errors(samples: &[Sample]) -> (Counts, Counts) {
    let errors = samples.iter().filter(|sample| sample.stream == Stream::Errors);
    errors.fold((Counts::default(), Counts::default()), |(stable, canary), sample| {
        (stable.plus(sample.stable), canary.plus(sample.canary))
    })
}

#[derive(Debug, Default)]
struct Window {
    ticks: VecDeque<Counts>,
    sum: Counts,
}

impl Contender for Window {
    fn observe(&mut self, _tick: u64, samples: &[Sample]) -> f64 {
        let (_, canary) = errors(samples);
        self.ticks.push_back(canary);
        self.sum = self.sum.plus(canary);
        if self.ticks.len() > WINDOW_TICKS
            && let Some(old) = self.ticks.pop_front()
        {
            self.sum.requests -= old.requests;
            self.sum.failures -= old.failures;
        }
        let over = self.sum.requests >= WINDOW_MIN && self.sum.error_rate().as_share() > WINDOW_LIMIT;
        if over { 1.0 } else { 0.0 }
    }
}

#[derive(Debug, Default)]
struct ZTest {
    stable: Counts,
    canary: Counts,
}

impl Contender for ZTest {
    fn observe(&mut self, tick: u64, samples: &[Sample]) -> f64 {
        let (stable, canary) = errors(samples);
        self.stable = self.stable.plus(stable);
        self.canary = self.canary.plus(canary);
        if (tick + 1).is_multiple_of(LOOK_TICKS) { self.value() } else { f64::NEG_INFINITY }
    }
}

impl ZTest {
    fn value(&self) -> f64 {
        let pooled = self.stable.plus(self.canary).error_rate().as_share();
        let (stable, canary) = (self.stable.requests as f64, self.canary.requests as f64);
        let spread = (pooled * (1.0 - pooled) * (1.0 / stable + 1.0 / canary)).sqrt();
        let difference = self.canary.error_rate().as_share() - self.stable.error_rate().as_share();
        if spread.is_finite() && spread > 0.0 { difference / spread } else { f64::NEG_INFINITY }
    }
}

/// The parameters of the Beta posterior, and the evidence.
#[derive(Debug)]
struct Label {
    canary: f64,
    stable: f64,
    log_evidence: f64,
}

impl Contender for Label {
    fn observe(&mut self, _tick: u64, samples: &[Sample]) -> f64 {
        for sample in samples.iter().filter(|sample| sample.stream == Stream::Errors) {
            for _ in 0..sample.canary.failures {
                self.log_evidence += (self.canary / (self.canary + self.stable) / sample.share).ln();
                self.canary += 1.0;
            }
            for _ in 0..sample.stable.failures {
                self.log_evidence += (self.stable / (self.canary + self.stable) / (1.0 - sample.share)).ln();
                self.stable += 1.0;
            }
        }
        self.log_evidence
    }
}
