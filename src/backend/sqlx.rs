//! The asynchronous implementation: sqlx.

mod questions;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqlitePool};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backend::config::PoolConfig;
use crate::backend::database_url::DatabaseUrl;
use crate::backend::selection::{BUSY_TIMEOUT, PoolState, Question, Selection, StoreError};

/// `SQLite`'s primary result code for a lock that somebody else holds.
const SQLITE_BUSY: u32 = 5;

/// The question bank through sqlx.
#[derive(Debug)]
pub(crate) struct AsyncStore {
    pool: SqlitePool,
    config: PoolConfig,
    /// `SQLite` has one writer at a time and lets the others poll for the lock; standing in line is fairer and faster.
    write_turn: Semaphore,
}

impl AsyncStore {
    pub(crate) fn new(url: &DatabaseUrl, config: PoolConfig) -> Self {
        let connection = SqliteConnectOptions::new()
            .filename(url.path())
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new()
            .max_connections(config.limit())
            .min_connections(0)
            .acquire_timeout(config.timeout)
            .max_lifetime(config.recycle)
            // sqlx itself looks at the age of a connection only as it comes back and now and then in between.
            .before_acquire(move |_connection, meta| Box::pin(async move { Ok(meta.age < config.recycle) }))
            .idle_timeout(None)
            .connect_lazy_with(connection);
        Self { pool, config, write_turn: Semaphore::new(1) }
    }

    pub(crate) async fn take_questions(&self, wanted: &Selection) -> Result<Vec<Question>, StoreError> {
        let mut connection = self.acquire().await?;
        let turn = match timeout(BUSY_TIMEOUT, self.write_turn.acquire()).await {
            Ok(turn) => turn.map_err(|closed| StoreError::Unavailable(closed.into()))?,
            Err(elapsed) => return Err(StoreError::Busy(elapsed.into())),
        };
        let result = async {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let questions = questions::take(&mut transaction, wanted).await?;
            transaction.commit().await?;
            Ok(questions)
        }
        .await
        .map_err(classify);
        drop(turn);
        self.release(connection);
        result
    }

    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.acquire().await?;
        let result = sqlx::query("SELECT 1").execute(&mut *connection).await.map(drop).map_err(classify);
        self.release(connection);
        result
    }

    pub(crate) fn pool(&self) -> PoolState {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        PoolState::new(self.config, self.pool.size(), idle)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    async fn acquire(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.pool.acquire().await.map_err(|error| StoreError::Unavailable(error.into()))
    }

    /// Gives a connection back, to be kept only if there is room among the `size` that are.
    ///
    /// Two at once may both see the last place; the pool is then one over, until the next release sees that.
    fn release(&self, mut connection: PoolConnection<Sqlite>) {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        if idle >= self.config.size {
            connection.close_on_drop();
        }
    }
}

/// Sorts an error by what a client can do about it.
fn classify(error: sqlx::Error) -> StoreError {
    let busy = error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<u32>().ok())
        // The upper bits only refine the primary code.
        .is_some_and(|code| code & 0xff == SQLITE_BUSY);
    if busy { StoreError::Busy(error.into()) } else { StoreError::Database(error.into()) }
}
