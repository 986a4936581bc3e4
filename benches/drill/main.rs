//! A drill on the running gateway: a canary begins to fail half of its requests. How many fail, how many users notice, and
//! how soon after the outcome that decided does the last request reach it?
//!
//! Starts the real binary with two scripted upstreams for each share of traffic and each rate of requests, and prints a
//! table. Run it with `cargo bench --bench drill`, and with `--profile dist --features mimalloc` for what is shipped;
//! `-- ROUNDS` changes how often each case is tried, `-- ROUNDS SHARE RATE` tries one case. All cases take some three
//! minutes a round.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a drill fails by panicking")]
#![expect(clippy::print_stdout, reason = "a drill prints its figures")]

mod gateway;
mod upstream;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::gateway::Gateway;
use crate::upstream::Upstream;

const DEFAULT_ROUNDS: usize = 3;

/// The canary's shares, in percent, and the requests a second.
const SHARES: [f64; 3] = [1.0, 10.0, 50.0];
const RATES: [f64; 2] = [50.0, 1000.0];

/// How long both arms are well before the canary breaks.
const WELL: Duration = Duration::from_secs(3);

/// A case that is not over by then is given up. The slowest takes some ten canary requests, which are 20 s.
const LIMIT: Duration = Duration::from_secs(180);

/// How long traffic goes on after the rollback: whatever reached the canary until then counts.
const AFTER: Duration = Duration::from_millis(1500);

/// The judge's tick.
const TICK: Duration = Duration::from_millis(100);

/// From the deciding outcome to the last request of the canary, at most: 100 ms and a tick.
const GOAL: Duration = Duration::from_millis(200);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers: Vec<f64> = arguments.iter().map(|text| text.parse().unwrap()).collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "such a cast stops at the ends of a usize"
    )]
    let rounds = numbers.first().map_or(DEFAULT_ROUNDS, |number| *number as usize);
    let cases: Vec<(f64, f64)> = match numbers.as_slice() {
        [_, share, rate] => vec![(*share, *rate)],
        _ => RATES.into_iter().flat_map(|rate| SHARES.map(|share| (share, rate))).collect(),
    };
    drill(&cases, rounds);
}

/// What came of one round.
#[derive(Debug)]
struct Round {
    /// Canary requests from the break to the last.
    requests: usize,
    /// How many of them the canary failed.
    failures: usize,
    /// How many requests of users ended in a 5xx.
    seen: u64,
    /// From the break to the rollback.
    until: Duration,
    /// From the last outcome before the rollback to the last request of the canary.
    after_last: Duration,
    /// The same from the earliest outcome that the deciding look can have been the first to see.
    after_first: Duration,
}

#[tokio::main]
async fn drill(cases: &[(f64, f64)], rounds: usize) {
    println!("half of the canary's answers become 500; {rounds} rounds; mean, and [highest]\n");
    println!(
        "{:>6} {:>6} {:>18} {:>16} {:>16} {:>18} {:>24} {:>24}",
        "share",
        "req/s",
        "canary requests",
        "failures",
        "users saw",
        "until rollback s",
        "last outcome → out ms",
        "earliest → out ms"
    );
    let mut worst = Duration::ZERO;
    for (share, rate) in cases {
        let mut tried = Vec::new();
        for _ in 0..rounds {
            tried.extend(timeout(LIMIT, round(*share, *rate)).await.ok());
        }
        if tried.len() < rounds {
            println!(
                "{share:>5}% {rate:>6} {} of {rounds} rounds were not over after {} s",
                rounds - tried.len(),
                LIMIT.as_secs()
            );
        }
        let figure = |of: fn(&Round) -> f64, decimals: usize| {
            let values: Vec<f64> = tried.iter().map(of).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            format!("{mean:.decimals$} [{:.decimals$}]", values.iter().copied().fold(0.0, f64::max))
        };
        println!(
            "{share:>5}% {rate:>6} {:>18} {:>16} {:>16} {:>18} {:>24} {:>24}",
            figure(|round| round.requests as f64, 1),
            figure(|round| round.failures as f64, 1),
            figure(|round| round.seen as f64, 1),
            figure(|round| round.until.as_secs_f64(), 2),
            figure(|round| round.after_last.as_secs_f64() * 1e3, 0),
            figure(|round| round.after_first.as_secs_f64() * 1e3, 0),
        );
        worst = tried.iter().map(|round| round.after_first).fold(worst, Duration::max);
    }
    let met = if worst <= GOAL { "met" } else { "missed" };
    println!(
        "\nfrom the deciding outcome to the last request of the canary: {} ms at most; the goal of {} ms is {met}",
        worst.as_millis(),
        GOAL.as_millis()
    );
}

#[expect(clippy::disallowed_methods, reason = "a drill reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

async fn round(share: f64, rate: f64) -> Round {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let gateway = Arc::new(Gateway::start(stable.address(), canary.address(), share).await);
    let (done, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn(send(Arc::clone(&gateway), rate, Arc::clone(&done), Arc::clone(&failed)));

    sleep(WELL).await;
    let broken = now();
    canary.break_down();
    failed.store(0, Ordering::Relaxed);
    let mut looks = interval(Duration::from_millis(20));
    let rolled_back = loop {
        looks.tick().await;
        if let Some(at) = gateway.rolled_back_at().await {
            break at;
        }
    };
    sleep(AFTER).await;
    done.store(true, Ordering::Relaxed);
    load.await.unwrap();

    let since = |later: SystemTime, earlier: SystemTime| later.duration_since(earlier).unwrap_or_default();
    let answers: Vec<_> = canary.answers().into_iter().filter(|answer| answer.at >= broken).collect();
    let last = answers.iter().map(|answer| answer.at).max().unwrap_or(broken);
    let deciding = || answers.iter().map(|answer| answer.at).filter(|at| *at <= rolled_back);
    let after_last = deciding().max().map_or(Duration::ZERO, |outcome| since(last, outcome));
    // The look before saw everything that was older than a tick.
    let earliest = deciding().filter(|at| since(rolled_back, *at) <= TICK).min().or_else(|| deciding().max());
    Round {
        requests: answers.len(),
        failures: answers.iter().filter(|answer| answer.failed).count(),
        seen: failed.load(Ordering::Relaxed),
        until: since(rolled_back, broken),
        after_last,
        after_first: earliest.map_or(Duration::ZERO, |outcome| since(last, outcome)),
    }
}

/// Sends `rate` requests a second, each of another user, whatever becomes of those before.
async fn send(gateway: Arc<Gateway>, rate: f64, done: Arc<AtomicBool>, failed: Arc<AtomicU64>) {
    let mut beats = interval(Duration::from_secs_f64(1.0 / rate));
    beats.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    for user in 0_u64.. {
        beats.tick().await;
        if done.load(Ordering::Relaxed) {
            break;
        }
        let (gateway, failed) = (Arc::clone(&gateway), Arc::clone(&failed));
        under_way.spawn(async move {
            if gateway.ask(user).await >= 500 {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}
