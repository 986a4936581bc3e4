//! Contenders run through the same made-up releases, many times.

use std::thread;

use crate::judge::{Aside, Counts, Rate, Stream, Tolerance};
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
    /// The judge's absolute limit, if it has one.
    pub max_error_rate: Option<Rate>,
    /// After so many failures of the canary the judge stops whatever else it finds.
    pub harm_budget: Option<u64>,
    /// Before so many requests to the canary the judge stops for nothing else.
    pub min_requests: u64,
    /// What the judge sets aside, as a gateway does that knows its users.
    pub aside: Aside,
    /// The probability of a false stop that the methods are set to: alpha, above 0 and below 1.
    pub false_rollback: Rate,
    /// The tick from which on the canary is worse; 0 from the start.
    pub change: u64,
    /// How many ticks a try lasts at most.
    pub ticks: u64,
    /// How many tries.
    pub tries: u64,
    /// The seed.
    pub seed: u64,
    /// Who runs.
    pub lineup: Lineup,
}

/// Who runs in a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineup {
    /// All methods.
    All,
    /// The judge alone, which is quicker.
    Judge,
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

impl Tries {
    /// The share of tries that were stopped before any change, by `method` in `race`, had its limit been that for `alpha`.
    #[must_use]
    pub fn false_stops(&self, method: Method, race: &Race<'_>, alpha: f64) -> f64 {
        let limit = method.limit(alpha, race.false_rollback.as_share());
        let stopped = self.highest_before.iter().filter(|value| **value >= limit).count();
        stopped as f64 / self.highest_before.len().max(1) as f64
    }

    /// The share of tries that a change was seen in, of those that got so far.
    #[must_use]
    pub fn seen(&self) -> f64 {
        self.delays.iter().flatten().count() as f64 / self.delays.len().max(1) as f64
    }

    /// The mean of what `of` says about the tries that a change was seen in; nothing if there is none.
    #[must_use]
    pub fn mean(&self, of: impl Fn(&Delay) -> u64) -> Option<f64> {
        let seen = self.delays.iter().flatten().count();
        let sum: u64 = self.delays.iter().flatten().map(of).sum();
        (seen > 0).then(|| sum as f64 / seen as f64)
    }

    /// The value that nine in ten of those tries do not exceed.
    #[must_use]
    pub fn ninth_decile(&self, of: impl Fn(&Delay) -> u64) -> Option<u64> {
        let mut values: Vec<_> = self.delays.iter().flatten().map(of).collect();
        values.sort_unstable();
        values.get(values.len() * 9 / 10).copied()
    }
}

impl Race<'_> {
    /// Runs all tries on `threads` threads and gives each method's, in [`METHODS`]' order.
    #[must_use]
    pub fn run(&self, threads: u64) -> [Tries; METHODS.len()] {
        let mut all: [Tries; METHODS.len()] = Default::default();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|first| {
                    let step = usize::try_from(threads).unwrap_or(1);
                    let mine = (first..self.tries).step_by(step);
                    scope.spawn(move || mine.map(|index| self.run_one(index)).collect::<Vec<_>>())
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

    fn run_one(&self, index: u64) -> [Lane; METHODS.len()] {
        let mut chance = Chance::new(self.seed, index);
        let mut lanes = METHODS.map(|method| Lane::new(method, self));
        let (mut traffic, mut samples, mut canary) = (Vec::new(), Vec::new(), Counts::default());
        let (mut crowd, mut heard) = (self.world.gather(), Vec::new());
        for tick in 0..self.ticks {
            samples.clear();
            heard.clear();
            match &mut crowd {
                Some(crowd) => crowd.draw(&mut chance, &mut samples, &mut heard),
                None => self.world.draw(tick, &mut chance, &mut traffic, &mut samples),
            }
            let changed = tick >= self.change;
            if changed {
                let errors = samples.iter().filter(|sample| sample.stream == Stream::Errors);
                canary = errors.fold(canary, |sum, sample| sum.plus(sample.canary));
            }
            let mut running = false;
            for (method, lane) in METHODS.into_iter().zip(&mut lanes) {
                if self.lineup == Lineup::Judge && method != Method::Judge {
                    continue;
                }
                if lane.stopped.is_some() || (changed && lane.highest >= lane.limit) {
                    continue;
                }
                // Of users, the judge hears less than all: that is its answer to those who come again and again.
                let told = if method == Method::Judge && crowd.is_some() { &heard } else { &samples };
                let value = lane.contender.observe(tick, told);
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
    fn new(method: Method, race: &Race<'_>) -> Self {
        let (contender, alpha) = (method.begin(race), race.false_rollback.as_share());
        Self { contender, limit: method.limit(alpha, alpha), highest: f64::NEG_INFINITY, stopped: None }
    }
}
