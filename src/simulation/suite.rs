//! The releases that the judge is proven on: ones where nothing is wrong, and ones where something goes wrong.

use crate::judge::{LatencyTolerance, Rate, Tolerance};
use crate::simulation::crowd::Crowd;
use crate::simulation::race::{Lineup, Race};
use crate::simulation::world::{TICK, Traffic, World, history, slow_rates};

/// How thoroughly the suite is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A sample of the cases, few tries each: seconds.
    Quick,
    /// Everything: some five minutes on two cores.
    Full,
}

/// Requests a second where a case says nothing else: 50 a tick.
const RPS: f64 = 500.0;

/// Requests before a late change.
const LATE: f64 = 100_000.0;

/// A release in which nothing is wrong.
#[derive(Debug)]
pub struct Calm {
    /// What happens.
    pub world: World,
    /// What the judge tolerates.
    pub tolerance: Tolerance,
    /// How long it lasts.
    pub ticks: u64,
}

impl Calm {
    /// The race of this case. No change ever comes.
    #[must_use]
    pub fn race(&self, false_rollback: Rate, tries: u64, seed: u64, lineup: Lineup) -> Race<'_> {
        let Self { ref world, tolerance, ticks } = *self;
        Race {
            world,
            tolerance,
            max_error_rate: None,
            harm_budget: None,
            min_requests: 0,
            aside: world.aside(),
            false_rollback,
            change: ticks,
            ticks,
            tries,
            seed,
            lineup,
        }
    }
}

/// A release in which the canary gets worse.
#[derive(Debug)]
pub struct Change {
    /// What happens.
    pub world: World,
    /// What the judge tolerates.
    pub tolerance: Tolerance,
    /// The tick from which on the canary is worse.
    pub tick: u64,
    /// Requests a second after it.
    pub rps: f64,
    /// The canary's share after it.
    pub share: f64,
    /// The rates of stable and canary after it.
    pub rates: (f64, f64),
    /// Canary requests before it.
    pub before: f64,
}

impl Change {
    /// What information theory asks for: `W = (ln(1/alpha) + ln(1 + u)) / I` canary requests, with `u` the failures above the
    /// allowed rate that the canary's requests before the change would have had (Lorden 1971).
    #[must_use]
    pub fn needed(&self, alpha: f64) -> f64 {
        let (p0, p1) = self.rates;
        let spent = self.before * (p1 - self.tolerance.allowed(p0)).max(0.0);
        (spent.ln_1p() - alpha.ln()) / self.tolerance.information(self.share, p0, p1)
    }

    /// How many canary requests come in a tick.
    #[must_use]
    pub fn tick_worth(&self) -> f64 {
        self.rps * self.share * TICK.as_secs_f64()
    }

    /// The goal: `1.3 W + 2` and one tick's worth.
    #[must_use]
    pub fn goal(&self, alpha: f64) -> f64 {
        1.3 * self.needed(alpha) + 2.0 + self.tick_worth()
    }

    /// What is a must: `1.5 W + 3` and two ticks' worth.
    #[must_use]
    pub fn bound(&self, alpha: f64) -> f64 {
        1.5 * self.needed(alpha) + 3.0 + 2.0 * self.tick_worth()
    }

    /// The race of this case, with about as many tries as `budget` ticks allow, from 40 to `most`.
    #[must_use]
    pub fn race(&self, false_rollback: Rate, budget: f64, most: u64, seed: u64) -> Race<'_> {
        let Self { ref world, tolerance, tick: change, .. } = *self;
        // Four times what is needed and half a minute: what has not been seen by then is counted as not seen.
        let ticks = change + whole(4.0 * self.needed(false_rollback.as_share()) / self.tick_worth()) + 300;
        let tries = whole(budget / ticks as f64).clamp(40.min(most), most);
        Race {
            world,
            tolerance,
            max_error_rate: None,
            harm_budget: None,
            min_requests: 0,
            aside: world.aside(),
            false_rollback,
            change,
            ticks,
            tries,
            seed,
            lineup: Lineup::All,
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a cast stops at the ends of a u64")]
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

fn seconds(tick: u64) -> f64 {
    tick as f64 * TICK.as_secs_f64()
}

/// All of the cases, or of every so many one, which is enough for a quick look.
fn some<T>(size: Size, all: Vec<T>, every: usize) -> Vec<T> {
    match size {
        Size::Quick => all.into_iter().step_by(every).collect(),
        Size::Full => all,
    }
}

/// The cases in which the canary gets worse.
#[must_use]
pub fn changes(size: Size) -> Vec<Change> {
    let mut grid = Vec::new();
    for tolerance in [Tolerance::STRICT, Tolerance::default()] {
        for p0 in [0.001, 0.01, 0.05] {
            // Five times 5 % is 25 %, which is there once.
            let broken = [0.25, 0.5, 1.0].into_iter().filter(|p1| *p1 > 5.1 * p0);
            for p1 in [2.0 * p0, 5.0 * p0].into_iter().chain(broken) {
                for share in [0.01, 0.1, 0.5] {
                    for before in [0.0, LATE] {
                        // What is within the tolerance or next to it is no change.
                        if tolerance.allowed(p0) * 1.3 < p1 {
                            grid.push(plain(tolerance, (p0, p1), share, RPS, before));
                        }
                    }
                }
            }
        }
    }
    let mut cases = some(size, grid, 11);
    for (p0, p1) in [(0.001, 0.05), (0.01, 0.5), (0.01, 1.0)] {
        cases.push(Change::named("10 requests a second", plain(Tolerance::default(), (p0, p1), 0.1, 10.0, 0.0)));
    }
    cases.push(ramp());
    cases.extend([1.5, 2.0, 4.0, 10.0].map(latency));
    cases.push(failing_beside_latency());
    cases.push(after_an_outage());
    cases
}

impl Change {
    fn named(name: &str, mut case: Self) -> Self {
        case.world.name = format!("{name}, {}", case.world.name);
        case
    }
}

/// One gateway, one change.
fn plain(tolerance: Tolerance, rates: (f64, f64), share: f64, rps: f64, requests_before: f64) -> Change {
    let (p0, p1) = rates;
    let tick = whole(requests_before / (rps * TICK.as_secs_f64()));
    let kind = if tolerance == Tolerance::STRICT { "strict" } else { "tolerant" };
    let when = if tick == 0 { "at once" } else { "late" };
    let percent = |share: f64| (share * 1e6).round() / 1e4;
    let name = format!("{} → {} %, share {} %, {when}, {kind}", percent(p0), percent(p1), percent(share));
    let world = World::new(name, history(p0), move |at, traffic| {
        traffic.push(Traffic::plain(rps, share, p0, if at < tick { p0 } else { p1 }));
    });
    Change { world, tolerance, tick, rps, share, rates, before: requests_before * share }
}

/// A ramp over 1, 5, 25 and 50 %, a minute each; the canary breaks at 25 %.
fn ramp() -> Change {
    let (p0, p1, tick) = (0.01, 0.1, 1500);
    let world = World::new("ramp, 1 → 10 % in the third step", history(p0), move |at, traffic| {
        traffic.push(Traffic::plain(RPS, step(at), p0, if at < tick { p0 } else { p1 }));
    });
    let before = RPS * (60.0 * 0.01 + 60.0 * 0.05 + 30.0 * 0.25);
    Change { world, tolerance: Tolerance::default(), tick, rps: RPS, share: 0.25, rates: (p0, p1), before }
}

/// The share of a ramp with a step a minute.
fn step(tick: u64) -> f64 {
    match tick / 600 {
        0 => 0.01,
        1 => 0.05,
        2 => 0.25,
        _ => 0.5,
    }
}

/// A canary that takes `slower` times as long, watched beside failures that stay rare; the rates are those of the line that
/// tells most.
fn latency(slower: f64) -> Change {
    let failing = 0.01;
    let quantile = |quantile| {
        let rates = slow_rates(quantile, slower, LatencyTolerance::default());
        (rates, Tolerance::STRICT.information(0.1, rates.0, rates.1))
    };
    let rates = [0.5, 0.9, 0.99].map(quantile).into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let rates = rates.map_or((0.5, 0.5), |(rates, _)| rates);
    let world = World::new(format!("{slower} times as slow, share 10 %"), history(failing), move |_, traffic| {
        traffic.push(Traffic { slower, ..Traffic::plain(RPS, 0.1, failing, failing) });
    });
    let world = world.with_latency(LatencyTolerance::default());
    Change { world, tolerance: Tolerance::STRICT, tick: 0, rps: RPS, share: 0.1, rates, before: 0.0 }
}

/// More failures, with latency watched too, as in a gateway.
fn failing_beside_latency() -> Change {
    let mut case = plain(Tolerance::default(), (0.01, 0.1), 0.1, RPS, 0.0);
    case.world.name = format!("all four streams, {}", case.world.name);
    case.world = case.world.with_latency(LatencyTolerance::default());
    case
}

/// Both arms fail for a minute; then stable recovers and the canary does not.
fn after_an_outage() -> Change {
    let (p0, p1) = (0.01, 0.5);
    let world = World::new("both fail at 50 %, then only the canary", history(p0), move |at, traffic| {
        let stable = if (600..1200).contains(&at) { p1 } else { p0 };
        let canary = if at < 600 { p0 } else { p1 };
        traffic.push(Traffic::plain(RPS, 0.1, stable, canary));
    });
    let before = RPS * 0.1 * 120.0;
    Change { world, tolerance: Tolerance::default(), tick: 1200, rps: RPS, share: 0.1, rates: (p0, p1), before }
}

/// The cases in which nothing is wrong.
#[must_use]
pub fn calms(size: Size) -> Vec<Calm> {
    let minutes = match size {
        Size::Quick => 2,
        Size::Full => 10,
    };
    let case = |name: &str, rate: f64, tolerance, happens: fn(f64, &mut Vec<Traffic>)| Calm {
        world: World::new(name, history(rate), move |tick, traffic| happens(seconds(tick), traffic)),
        tolerance,
        ticks: minutes * 600,
    };
    let strict = |name: &str, rate, happens| case(name, rate, Tolerance::STRICT, happens);
    let mut cases = vec![
        strict("equal arms, 1 %, share 10 %", 0.01, |_, traffic| traffic.push(Traffic::plain(200.0, 0.1, 0.01, 0.01))),
        strict("equal arms, 5 %, share 1 %", 0.05, |_, traffic| traffic.push(Traffic::plain(500.0, 0.01, 0.05, 0.05))),
        strict("equal arms, 30 %, share 50 %", 0.3, |_, traffic| traffic.push(Traffic::plain(200.0, 0.5, 0.3, 0.3))),
        strict("canary better", 0.05, |_, traffic| traffic.push(Traffic::plain(200.0, 0.1, 0.05, 0.03))),
        strict("outages of both", 0.01, |at, traffic| {
            let rate = if at % 60.0 >= 50.0 { 0.6 } else { 0.01 };
            traffic.push(Traffic::plain(200.0, 0.1, rate, rate));
        }),
        strict("flickering outages of both", 0.01, |at, traffic| {
            let rate = if at % 2.0 >= 1.0 { 0.9 } else { 0.01 };
            traffic.push(Traffic::plain(200.0, 0.1, rate, rate));
        }),
        strict("flickering outages, 10 requests a second", 0.01, |at, traffic| {
            let rate = if at % 2.0 >= 1.0 { 0.9 } else { 0.01 };
            traffic.push(Traffic::plain(10.0, 0.1, rate, rate));
        }),
        strict("drift of both, 0.5 to 8 %", 0.005, |at, traffic| {
            let rate = 0.0425 - 0.0375 * (at / 40.0).cos();
            traffic.push(Traffic::plain(200.0, 0.1, rate, rate));
        }),
        strict("ramp with drift", 0.05, |at, traffic| {
            let (share, rate) = (ramp_share(at), 0.05 / (1.0 + at / 60.0));
            traffic.push(Traffic::plain(200.0, share, rate, rate));
        }),
        strict("ramp with drift, routing lags 20 s", 0.05, |at, traffic| {
            let (told, share, rate) = (ramp_share(at), ramp_share(at - 20.0), 0.05 / (1.0 + at / 60.0));
            traffic.push(Traffic { told, ..Traffic::plain(200.0, share, rate, rate) });
        }),
        case("on the tolerance's boundary, 1 %", 0.01, Tolerance::default(), |_, traffic| {
            traffic.push(Traffic::plain(200.0, 0.1, 0.01, Tolerance::default().allowed(0.01)));
        }),
        case("on the boundary, flickering", 0.01, Tolerance::default(), |at, traffic| {
            let rate = if at % 6.0 >= 3.0 { 0.4 } else { 0.01 };
            traffic.push(Traffic::plain(200.0, 0.5, rate, Tolerance::default().allowed(rate)));
        }),
        strict("two gateways, unequal shares and rates", 0.01, |_, traffic| {
            traffic.extend([Traffic::plain(150.0, 0.5, 0.08, 0.08), Traffic::plain(150.0, 0.05, 0.005, 0.005)]);
        }),
        strict("no canary traffic", 0.01, |_, traffic| traffic.push(Traffic::plain(200.0, 0.0, 0.01, 0.01))),
        strict("very low traffic, 1 request in 2 s", 0.01, |_, traffic| {
            traffic.push(Traffic::plain(0.5, 0.2, 0.02, 0.02));
        }),
        strict("no failures at all", 0.0, |_, traffic| traffic.push(Traffic::plain(200.0, 0.1, 0.0, 0.0))),
        strict("a history that lies: 1 % once, 8 % now", 0.01, |_, traffic| {
            traffic.push(Traffic::plain(200.0, 0.1, 0.08, 0.08));
        }),
    ];
    for (name, slower) in [("all four streams, equal arms", 1.0), ("all four streams, as slow as tolerated", 1.2)] {
        let mut four = strict(name, 0.02, |_, _| {});
        four.world = World::new(name, history(0.02), move |_, traffic| {
            traffic.push(Traffic { slower, ..Traffic::plain(200.0, 0.1, 0.02, 0.02) });
        })
        .with_latency(LatencyTolerance::default());
        cases.push(four);
    }
    let users = Crowd { rps: 200.0, share: 0.1, fail: 0.01, retries: 0, poison_rps: 0.0 };
    for (name, crowd) in [
        ("one client on canary that always fails, 20/s", Crowd { poison_rps: 20.0, ..users }),
        ("each failure is retried five times at once", Crowd { retries: 5, share: 0.5, ..users }),
    ] {
        cases.push(Calm {
            world: World::of(crowd, name, history(0.01)),
            tolerance: Tolerance::STRICT,
            ticks: minutes * 600,
        });
    }
    cases
}

/// The share of a ramp over 1, 10 and 50 %, 40 seconds each.
fn ramp_share(at: f64) -> f64 {
    if at < 40.0 {
        0.01
    } else if at < 80.0 {
        0.1
    } else {
        0.5
    }
}
