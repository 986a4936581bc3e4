//! What both arms did of late, for charts: sampled from what is counted anyway, here and by the gateways that share the store. What
//! was before this gateway's start is put together from the store's record of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::pages::evidence::progress;
use crate::admin::pages::past::{Cell, Past};
use crate::api::FlagStatus;
use crate::clock;
use crate::flag::{Arm, BackendName, FlagKey, Generation};
use crate::outcome::{LATENCY_BUCKETS, LatencyHistogram, Tally};
use crate::recorder::{Recorder, Served};
use crate::rollout::Rollouts;
use crate::store::StoreError;

/// How often there is a sample of the last minutes, and how many are kept: ten minutes.
const RECENT: (Duration, usize) = (Duration::from_secs(2), 300);

/// The same of the last day: samples of five minutes.
const DAY: (Duration, usize) = (Duration::from_secs(300), 288);

/// Seconds of the store's record that are read at once.
const PAGE: i64 = 3600;

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

/// What was counted up to some moment.
#[derive(Debug, Clone, Default)]
struct Counted {
    own: BTreeMap<Served, Tally>,
    others: BTreeMap<(FlagKey, Generation), [Tally; 2]>,
}

impl Counted {
    fn now(recorder: &Recorder, rollouts: &Rollouts) -> Self {
        Self { own: recorder.totals(), others: rollouts.counts_of_others() }
    }

    /// What an arm of `flag` has counted since `before`.
    fn since(&self, before: &Self, flag: &Watched, arm: Arm) -> Tally {
        let served = (flag.key.clone(), flag.backend(arm).clone());
        let mut sum = minus(self.own.get(&served), before.own.get(&served));
        for (at, counted) in self.others.iter().filter(|((key, _), _)| *key == flag.key) {
            sum.add(&minus(Some(of_arm(counted, arm)), before.others.get(at).map(|counted| of_arm(counted, arm))));
        }
        sum
    }
}

fn of_arm([stable, canary]: &[Tally; 2], arm: Arm) -> &Tally {
    match arm {
        Arm::Stable => stable,
        Arm::Canary => canary,
    }
}

/// What came to a tally since it was as `before`, as far as charts show it.
fn minus(now: Option<&Tally>, before: Option<&Tally>) -> Tally {
    let none = Tally::default();
    let (now, before) = (now.unwrap_or(&none), before.unwrap_or(&none));
    let bucket = |bucket| now.latency.bucket(bucket).saturating_sub(before.latency.bucket(bucket));
    let latency = LatencyHistogram::new(
        (0..LATENCY_BUCKETS).map(bucket).collect(),
        now.latency.sum_us().saturating_sub(before.latency.sum_us()),
    );
    Tally {
        successes: now.successes.saturating_sub(before.successes),
        failures: now.failures.saturating_sub(before.failures),
        latency,
        ..none
    }
}

/// A flag that samples are taken of.
#[derive(Debug, Clone)]
struct Watched {
    key: FlagKey,
    stable: BackendName,
    canary: BackendName,
    standing: Standing,
}

impl Watched {
    fn of(flag: &FlagStatus) -> Option<Self> {
        Some(Self {
            key: flag.key.parse().ok()?,
            stable: flag.arms.stable.backend.parse().ok()?,
            canary: flag.arms.canary.backend.parse().ok()?,
            standing: Standing { evidence: furthest(flag), share: flag.percentage / 100.0 },
        })
    }

    fn backend(&self, arm: Arm) -> &BackendName {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }
}

/// The samples of one span of time.
#[derive(Debug)]
pub(crate) struct Trend {
    period: Duration,
    capacity: usize,
    before: Counted,
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
        Self { period, capacity, before: Counted::default(), looked: None, samples: VecDeque::new() }
    }

    /// Takes a sample if it is time.
    fn look(&mut self, now: Instant, counted: &Counted, flags: &[Watched]) {
        let Some(looked) = self.looked else {
            (self.looked, self.before) = (Some(now), counted.clone());
            return;
        };
        let elapsed = now.saturating_duration_since(looked);
        // A tick that comes a little early is as good.
        if elapsed + self.period / 10 < self.period {
            return;
        }
        let arms = flags.iter().flat_map(|flag| Arm::BOTH.map(|arm| (flag, arm)));
        let arms = arms.filter_map(|(flag, arm)| {
            let point = point(&counted.since(&self.before, flag, arm), elapsed)?;
            Some(((flag.key.clone(), flag.backend(arm).clone()), point))
        });
        let standings = flags.iter().map(|flag| (flag.key.clone(), flag.standing));
        let sample = Sample { at: now, arms: arms.collect(), flags: standings.collect() };
        if self.samples.len() >= self.capacity {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        (self.looked, self.before) = (Some(now), counted.clone());
    }

    /// Puts what was before the first sample in its place; `now` is the second `second`.
    fn recall(&mut self, past: Past, flags: &[Watched], now: Instant, second: i64) {
        for (end, cells) in past.into_samples() {
            let age = Duration::from_secs(u64::try_from(second.saturating_sub(end)).unwrap_or(0));
            let Some(at) = now.checked_sub(age).filter(|_| self.samples.len() < self.capacity) else { return };
            let mut sample = Sample { at, arms: BTreeMap::new(), flags: BTreeMap::new() };
            for (flag, Cell { arms: [stable, canary], share }) in
                flags.iter().filter_map(|flag| Some((flag, cells.get(&flag.key)?)))
            {
                sample.flags.insert(flag.key.clone(), Standing { evidence: None, share: *share });
                for (arm, [requests, failures]) in [(Arm::Stable, *stable), (Arm::Canary, *canary)] {
                    let counted = Tally { successes: requests.saturating_sub(failures), failures, ..Tally::default() };
                    if let Some(point) = point(&counted, self.period) {
                        sample.arms.insert((flag.key.clone(), flag.backend(arm).clone()), point);
                    }
                }
            }
            self.samples.push_front(sample);
        }
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

/// What an arm did that counted this in that time; nothing without requests.
fn point(counted: &Tally, elapsed: Duration) -> Option<Point> {
    let requests = counted.requests();
    if requests == 0 {
        return None;
    }
    let millis = |q| counted.latency.quantile(q).map(|latency| latency.as_secs_f64() * 1000.0);
    Some(Point {
        rate: requests as f64 / elapsed.as_secs_f64(),
        error_rate: counted.failures as f64 / requests as f64,
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
        let started = clock::wall().as_second();
        let mut recalled = false;
        let mut ticks = interval(RECENT.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            let flags: Vec<_> = rollouts.flags().iter().filter_map(Watched::of).collect();
            let (now, counted) = (clock::now(), Counted::now(&recorder, &rollouts));
            self.recent.lock().look(now, &counted, &flags);
            self.day.lock().look(now, &counted, &flags);
            // A store that cannot be read yet is asked again with the next sample.
            if !recalled {
                tokio::select! {
                    done = self.recall(&rollouts, &flags, started) => recalled = done.is_ok(),
                    _ = shutdown.wait_for(|stop| *stop) => return,
                }
            }
        }
    }

    /// Puts together from the store what was before the second `started`.
    async fn recall(&self, rollouts: &Rollouts, flags: &[Watched], started: i64) -> Result<(), StoreError> {
        let second = clock::wall().as_second();
        let past = |(period, capacity): (Duration, usize)| {
            let period = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
            let span = period.saturating_mul(i64::try_from(capacity).unwrap_or(i64::MAX));
            (Past::new(period, second.saturating_sub(span)), second.saturating_sub(span))
        };
        let ((mut recent, _), (mut day, mut from)) = (past(RECENT), past(DAY));
        while from < started {
            let until = started.min(from + PAGE);
            for Watched { key, .. } in flags {
                let seconds = rollouts.seconds_between(key, from, until).await?;
                recent.add(key, &seconds);
                day.add(key, &seconds);
            }
            from = until;
        }
        let now = clock::now();
        self.recent.lock().recall(recent, flags, now, second);
        self.day.lock().recall(day, flags, now, second);
        Ok(())
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
        let standing = Standing { evidence: None, share: 0.1 };
        let flag = Watched { key: key.clone(), stable: stable.clone(), canary: canary.clone(), standing };
        let start = clock::now();
        for second in [0_u64, 1, 2, 4, 6, 8] {
            let own = tally(second * 50, second * 10, Duration::from_millis(10));
            // Of two generations, each of which counts from nothing.
            let others = [1, 2].map(|number| {
                let counted = tally(second * 25, 0, Duration::from_millis(10));
                ((key.clone(), Generation::new(number)), [Tally::default(), counted])
            });
            let own = BTreeMap::from([((key.clone(), canary.clone()), own)]);
            let counted = Counted { own, others: BTreeMap::from(others) };
            trend.look(start + Duration::from_secs(second), &counted, std::slice::from_ref(&flag));
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
