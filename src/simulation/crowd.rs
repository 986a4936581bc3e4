//! Made-up users, for what depends on who asks: one client that always fails, and clients that retry in bursts.
//!
//! What the judge hears of them is decided by the very tables that decide it in a gateway.

use crate::flag::Arm;
use crate::judge::{Counts, Sample, Stream};
use crate::recorder::{Unit, Units};
use crate::simulation::chance::Chance;
use crate::simulation::world::TICK;

/// How many users there are beside the one who always fails.
const USERS: u64 = 5_000;

/// The probability that a retry comes within the same tick; otherwise it comes in the next.
const AT_ONCE: f64 = 0.7;

/// The probability that it fails like the request before it.
const AGAIN: f64 = 0.9;

/// Users, each with an arm for good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Crowd {
    /// Requests a second on average, retries not counted.
    pub(crate) rps: f64,
    /// The share of users on canary.
    pub(crate) share: f64,
    /// The probability that a request fails.
    pub(crate) fail: f64,
    /// How often one is retried that failed.
    pub(crate) retries: u64,
    /// Requests a second of one user on canary who always fails.
    pub(crate) poison_rps: f64,
}

/// A crowd in one try.
#[derive(Debug)]
pub(crate) struct Gathered {
    crowd: Crowd,
    units: Units,
    retrying: Vec<u64>,
}

/// What happened in a tick: all of it, and what the judge hears.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    all: [Counts; 2],
    heard: [Counts; 2],
}

impl Gathered {
    pub(crate) fn new(crowd: Crowd) -> Self {
        Self { crowd, units: Units::default(), retrying: Vec::new() }
    }

    /// Draws a tick: `samples` get all that happens, `heard` what the judge hears of it.
    pub(crate) fn draw(&mut self, chance: &mut Chance, samples: &mut Vec<Sample>, heard: &mut Vec<Sample>) {
        let mut told = Told::default();
        let mut asking = std::mem::take(&mut self.retrying);
        asking.retain(|user| self.ask(*user, AGAIN, chance, &mut told));
        let seconds = TICK.as_secs_f64();
        for _ in 0..chance.poisson(self.crowd.rps * seconds) {
            let user = chance.below(USERS);
            if self.ask(user, self.crowd.fail, chance, &mut told) {
                for _ in 0..self.crowd.retries {
                    if chance.happens(AT_ONCE) {
                        self.ask(user, AGAIN, chance, &mut told);
                    } else {
                        self.retrying.push(user);
                    }
                }
            }
        }
        if self.crowd.poison_rps > 0.0 {
            for _ in 0..chance.poisson(self.crowd.poison_rps * seconds) {
                // Numbered below everybody's share of the canary, whose place it takes.
                self.ask(0, 1.0, chance, &mut told);
            }
        }
        self.units.next_block();
        let sample =
            |[stable, canary]: [Counts; 2]| Sample { stream: Stream::Errors, share: self.crowd.share, stable, canary };
        samples.push(sample(told.all));
        heard.push(sample(told.heard));
    }

    /// One request; whether it failed.
    fn ask(&self, user: u64, fail: f64, chance: &mut Chance, told: &mut Told) -> bool {
        let (arm, index) =
            if (user as f64) < self.crowd.share * USERS as f64 { (Arm::Canary, 1) } else { (Arm::Stable, 0) };
        let failed = chance.happens(fail);
        let unit = Unit::from_hash(scramble(user));
        let counts = Counts { requests: 1, failures: u64::from(failed) };
        let add = |all: &mut [Counts; 2]| all.get_mut(index).map(|sum| *sum = sum.plus(counts));
        add(&mut told.all);
        if self.units.admit(arm, unit) {
            add(&mut told.heard);
            if failed {
                self.units.fail(arm, unit);
            }
        }
        failed
    }
}

/// A hash of a user's number: the finaliser of `SplitMix64`.
fn scramble(user: u64) -> u64 {
    let word = user.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All and heard failures of the canary in ten minutes.
    fn failures(crowd: Crowd) -> (u64, u64) {
        let (mut gathered, mut chance) = (Gathered::new(crowd), Chance::new(3, 5));
        let (mut all, mut heard) = (Vec::new(), Vec::new());
        (0..6000).for_each(|_| gathered.draw(&mut chance, &mut all, &mut heard));
        let sum = |samples: &[Sample]| samples.iter().map(|sample| sample.canary.failures).sum();
        (sum(&all), sum(&heard))
    }

    #[test]
    fn what_one_client_does_over_and_over_is_hardly_heard() {
        let crowd = Crowd { rps: 200.0, share: 0.1, fail: 0.01, retries: 0, poison_rps: 0.0 };
        let (all, heard) = failures(crowd);
        assert!((90..150).contains(&all) && heard * 10 >= all * 9, "{all} {heard}");
        let (all, poisoned) = failures(Crowd { poison_rps: 20.0, ..crowd });
        assert!(all > 11_000 && poisoned < heard + 40, "{all} {poisoned}");
        let (all, retried) = failures(Crowd { retries: 5, ..crowd });
        assert!(all > 500 && retried < heard * 5 / 2, "{all} {retried}");
    }
}
