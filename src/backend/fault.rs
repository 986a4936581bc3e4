//! Misbehaviour on purpose, for drills.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::SignedDuration;

/// The longest delay that may be asked for: longer than any gateway's patience, short enough to be no typing error.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// How a backend misbehaves; by default not at all.
///
/// Written as `error=30%,delay=200ms,query=10ms`; each part may be left out. Only paths under `/api/` are hit, so that probes
/// keep telling the truth.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fault {
    /// The share of requests that fail, in percent, as it was written.
    error_percent: f64,
    delay: Duration,
    /// How much longer each transaction takes.
    query: Duration,
}

impl Fault {
    /// Whether nothing is to go wrong.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// How long every answer is held back.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// How much longer each transaction takes, with its connection held.
    pub fn query(&self) -> Duration {
        self.query
    }

    /// Whether a request fails, given an even draw from [0, 1).
    pub(crate) fn strikes(&self, draw: f64) -> bool {
        draw * 100.0 < self.error_percent
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error={}%,delay={}ms", self.error_percent, self.delay.as_millis())?;
        if !self.query.is_zero() {
            write!(f, ",query={}ms", self.query.as_millis())?;
        }
        Ok(())
    }
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut error, mut delay, mut query) = (None, None, None);
        for part in text.split(',').map(str::trim) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(ParseFaultError::Part(part.to_owned()));
            };
            let repeated = match key {
                "error" => error.replace(percentage(value)?).is_some(),
                "delay" => delay.replace(duration(value)?).is_some(),
                "query" => query.replace(duration(value)?).is_some(),
                _ => return Err(ParseFaultError::Key(key.to_owned())),
            };
            if repeated {
                return Err(ParseFaultError::Repeated(key.to_owned()));
            }
        }
        Ok(Self {
            error_percent: error.unwrap_or_default(),
            delay: delay.unwrap_or_default(),
            query: query.unwrap_or_default(),
        })
    }
}

/// Why a text is no [`Fault`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseFaultError {
    /// A part is not `key=value`.
    #[error("`{0}` is not key=value; write a fault as error=30%,delay=200ms")]
    Part(String),
    /// A key is none of `error`, `delay` and `query`.
    #[error("unknown fault `{0}`; known are error, delay and query")]
    Key(String),
    /// A key is given twice.
    #[error("`{0}` is given twice")]
    Repeated(String),
    /// The share of errors is not a percentage from 0 % to 100 %.
    #[error("error `{0}` is not a percentage from 0% to 100%")]
    Percentage(String),
    /// The delay is not a duration within bounds.
    #[error("delay `{0}` is not a duration from 0ms to 60s")]
    Delay(String),
}

fn percentage(text: &str) -> Result<f64, ParseFaultError> {
    text.strip_suffix('%')
        .and_then(|percent| percent.parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| ParseFaultError::Percentage(text.to_owned()))
}

fn duration(text: &str) -> Result<Duration, ParseFaultError> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|delay| Duration::try_from(delay).ok())
        .filter(|delay| *delay <= MAX_DELAY)
        .ok_or_else(|| ParseFaultError::Delay(text.to_owned()))
}

/// A source of even draws that repeats itself from the same seed.
///
/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): its state is a
/// plain counter, so one atomic addition serves every thread without a lock.
#[derive(Debug)]
pub(crate) struct Chance {
    state: AtomicU64,
}

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// The next draw from [0, 1).
    pub(crate) fn draw(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        // Relaxed: each draw needs a place of its own in the sequence, and nothing else is read through it.
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 32 bits convert without loss and are fine enough for a percentage.
        let upper = u32::try_from(z >> 32).unwrap_or(u32::MAX);
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = text.parse::<Fault>();
        let written = found.as_ref().map(ToString::to_string).map_err(ToString::to_string);
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(written, expected, "{text}");
        if let Ok(fault) = found {
            assert_eq!(fault.to_string().parse(), Ok(fault), "{text}");
        }
    }

    #[test]
    fn faults_are_read_strictly() {
        check("error=30%,delay=200ms", Ok("error=30%,delay=200ms"));
        check("delay=1s, error=12.5%", Ok("error=12.5%,delay=1000ms"));
        check("error=7%", Ok("error=7%,delay=0ms"));
        check("error=0%", Ok("error=0%,delay=0ms"));
        check("query=10ms", Ok("error=0%,delay=0ms,query=10ms"));
        check("delay=60s", Ok("error=0%,delay=60000ms"));
        check("", Err("`` is not key=value; write a fault as error=30%,delay=200ms"));
        check("error", Err("`error` is not key=value; write a fault as error=30%,delay=200ms"));
        check("eror=3%", Err("unknown fault `eror`; known are error, delay and query"));
        check("error=1%,error=2%", Err("`error` is given twice"));
        for bad in ["30", "-1%", "100.1%", "NaN%", "inf%", "%", "x%"] {
            check(&format!("error={bad}"), Err(&format!("error `{bad}` is not a percentage from 0% to 100%")));
        }
        for bad in ["200", "-1ms", "61s", "soon", ""] {
            check(&format!("delay={bad}"), Err(&format!("delay `{bad}` is not a duration from 0ms to 60s")));
        }
    }

    #[test]
    fn the_asked_share_strikes() {
        for (text, low, high) in [("error=0%", 0, 0), ("error=30%", 2_850, 3_150), ("error=100%", 10_000, 10_000)] {
            let fault: Fault = text.parse().unwrap();
            let chance = Chance::new(7);
            let struck = (0..10_000).filter(|_| fault.strikes(chance.draw())).count();
            assert!((low..=high).contains(&struck), "{text}: {struck}");
        }
    }

    #[test]
    fn no_fault_is_none() {
        assert!(Fault::default().is_none());
        assert!(!"delay=1ms".parse::<Fault>().unwrap().is_none());
    }
}
