//! r2d2, taught to keep `size` connections and to replace old ones on time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::r2d2::{ManageConnection, NopErrorHandler};
use diesel::result::ConnectionError;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection, RunQueryDsl};

use crate::backend::config::PoolConfig;
use crate::backend::selection::BUSY_TIMEOUT;
use crate::clock;

/// A pool of Diesel connections.
pub(crate) type Pool = diesel::r2d2::Pool<Manager>;

/// A pool that opens connections as they are needed.
pub(crate) fn build(manager: Manager, config: PoolConfig) -> Pool {
    diesel::r2d2::Pool::builder()
        .max_size(config.limit())
        .min_idle(Some(0))
        .connection_timeout(config.timeout)
        // Age is checked as a connection is taken out, and every return decides what is kept: no reaper is needed.
        .max_lifetime(None)
        .idle_timeout(None)
        // The last error comes back with the timeout, and is logged once, there.
        .error_handler(Box::new(NopErrorHandler))
        .build_unchecked(manager)
}

/// Opens one connection, set up as every connection must be.
pub(crate) fn connect(path: &Path) -> Result<SqliteConnection, ManagerError> {
    let mut connection = SqliteConnection::establish(&path.to_string_lossy())?;
    // The timeout leads, since the other two may already meet a lock.
    connection.batch_execute(&format!(
        "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL;",
        BUSY_TIMEOUT.as_millis()
    ))?;
    Ok(connection)
}

/// Opens and checks connections for r2d2.
#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
    recycle: Duration,
}

impl Manager {
    pub(crate) fn new(path: &Path, recycle: Duration) -> Self {
        Self { path: path.to_owned(), recycle }
    }
}

impl ManageConnection for Manager {
    type Connection = Slot;
    type Error = ManagerError;

    fn connect(&self) -> Result<Slot, ManagerError> {
        Ok(Slot { connection: connect(&self.path)?, opened: clock::now(), used: false, retired: false })
    }

    /// Called before a connection is handed out; one that fails is replaced by the next or by a new one.
    fn is_valid(&self, slot: &mut Slot) -> Result<(), ManagerError> {
        if !slot.used {
            // It was opened for this very request, whatever else became of it since.
            slot.used = true;
            return Ok(());
        }
        if clock::now().duration_since(slot.opened) >= self.recycle {
            return Err(ManagerError::Aged);
        }
        diesel::sql_query("SELECT 1").execute(&mut slot.connection)?;
        Ok(())
    }

    /// Called as a connection comes back; one that is broken is closed.
    fn has_broken(&self, slot: &mut Slot) -> bool {
        slot.retired || diesel::r2d2::R2D2Connection::is_broken(&mut slot.connection)
    }
}

/// A pooled connection.
pub(crate) struct Slot {
    connection: SqliteConnection,
    opened: Instant,
    used: bool,
    retired: bool,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("opened", &self.opened)
            .field("used", &self.used)
            .field("retired", &self.retired)
            .finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Has the connection closed when it comes back, rather than kept.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
    }
}

/// Why a connection cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError {
    /// The file cannot be opened.
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectionError),
    /// A statement failed.
    #[error("the connection does not work: {0}")]
    Query(#[from] diesel::result::Error),
    /// The connection has reached the age at which it is replaced.
    #[error("the connection is due to be replaced")]
    Aged,
}
