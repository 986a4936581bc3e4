//! What a backend is started with.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::backend::ai::AiConfig;
use crate::backend::error::Error;
use crate::backend::fault::Fault;

/// Connections that a pool keeps; the contract's default.
const DEFAULT_SIZE: u32 = 20;

/// Connections that a pool may open beyond those it keeps; the contract's default.
const DEFAULT_MAX_OVERFLOW: u32 = 30;

/// How long a request waits for a connection; the contract's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How old a connection may grow; the contract's default.
const DEFAULT_RECYCLE: Duration = Duration::from_secs(3600);

/// Whether a connection is tried before it is lent; the contract's default.
const DEFAULT_PRE_PING: bool = true;

/// Which of the two implementations answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Diesel on blocking threads.
    Sync,
    /// sqlx.
    Async,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sync => "sync",
            Self::Async => "async",
        })
    }
}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sync" => Ok(Self::Sync),
            "async" => Ok(Self::Async),
            _ => Err(ParseModeError(text.to_owned())),
        }
    }
}

/// The text names no [`Mode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode `{0}`; use sync or async")]
pub struct ParseModeError(String);

/// How many connections there may be, and for how long; the same meaning in both modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections kept open once they were needed.
    pub size: u32,
    /// Connections that may be open beyond `size`. They close as they come back to a pool that has `size` free ones; of
    /// several that come back at the same moment one may stay, and goes with the next.
    pub max_overflow: u32,
    /// How long a request waits for a connection before it is answered with 503.
    pub timeout: Duration,
    /// Age at which a connection is replaced the next time it would be used.
    pub recycle: Duration,
    /// Whether a connection has to answer a ping before it is lent: one more round trip, and no request meets a
    /// connection that broke while nobody used it.
    pub pre_ping: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            size: DEFAULT_SIZE,
            max_overflow: DEFAULT_MAX_OVERFLOW,
            timeout: DEFAULT_TIMEOUT,
            recycle: DEFAULT_RECYCLE,
            pre_ping: DEFAULT_PRE_PING,
        }
    }
}

impl PoolConfig {
    /// The most connections that are ever open at once.
    pub(crate) fn limit(&self) -> u32 {
        self.size.saturating_add(self.max_overflow)
    }

    /// Refuses figures that would leave every request waiting in vain.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.limit() == 0 {
            return Err(Error::Pool("size and max_overflow allow no connection at all"));
        }
        if self.timeout.is_zero() {
            return Err(Error::Pool("timeout must be longer than zero"));
        }
        if self.recycle.is_zero() {
            return Err(Error::Pool("recycle must be longer than zero"));
        }
        Ok(())
    }
}

/// What a backend is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which implementation answers.
    pub mode: Mode,
    /// Where the data is: `sqlite://path`, relative to the working directory unless the path begins with `/`, or
    /// `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// Whether the start migrates the database; if not, it refuses one that is not up to date.
    pub migrate: bool,
    /// The connection pool.
    pub pool: PoolConfig,
    /// What is asked for analyses and questions; without it, they are made offline.
    pub ai: Option<AiConfig>,
    /// How to misbehave on purpose.
    pub fault: Fault,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_they_are_read() {
        for mode in [Mode::Sync, Mode::Async] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("Sync".parse::<Mode>().unwrap_err().to_string(), "unknown mode `Sync`; use sync or async");
    }

    #[track_caller]
    fn check(pool: PoolConfig, complaint: Option<&str>) {
        let found = pool.check().err().map(|error| error.to_string());
        assert_eq!(found.as_deref(), complaint, "{pool:?}");
    }

    #[test]
    fn a_pool_that_could_never_serve_is_refused() {
        let sound = PoolConfig::default();
        check(sound, None);
        check(PoolConfig { size: 0, ..sound }, None);
        check(
            PoolConfig { size: 0, max_overflow: 0, ..sound },
            Some("the connection pool cannot work: size and max_overflow allow no connection at all"),
        );
        check(
            PoolConfig { timeout: Duration::ZERO, ..sound },
            Some("the connection pool cannot work: timeout must be longer than zero"),
        );
        check(
            PoolConfig { recycle: Duration::ZERO, ..sound },
            Some("the connection pool cannot work: recycle must be longer than zero"),
        );
    }
}
