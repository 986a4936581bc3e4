//! Made-up traffic: who comes, where it is sent and how it ends.

use std::fmt;
use std::time::Duration;

use crate::judge::{Counts, Sample, Stream};
use crate::simulation::chance::Chance;

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
    /// The same for being slow, in worlds with two streams.
    pub slow: (f64, f64),
}

impl Traffic {
    /// One gateway that routes as it says, and never slowly.
    #[must_use]
    pub fn plain(rps: f64, share: f64, stable: f64, canary: f64) -> Self {
        Self { rps, share, told: share, fail: (stable, canary), slow: (0.0, 0.0) }
    }
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
    happens: Happens,
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
        Self { name: name.into(), streams: vec![Stream::Errors], history, happens: Box::new(happens) }
    }

    /// The same with slow answers watched too.
    #[must_use]
    pub fn with_latency(mut self) -> Self {
        self.streams.push(Stream::LatencyP99);
        self
    }

    /// Draws what happens at `tick` into `samples`, which is emptied before.
    pub(crate) fn draw(&self, tick: u64, chance: &mut Chance, traffic: &mut Vec<Traffic>, samples: &mut Vec<Sample>) {
        traffic.clear();
        samples.clear();
        (self.happens)(tick, traffic);
        for Traffic { rps, share, told, fail, slow } in traffic.iter().copied() {
            let requests = chance.poisson(rps * TICK.as_secs_f64());
            let canary = chance.binomial(requests, share);
            for stream in &self.streams {
                let (stable_rate, canary_rate) = if *stream == Stream::Errors { fail } else { slow };
                let mut end = |requests, rate| Counts { requests, failures: chance.binomial(requests, rate) };
                let (stable, canary) = (end(requests - canary, stable_rate), end(canary, canary_rate));
                samples.push(Sample { stream: *stream, share: told, stable, canary });
            }
        }
    }
}
