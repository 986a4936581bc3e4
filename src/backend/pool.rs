//! The connection pool, once for both modes, so that its figures mean the same in both.
//!
//! deadpool keeps the connections. What is added here: those beyond `size` close as they come back, and a connection
//! is replaced at the age `recycle` and, with `pre_ping`, when it does not answer.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType, Timeouts,
};
use serde::Serialize;

use crate::backend::config::PoolConfig;
use crate::backend::failure::{Cause, Class, StoreError};

/// How long a connection may take to be made or to answer a ping; longer counts as lost.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Opens connections of one mode, and checks them.
pub(crate) trait Connect: Send + Sync + 'static {
    /// A connection.
    type Connection: Send;

    /// Opens a connection and sets it up.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, Cause>> + Send;

    /// Sees whether the connection still works.
    fn ping(&self, connection: &mut Self::Connection) -> impl Future<Output = Result<(), Cause>> + Send;
}

/// What deadpool calls.
#[derive(Debug)]
pub(crate) struct Keeper<C> {
    connect: C,
    recycle: Duration,
    pre_ping: bool,
}

impl<C: Connect> Manager for Keeper<C> {
    type Type = C::Connection;
    type Error = Cause;

    async fn create(&self) -> Result<C::Connection, Cause> {
        self.connect.open().await
    }

    async fn recycle(&self, connection: &mut C::Connection, metrics: &Metrics) -> RecycleResult<Cause> {
        if metrics.age() >= self.recycle {
            return Err(RecycleError::message("it has reached the age at which it is replaced"));
        }
        if self.pre_ping {
            self.connect.ping(connection).await.map_err(RecycleError::Backend)?;
        }
        Ok(())
    }
}

/// A pool of connections.
pub(crate) struct Pool<C: Connect> {
    inner: deadpool::managed::Pool<Keeper<C>>,
    config: PoolConfig,
}

impl<C: Connect> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<C: Connect> Pool<C> {
    /// An empty pool; connections are opened as they are needed.
    pub(crate) fn new(connect: C, config: PoolConfig) -> Result<Self, Cause> {
        let keeper = Keeper { connect, recycle: config.recycle, pre_ping: config.pre_ping };
        let inner = deadpool::managed::Pool::builder(keeper)
            .max_size(usize::try_from(config.limit()).unwrap_or(usize::MAX))
            // The one used last is the one most likely alive, and those beyond the need grow old together.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Self { inner, config })
    }

    /// Waits at most `patience` for a connection.
    pub(crate) async fn lease(&self, patience: Duration) -> Result<Lease<C>, StoreError> {
        let limit = Some(patience.min(CONNECT_LIMIT));
        let timeouts = Timeouts { wait: Some(patience), create: limit, recycle: limit };
        let object = self.inner.timeout_get(&timeouts).await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) | PoolError::Closed => {
                StoreError::before(Class::Exhausted, error.to_string())
            }
            PoolError::Backend(cause) => StoreError::before(Class::ConnectionLost, cause),
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                StoreError::before(Class::ConnectionLost, error.to_string())
            }
        })?;
        Ok(Lease { object: Some(object), pool: self.inner.clone(), size: self.config.size })
    }

    /// The pool as it is now.
    pub(crate) fn state(&self) -> PoolState {
        let status = self.inner.status();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        // Those that are being opened for somebody count as at work.
        let (open, idle) = (count(status.size), count(status.available));
        PoolState { waiting: count(status.waiting), ..PoolState::new(self.config, open, idle) }
    }

    /// Gives out no more connections, and closes the free ones.
    pub(crate) fn close(&self) {
        self.inner.close();
    }
}

/// A connection on loan; it goes back when dropped.
pub(crate) struct Lease<C: Connect> {
    /// `None` only while it is being dropped.
    object: Option<Object<Keeper<C>>>,
    pool: deadpool::managed::Pool<Keeper<C>>,
    size: u32,
}

impl<C: Connect> Lease<C> {
    /// Closes the connection instead of giving it back.
    pub(crate) fn discard(mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

impl<C: Connect> Deref for Lease<C> {
    type Target = Option<Object<Keeper<C>>>;

    fn deref(&self) -> &Self::Target {
        &self.object
    }
}

impl<C: Connect> DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.object
    }
}

impl<C: Connect> Drop for Lease<C> {
    fn drop(&mut self) {
        // Two at once may both see the last place; the pool is then one over, until the next return sees that.
        let kept = u32::try_from(self.pool.status().available).unwrap_or(u32::MAX);
        if kept >= self.size
            && let Some(object) = self.object.take()
        {
            drop(Object::take(object));
        }
    }
}

/// A pool's connections at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolState {
    /// Connections that are kept.
    pub(crate) size: u32,
    /// Connections that may be open beyond those.
    pub(crate) max_overflow: u32,
    /// Connections at work, or being opened for it.
    pub(crate) checked_out: u32,
    /// Connections that are open and free.
    pub(crate) idle: u32,
    /// Connections open beyond `size`.
    pub(crate) overflow: u32,
    /// Requests that wait for a connection.
    pub(crate) waiting: u32,
}

impl PoolState {
    fn new(config: PoolConfig, open: u32, idle: u32) -> Self {
        Self {
            size: config.size,
            max_overflow: config.max_overflow,
            checked_out: open.saturating_sub(idle),
            idle: idle.min(open),
            overflow: open.saturating_sub(config.size),
            waiting: 0,
        }
    }

    /// The share of the connections that there may be which are at work, from 0 to 1.
    pub(crate) fn used(&self) -> f64 {
        let limit = self.size.saturating_add(self.max_overflow);
        f64::from(self.checked_out) / f64::from(limit.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(open: u32, idle: u32, expected: (u32, u32, u32)) {
        let config = PoolConfig { size: 2, max_overflow: 3, ..PoolConfig::default() };
        let state = PoolState::new(config, open, idle);
        assert_eq!((state.checked_out, state.idle, state.overflow), expected);
    }

    #[test]
    fn a_pools_figures_add_up() {
        check(0, 0, (0, 0, 0));
        check(2, 2, (0, 2, 0));
        check(5, 1, (4, 1, 3));
        // The two figures are read one after the other and may disagree for a moment.
        check(1, 2, (0, 1, 0));
    }
}
