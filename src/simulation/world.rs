//! Made-up traffic: who comes, where it is sent and how it ends.

use std::fmt;
use std::time::Duration;

use crate::judge::{Aside, Counts, LatencyTolerance, Sample, Stream};
use crate::simulation::chance::Chance;
use crate::simulation::crowd::{Crowd, Gathered};

/// The length of a tick.
pub const TICK: Duration = Duration::from_millis(100);

/// One gateway's traffic during a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Requests a second on average; they come independently of each other.
    pub rps: f64,
    /// The share of them that really goes to the canary.
    pub share: f64,
    /// The share that the gateway says it routes by.
    pub told: f64,
    /// The probability that a request to stable fails, and that one to the canary does.
    pub fail: (f64, f64),
    /// How many times as long as stable the canary takes, in worlds in which latency is watched.
    pub slower: f64,
}

impl Traffic {
    /// One gateway that routes as it says, to arms that are equally quick.
    #[must_use]
    pub fn plain(rps: f64, share: f64, stable: f64, canary: f64) -> Self {
        Self { rps, share, told: share, fail: (stable, canary), slower: 1.0 }
    }
}

/// The quantiles of stable's latency at which the canary's is compared, as a gateway does.
const QUANTILES: [(Stream, f64); 3] =
    [(Stream::LatencyP50, 0.5), (Stream::LatencyP90, 0.9), (Stream::LatencyP99, 0.99)];

/// The spread of the latencies' logarithm, which is normally distributed: the slowest hundredth takes three times the
/// median and more.
const SPREAD: f64 = 0.5;

/// The share of stable's and of the canary's answers over their lines at this quantile, if the canary takes `slower`
/// times as long.
#[must_use]
pub fn slow_rates(quantile: f64, slower: f64, tolerance: LatencyTolerance) -> (f64, f64) {
    let line = normal_quantile(1.0 - quantile);
    (1.0 - quantile, normal_tail(line + (tolerance.times() / slower).ln() / SPREAD))
}

/// What a world does at a tick: adds each gateway's traffic.
type Happens = Box<dyn Fn(u64, &mut Vec<Traffic>) + Send + Sync>;

/// A made-up release.
pub struct World {
    /// What it shows.
    pub name: String,
    /// The streams that are watched.
    pub streams: Vec<Stream>,
    /// Stable's outcomes before the canary, in every stream.
    pub history: Counts,
    latency_tolerance: LatencyTolerance,
    happens: Happens,
    crowd: Option<Crowd>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("name", &self.name).finish_non_exhaustive()
    }
}

impl World {
    /// A world in which errors are watched.
    pub fn new(
        name: impl Into<String>,
        history: Counts,
        happens: impl Fn(u64, &mut Vec<Traffic>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            streams: vec![Stream::Errors],
            history,
            latency_tolerance: LatencyTolerance::default(),
            happens: Box::new(happens),
            crowd: None,
        }
    }

    /// A world of users, in which errors are watched.
    pub(crate) fn of(crowd: Crowd, name: impl Into<String>, history: Counts) -> Self {
        Self { crowd: Some(crowd), ..Self::new(name, history, |_, _| {}) }
    }

    /// The same with slow answers watched too, beyond this tolerance.
    #[must_use]
    pub fn with_latency(mut self, tolerance: LatencyTolerance) -> Self {
        self.latency_tolerance = tolerance;
        self.streams.extend(QUANTILES.map(|(stream, _)| stream));
        self
    }

    /// Stable's outcomes before the canary in `stream`.
    pub(crate) fn history_of(&self, stream: Stream) -> Counts {
        let quantile = QUANTILES.into_iter().find(|(known, _)| *known == stream);
        quantile.map_or(self.history, |(_, quantile)| history(1.0 - quantile))
    }

    /// What is set aside where there are users; others are counts only, in which nobody is told apart.
    pub(crate) fn aside(&self) -> Aside {
        self.crowd.map_or_else(Aside::default, |_| Aside::ONE_USER)
    }

    /// Its users, in one try.
    pub(crate) fn gather(&self) -> Option<Gathered> {
        self.crowd.map(Gathered::new)
    }

    /// Draws what happens at `tick` into `samples`.
    pub(crate) fn draw(&self, tick: u64, chance: &mut Chance, traffic: &mut Vec<Traffic>, samples: &mut Vec<Sample>) {
        traffic.clear();
        (self.happens)(tick, traffic);
        for Traffic { rps, share, told, fail, slower } in traffic.iter().copied() {
            let requests = chance.poisson(rps * TICK.as_secs_f64());
            let canary = chance.binomial(requests, share);
            let stable = requests - canary;
            let mut end = |requests, rate| Counts { requests, failures: chance.binomial(requests, rate) };
            let (of_stable, of_canary) = (end(stable, fail.0), end(canary, fail.1));
            samples.push(Sample { stream: Stream::Errors, share: told, stable: of_stable, canary: of_canary });
            if self.streams.len() == 1 {
                continue;
            }
            // Who is over the line of a quantile is among those over the one before.
            let (mut over, mut before) = ((stable, canary), (1.0, 1.0));
            for (stream, quantile) in QUANTILES {
                let rates = slow_rates(quantile, slower, self.latency_tolerance);
                over = (chance.binomial(over.0, rates.0 / before.0), chance.binomial(over.1, rates.1 / before.1));
                before = rates;
                let stable = Counts { requests: stable, failures: over.0 };
                let canary = Counts { requests: canary, failures: over.1 };
                samples.push(Sample { stream, share: told, stable, canary });
            }
        }
    }
}

/// How many requests of stable are known before the canary.
const HISTORY: f64 = 2e4;

/// Stable's outcomes before a release, when it fails at `rate`, a share.
#[must_use]
pub fn history(rate: f64) -> Counts {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to what is known")]
    let whole = |value: f64| value.round().max(0.0) as u64;
    Counts { requests: whole(HISTORY), failures: whole(HISTORY * rate) }
}

/// The value that a normal variable exceeds with probability `tail`, to within 0.0005: Abramowitz and Stegun, *Handbook of
/// Mathematical Functions*, 26.2.23. `0 < tail <= 0.5`.
pub(crate) fn normal_quantile(tail: f64) -> f64 {
    let t = (-2.0 * tail.ln()).sqrt();
    t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

/// The probability that a normal variable exceeds `value`, to within 1e-5: the same, 26.2.16.
fn normal_tail(value: f64) -> f64 {
    if value < 0.0 {
        return 1.0 - normal_tail(-value);
    }
    let t = 1.0 / (1.0 + 0.332_67 * value);
    let density = (-value * value / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    density * t * (0.436_183_6 + t * (-0.120_167_6 + t * 0.937_298))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_as_quick_as_stable_is_over_its_lines_less_often_and_one_at_the_tolerance_as_often() {
        let tolerance = LatencyTolerance::default();
        for (_, quantile) in QUANTILES {
            let (stable, canary) = slow_rates(quantile, 1.0, tolerance);
            assert!(canary < 0.8 * stable, "{stable} {canary}");
            let (stable, canary) = slow_rates(quantile, tolerance.times(), tolerance);
            assert!((canary / stable - 1.0).abs() < 0.01, "{stable} {canary}");
            assert!(slow_rates(quantile, 3.0, tolerance).1 > 3.0 * stable.min(0.3));
        }
    }
}
