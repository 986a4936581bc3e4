//! The synchronous implementation: Diesel, on blocking threads, behind a bounded pool.

mod pool;
mod questions;

use std::sync::Arc;

use diesel::RunQueryDsl;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sqlite::SqliteConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::backend::config::PoolConfig;
use crate::backend::database_url::DatabaseUrl;
use crate::backend::diesel::pool::{Manager, Pool};
use crate::backend::selection::{BUSY_TIMEOUT, PoolState, Question, Selection, StoreError};

pub(crate) use crate::backend::diesel::pool::connect;

/// The question bank through Diesel.
#[derive(Debug)]
pub(crate) struct SyncStore {
    pool: Pool,
    config: PoolConfig,
    /// One permit for each connection. Requests wait here, where waiting costs no thread; whoever holds a permit finds
    /// a connection free or room to open one.
    permits: Arc<Semaphore>,
    /// `SQLite` has one writer at a time and lets the others poll for the lock; standing in line is fairer and faster.
    write_turn: Arc<Semaphore>,
}

impl SyncStore {
    pub(crate) fn new(url: &DatabaseUrl, config: PoolConfig) -> Self {
        let permits = usize::try_from(config.limit()).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self {
            pool: pool::build(Manager::new(url.path(), config.recycle), config),
            config,
            permits: Arc::new(Semaphore::new(permits)),
            write_turn: Arc::new(Semaphore::new(1)),
        }
    }

    pub(crate) async fn take_questions(&self, wanted: Selection) -> Result<Vec<Question>, StoreError> {
        let place = self.place().await?;
        let turn = match timeout(BUSY_TIMEOUT, Arc::clone(&self.write_turn).acquire_owned()).await {
            Ok(turn) => turn.map_err(|closed| StoreError::Unavailable(closed.into()))?,
            Err(elapsed) => return Err(StoreError::Busy(elapsed.into())),
        };
        self.run(place, move |connection| {
            let taken = connection.immediate_transaction(|c| questions::take(c, &wanted));
            drop(turn);
            taken
        })
        .await
    }

    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let place = self.place().await?;
        self.run(place, |connection| diesel::sql_query("SELECT 1").execute(connection).map(drop)).await
    }

    pub(crate) fn pool(&self) -> PoolState {
        let state = self.pool.state();
        PoolState::new(self.config, state.connections, state.idle_connections)
    }

    pub(crate) async fn close(&self) {
        // Holding every permit means that no work is in flight.
        let everyone = self.permits.acquire_many(self.config.limit()).await;
        self.permits.close();
        drop(everyone);
    }

    /// Waits for the right to use a connection.
    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        match timeout(self.config.timeout, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(place) => place.map_err(|closed| StoreError::Unavailable(closed.into())),
            Err(elapsed) => Err(StoreError::Unavailable(elapsed.into())),
        }
    }

    /// Does `work` with a connection on a blocking thread.
    ///
    /// It runs to its end even if the caller goes away.
    async fn run<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, DieselError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (pool, config) = (self.pool.clone(), self.config);
        let done = tokio::task::spawn_blocking(move || {
            let mut slot = pool.get().map_err(|error| StoreError::Unavailable(error.into()))?;
            let result = work(slot.connection()).map_err(classify);
            // Two at once may both see the last place; the pool is then one over, until the next return sees that.
            if pool.state().idle_connections >= config.size {
                slot.retire();
            }
            // The connection is back before the next in line may look for it.
            drop(slot);
            drop(place);
            result
        });
        done.await.map_err(|stopped| StoreError::Database(stopped.into()))?
    }
}

/// Sorts an error by what a client can do about it.
fn classify(error: DieselError) -> StoreError {
    // Diesel passes SQLite's words on but not its code, SQLITE_BUSY.
    let busy = matches!(
        &error,
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info)
            if info.message().starts_with("database is locked")
    );
    if busy { StoreError::Busy(error.into()) } else { StoreError::Database(error.into()) }
}
