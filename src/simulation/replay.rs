//! A release that really was, judged again: from what was counted of it second by second.

use std::time::Duration;

use crate::judge::{Absolute, Check, Counts, Rate, Sample, Settings, Trial};
use crate::simulation::contender::Method;
use crate::simulation::world::TICK;

/// What was counted in one second, by all gateways.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplaySecond {
    /// The time since the release's first second.
    pub at: Duration,
    /// The comparisons with stable; shares are parts of 1.
    pub samples: Vec<Sample>,
    /// What was held against absolute limits.
    pub absolute: Vec<(Absolute, Counts)>,
    /// All requests to the canary, and the failures of it that users met.
    pub traffic: Counts,
}

/// Where a release would have been stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The time since the release's first second.
    pub at: Duration,
    /// Requests to the canary until then, and the failures that users met.
    pub traffic: Counts,
    /// The judge's reason.
    pub cause: Option<Check>,
}

/// Where the judge would have stopped the release under `settings`, if anywhere. Seconds are its ticks here.
#[must_use]
pub fn replay(settings: &Settings, seconds: &[ReplaySecond]) -> Option<Stop> {
    let mut trial = Trial::new(settings);
    let mut traffic = Counts::default();
    for second in seconds {
        trial.observe(second.at, &second.samples);
        for (absolute, canary) in &second.absolute {
            trial.observe_canary(*absolute, *canary);
        }
        trial.observe_traffic(second.traffic.requests, second.traffic.failures);
        traffic = traffic.plus(second.traffic);
        if let Some(cause) = trial.report().worse() {
            return Some(Stop { at: second.at, traffic, cause: Some(cause) });
        }
    }
    None
}

/// Where `method` would have stopped the release, if anywhere, at a probability of a false stop of `alpha`. Nothing for the
/// judge, which needs its settings.
#[must_use]
pub fn replay_rival(method: Method, alpha: Rate, seconds: &[ReplaySecond]) -> Option<Stop> {
    let mut contender = method.rival()?;
    let limit = method.limit(alpha.as_share(), alpha.as_share());
    let (mut traffic, mut next) = (Counts::default(), 0);
    let ticks_per_second = u64::try_from(Duration::from_secs(1).as_millis() / TICK.as_millis()).unwrap_or(1);
    for second in seconds {
        let first = second.at.as_secs() * ticks_per_second;
        // What nobody asked for is as good as nothing; more of it than the longest window makes no difference.
        let mut value = f64::NEG_INFINITY;
        for tick in next.max(first.saturating_sub(MAX_GAP_TICKS))..first {
            contender.observe(tick, &[]);
        }
        traffic = traffic.plus(second.traffic);
        for tick in first..first + ticks_per_second {
            let samples = if tick == first { second.samples.as_slice() } else { &[] };
            value = value.max(contender.observe(tick, samples));
        }
        next = first + ticks_per_second;
        if value >= limit {
            return Some(Stop { at: second.at, traffic, cause: None });
        }
    }
    None
}

/// Longer than what any method remembers tick by tick.
const MAX_GAP_TICKS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Stream, StreamSettings, Tolerance};

    fn counts(requests: u64, failures: u64) -> Counts {
        Counts { requests, failures }
    }

    fn release(bad_from: u64) -> Vec<ReplaySecond> {
        let second = |at: u64| {
            let canary = counts(50, if at >= bad_from { 25 } else { 1 });
            ReplaySecond {
                at: Duration::from_secs(at),
                samples: vec![Sample { stream: Stream::Errors, share: 0.1, stable: counts(450, 9), canary }],
                absolute: vec![(Absolute::Errors, canary)],
                traffic: canary,
            }
        };
        (0..120).map(second).collect()
    }

    fn settings() -> Settings {
        let (tolerance, history) = (Tolerance::default(), Counts::default());
        Settings {
            false_rollback: Rate::from_share(0.001).unwrap(),
            streams: vec![StreamSettings { stream: Stream::Errors, tolerance, history }],
            ..Settings::default()
        }
    }

    #[test]
    fn a_bad_release_is_stopped_soon_and_a_good_one_never() {
        let stop = replay(&settings(), &release(60)).unwrap();
        assert_eq!((stop.at.as_secs(), stop.cause), (60, Some(Check::WorseThanStable(Stream::Errors))));
        assert_eq!(stop.traffic, counts(61 * 50, 85));
        assert_eq!(replay(&settings(), &release(1000)), None);
        let budget = Settings { harm_budget: Some(100), streams: vec![], ..settings() };
        let stop = replay(&budget, &release(60)).unwrap();
        assert_eq!((stop.at.as_secs(), stop.cause), (61, Some(Check::HarmBudget)));
    }

    #[test]
    fn the_others_stop_it_too() {
        let alpha = Rate::from_share(0.001).unwrap();
        for method in [Method::Window, Method::ZTest, Method::Label] {
            let stop = replay_rival(method, alpha, &release(60)).unwrap();
            assert!((60..75).contains(&stop.at.as_secs()), "{method:?}: {stop:?}");
            assert_eq!(replay_rival(method, alpha, &release(1000)), None, "{method:?}");
        }
        assert_eq!(replay_rival(Method::Judge, alpha, &release(0)), None);
    }
}
