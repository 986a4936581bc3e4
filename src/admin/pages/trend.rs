//! What both arms did of late, for charts: sampled from what is counted anyway.
//!
//! It is what this gateway has seen since its start. The record that outlives it is the store's (`seconds`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::pages::evidence::progress;
use crate::api::FlagStatus;
use crate::clock;
use crate::flag::{BackendName, FlagKey};
use crate::outcome::{LATENCY_BUCKETS, LatencyHistogram, Tally};
use crate::recorder::{Recorder, Served};
use crate::rollout::Rollouts;

/// How often there is a sample of the last minutes, and how many are kept: ten minutes.
const RECENT: (Duration, usize) = (Duration::from_secs(2), 300);

/// The same of the last day: samples of five minutes.
const DAY: (Duration, usize) = (Duration::from_secs(300), 288);

/// What an arm did in one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Requests that count, a second.
    pub(crate) rate: f64,
    /// The share of them that failed.
    pub(crate) error_rate: f64,
    /// The median latency in milliseconds.
    pub(crate) p50_ms: Option<f64>,
    /// The 99th percentile.
    pub(crate) p99_ms: Option<f64>,
}

/// The samples of one span of time.
#[derive(Debug)]
pub(crate) struct Trend {
    period: Duration,
    capacity: usize,
    before: BTreeMap<Served, Tally>,
    looked: Option<Instant>,
    samples: VecDeque<Sample>,
}

/// All flags in one span between two looks. An arm without requests is not in it.
#[derive(Debug)]
struct Sample {
    at: Instant,
    arms: BTreeMap<Served, Point>,
    flags: BTreeMap<FlagKey, Standing>,
}

/// Where a rollout stood.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// How far the evidence against the canary had come, 0 to 1.
    evidence: Option<f64>,
    /// The share of users on canary, 0 to 1.
    share: f64,
}

/// A flag's samples, oldest first: when, as a share of the span from 0 to 1, and what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct History {
    /// The stable arm's.
    pub(crate) stable: Vec<(f64, Option<Point>)>,
    /// The canary's.
    pub(crate) canary: Vec<(f64, Option<Point>)>,
    /// How far the evidence had come.
    pub(crate) evidence: Vec<(f64, Option<f64>)>,
    /// The share of users on canary, 0 to 1.
    pub(crate) share: Vec<(f64, Option<f64>)>,
    /// How long the whole span is, in seconds.
    pub(crate) span_s: f64,
}

impl Trend {
    fn new((period, capacity): (Duration, usize)) -> Self {
        Self { period, capacity, before: BTreeMap::new(), looked: None, samples: VecDeque::new() }
    }

    /// Takes a sample if it is time.
    fn look(&mut self, now: Instant, totals: &BTreeMap<Served, Tally>, flags: &[FlagStatus]) {
        let Some(looked) = self.looked else {
            (self.looked, self.before) = (Some(now), totals.clone());
            return;
        };
        let elapsed = now.saturating_duration_since(looked);
        // A tick that comes a little early is as good.
        if elapsed + self.period / 10 < self.period {
            return;
        }
        let point = |(served, tally): (&Served, &Tally)| {
            Some((served.clone(), point(tally, self.before.get(served), elapsed)?))
        };
        let standing = |flag: &FlagStatus| Standing { evidence: furthest(flag), share: flag.percentage / 100.0 };
        let flags = flags.iter().filter_map(|flag| Some((flag.key.parse().ok()?, standing(flag)))).collect();
        let sample = Sample { at: now, arms: totals.iter().filter_map(point).collect(), flags };
        if self.samples.len() >= self.capacity {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        (self.looked, self.before) = (Some(now), totals.clone());
    }

    fn of(&self, key: &FlagKey, stable: &BackendName, canary: &BackendName, now: Instant) -> History {
        let whole = self.period.as_secs_f64() * self.capacity as f64;
        let mut history = History { span_s: whole, ..History::default() };
        for sample in &self.samples {
            let place = 1.0 - now.saturating_duration_since(sample.at).as_secs_f64() / whole;
            if place < 0.0 {
                continue;
            }
            let arm = |backend: &BackendName| sample.arms.get(&(key.clone(), backend.clone())).copied();
            history.stable.push((place, arm(stable)));
            history.canary.push((place, arm(canary)));
            let standing = sample.flags.get(key);
            history.evidence.push((place, standing.and_then(|standing| standing.evidence)));
            history.share.push((place, standing.map(|standing| standing.share)));
        }
        history
    }
}

/// How far the evidence of a flag's furthest check has come.
fn furthest(flag: &FlagStatus) -> Option<f64> {
    flag.evidence.iter().map(progress).reduce(f64::max)
}

fn point(tally: &Tally, before: Option<&Tally>, elapsed: Duration) -> Option<Point> {
    let none = Tally::default();
    let before = before.unwrap_or(&none);
    let requests = tally.requests().saturating_sub(before.requests());
    if requests == 0 {
        return None;
    }
    let failures = tally.failures.saturating_sub(before.failures);
    let counts = (0..LATENCY_BUCKETS)
        .map(|bucket| tally.latency.bucket(bucket).saturating_sub(before.latency.bucket(bucket)))
        .collect();
    let latency = LatencyHistogram::new(counts, tally.latency.sum_us().saturating_sub(before.latency.sum_us()));
    let millis = |q| latency.quantile(q).map(|latency| latency.as_secs_f64() * 1000.0);
    Some(Point {
        rate: requests as f64 / elapsed.as_secs_f64(),
        error_rate: failures as f64 / requests as f64,
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
    })
}

/// The last minutes and the last day.
#[derive(Debug)]
pub(crate) struct Trends {
    recent: Mutex<Trend>,
    day: Mutex<Trend>,
}

impl Default for Trends {
    fn default() -> Self {
        Self { recent: Mutex::new(Trend::new(RECENT)), day: Mutex::new(Trend::new(DAY)) }
    }
}

/// How far back a chart goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// Ten minutes.
    Recent,
    /// A day.
    Day,
}

impl Trends {
    /// Samples until `shutdown` turns true.
    pub(crate) async fn sample_until(
        &self,
        recorder: Arc<Recorder>,
        rollouts: Arc<Rollouts>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut ticks = interval(RECENT.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            let (now, totals, flags) = (clock::now(), recorder.totals(), rollouts.flags());
            self.recent.lock().look(now, &totals, &flags);
            self.day.lock().look(now, &totals, &flags);
        }
    }

    /// What became of a flag's arms in a window.
    pub(crate) fn of(&self, flag: &FlagStatus, window: Window) -> History {
        let trend = match window {
            Window::Recent => &self.recent,
            Window::Day => &self.day,
        };
        let names = (flag.key.parse(), flag.arms.stable.backend.parse(), flag.arms.canary.backend.parse());
        let (Ok(key), Ok(stable), Ok(canary)) = names else { return History::default() };
        trend.lock().of(&key, &stable, &canary, clock::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::latency_bucket;

    fn tally(requests: u64, failures: u64, latency: Duration) -> Tally {
        let mut counts = vec![0; LATENCY_BUCKETS];
        counts[latency_bucket(latency)] = requests;
        let latency = LatencyHistogram::new(counts, 0);
        Tally { successes: requests - failures, failures, latency, ..Tally::default() }
    }

    #[test]
    fn samples_are_differences_of_totals() {
        let mut trend = Trend::new((Duration::from_secs(2), 3));
        let (key, stable, canary): (FlagKey, BackendName, BackendName) =
            ("f".parse().unwrap(), "sync".parse().unwrap(), "async".parse().unwrap());
        let start = clock::now();
        for second in [0_u64, 1, 2, 4, 6, 8] {
            let total = tally(second * 100, second * 10, Duration::from_millis(10));
            let totals = BTreeMap::from([((key.clone(), canary.clone()), total)]);
            trend.look(start + Duration::from_secs(second), &totals, &[]);
        }
        let history = trend.of(&key, &stable, &canary, start + Duration::from_secs(8));
        assert!((history.span_s - 6.0).abs() < 1e-9);
        assert_eq!(history.canary.len(), 3, "the oldest is forgotten");
        let (place, point) = history.canary[2];
        let point = point.unwrap();
        assert_eq!((place, point.rate, point.error_rate), (1.0, 100.0, 0.1));
        assert!(point.p50_ms.unwrap() >= 10.0);
        assert!(history.stable.iter().all(|(_, point)| point.is_none()), "no requests, no point");
    }
}
