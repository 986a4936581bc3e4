//! A circuit breaker: while the database is away, requests are answered at once and it is left in peace.
//!
//! Closed, everything passes. [`THRESHOLD`] failures to connect in a row open it: everything is refused for a while.
//! Then one request passes as a probe; its success closes the breaker, its failure opens it for twice as long, up to
//! [`LONGEST`]. (Nygard: "Release It!", 2nd ed., section 5.2.)

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

/// So many lost connections in a row mean that the database is away, and not that one connection had grown stale.
const THRESHOLD: u32 = 5;

/// How long an opened breaker refuses before it probes.
const SHORTEST: Duration = Duration::from_millis(250);

/// The longest time between two probes: how late the way back may be noticed.
const LONGEST: Duration = Duration::from_secs(2);

/// How long a probe is waited for before another may go; one that was dropped must not block the way back.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What a breaker does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BreakerState {
    /// Everything passes.
    Closed,
    /// Everything is refused.
    Open,
    /// One request is trying the way back, and everything else is refused.
    Probing,
}

/// A circuit breaker shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { until: Instant, pause: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Lets a request pass, or says how long to stay away.
    pub(crate) fn pass(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until, pause } | State::Probing { until, pause } => {
                let left = until.saturating_duration_since(now);
                if left.is_zero() {
                    *state = State::Probing { until: now + PROBE_LIMIT, pause };
                    Ok(())
                } else {
                    // A probe's limit is no forecast: it mostly ends at once.
                    Err(left.min(pause))
                }
            }
        }
    }

    /// Hears how a request that passed ended: whether the database was reached.
    pub(crate) fn heard(&self, now: Instant, reached: bool) {
        let mut state = self.state.lock();
        *state = match (*state, reached) {
            (_, true) => State::Closed { failures: 0 },
            (State::Closed { failures }, false) if failures.saturating_add(1) < THRESHOLD => {
                State::Closed { failures: failures.saturating_add(1) }
            }
            (State::Closed { .. }, false) => State::Open { until: now + SHORTEST, pause: SHORTEST },
            (State::Probing { pause, .. }, false) => {
                let pause = pause.saturating_mul(2).min(LONGEST);
                State::Open { until: now + pause, pause }
            }
            // A straggler from before it opened.
            (open @ State::Open { .. }, false) => open,
        };
    }

    /// What it does now.
    pub(crate) fn state(&self) -> BreakerState {
        match *self.state.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::Probing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            breaker.pass(now).unwrap();
            breaker.heard(now, false);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let now = clock::now();
        let breaker = Breaker::default();
        for _ in 0..100 {
            breaker.heard(now, false);
            breaker.heard(now, true);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(opened(now).pass(now), Err(SHORTEST));
    }

    #[test]
    fn one_probe_finds_the_way_back() {
        let now = clock::now();
        let breaker = opened(now);
        let later = now + SHORTEST;
        assert_eq!(breaker.pass(later), Ok(()));
        assert_eq!(breaker.state(), BreakerState::Probing);
        assert!(breaker.pass(later).is_err(), "one probe at a time");
        breaker.heard(later, true);
        assert_eq!((breaker.state(), breaker.pass(later)), (BreakerState::Closed, Ok(())));
    }

    #[test]
    fn probes_grow_rarer_up_to_a_limit() {
        let mut now = clock::now();
        let breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            now += breaker.pass(now).unwrap_err();
            breaker.pass(now).unwrap();
            breaker.heard(now, false);
            pauses.push(breaker.pass(now).unwrap_err().as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 2000, 2000]);
    }

    #[test]
    fn a_lost_probe_is_replaced() {
        let now = clock::now();
        let breaker = opened(now);
        breaker.pass(now + SHORTEST).unwrap();
        assert_eq!(breaker.pass(now + SHORTEST + PROBE_LIMIT), Ok(()));
    }
}
