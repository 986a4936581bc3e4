//! Contenders run through the same made-up releases, many times.

use std::thread;

use crate::judge::{Counts, Stream, Tolerance};
use crate::simulation::chance::Chance;
use crate::simulation::contender::{Contender, METHODS, Method};
use crate::simulation::world::World;

/// What is run, how often and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Race<'a> {
    /// The release.
    pub world: &'a World,
    /// What the judge tolerates. The others know no tolerance.
    pub tolerance: Tolerance,
    /// The tick from which on the canary is worse; 0 from the start.
    pub change: u64,
    /// How many ticks a try lasts at most.
    pub ticks: u64,
    /// How many tries.
    pub tries: u64,
    /// The seed.
    pub seed: u64,
}

/// How one method did in all tries.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    /// For each try, the highest value before the change.
    pub highest_before: Vec<f64>,
    /// For each try that was not stopped before the change: canary requests from the change to the stop, and failures of
    /// the canary on the way; nothing if it was never stopped.
    pub delays: Vec<Option<Delay>>,
}

/// How soon a try was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// Ticks from the change to the stop, the one of the stop included.
    pub ticks: u64,
    /// Canary requests in them.
    pub canary: Counts,
}

impl Race<'_> {
    /// Runs all tries with limits for `alpha`, on as many threads, each method in [`METHODS`]' order.
    #[must_use]
    pub fn run(&self, alpha: f64, threads: u64) -> [Tries; METHODS.len()] {
        let mut all: [Tries; METHODS.len()] = Default::default();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|first| {
                    let step = usize::try_from(threads).unwrap_or(1);
                    let mine = (first..self.tries).step_by(step);
                    scope.spawn(move || mine.map(|index| self.run_one(index, alpha)).collect::<Vec<_>>())
                })
                .collect();
            for tries in workers.into_iter().filter_map(|worker| worker.join().ok()).flatten() {
                for (method, lane) in all.iter_mut().zip(tries) {
                    method.highest_before.push(lane.highest);
                    if lane.highest < lane.limit {
                        method.delays.push(lane.stopped);
                    }
                }
            }
        });
        all
    }

    fn run_one(&self, index: u64, alpha: f64) -> [Lane; METHODS.len()] {
        let mut chance = Chance::new(self.seed, index);
        let mut lanes = METHODS.map(|method| Lane::new(method, self, alpha));
        let (mut traffic, mut samples, mut canary) = (Vec::new(), Vec::new(), Counts::default());
        for tick in 0..self.ticks {
            self.world.draw(tick, &mut chance, &mut traffic, &mut samples);
            let changed = tick >= self.change;
            if changed {
                let errors = samples.iter().filter(|sample| sample.stream == Stream::Errors);
                canary = errors.fold(canary, |sum, sample| sum.plus(sample.canary));
            }
            let mut running = false;
            for lane in &mut lanes {
                if lane.stopped.is_some() || (changed && lane.highest >= lane.limit) {
                    continue;
                }
                let value = lane.contender.observe(tick, &samples);
                if !changed {
                    lane.highest = lane.highest.max(value);
                } else if value >= lane.limit {
                    lane.stopped = Some(Delay { ticks: tick - self.change + 1, canary });
                }
                running |= lane.stopped.is_none();
            }
            if !running {
                break;
            }
        }
        lanes
    }
}

/// A method in one try.
struct Lane {
    contender: Box<dyn Contender + Send>,
    limit: f64,
    highest: f64,
    stopped: Option<Delay>,
}

impl Lane {
    fn new(method: Method, race: &Race<'_>, alpha: f64) -> Self {
        let contender = method.begin(race.world, race.tolerance);
        Self { contender, limit: method.limit(alpha), highest: f64::NEG_INFINITY, stopped: None }
    }
}
