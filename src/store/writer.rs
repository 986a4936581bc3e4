//! The one connection that writes.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use crate::store::database::Connection;
use crate::store::postgres::PostgresServer;
use crate::store::sqlite::SqliteFile;
use crate::store::{StoreError, within};

/// Where the writing connection leads.
#[derive(Debug)]
pub(crate) enum Source {
    Sqlite(SqliteFile),
    Postgres(PostgresServer),
}

impl Source {
    fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(file) => file.check(),
            Self::Postgres(server) => server.check(),
        }
    }

    async fn connect(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite(file) => file.connect().await,
            Self::Postgres(server) => server.connect().await,
        }
    }
}

/// The one connection that writes, which is as many as one gateway has use for.
#[derive(Debug)]
pub(crate) struct Writer {
    source: Source,
    /// `None` until it is needed, and again after any failure: what state a connection is in after one (a full disk ends
    /// its transaction behind the driver's back), nobody has to know.
    connection: Mutex<Option<Connection>>,
    /// Whether another process writes now.
    handed_over: AtomicBool,
}

impl Writer {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, connection: Mutex::new(None), handed_over: AtomicBool::new(false) }
    }

    /// Brings the schema up to date, where that was not done when the store was opened.
    pub(crate) async fn prepare(&self) -> Result<(), StoreError> {
        match &self.source {
            Source::Sqlite(_) => Ok(()),
            Source::Postgres(server) => server.prepare().await,
        }
    }

    /// Whether what is read is what this version of the store holds.
    pub(crate) fn check_prepared(&self) -> Result<(), StoreError> {
        match &self.source {
            Source::Sqlite(_) => Ok(()),
            Source::Postgres(server) => server.check(),
        }
    }

    /// Does `work` in one transaction, which no other writer's runs beside.
    pub(crate) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.source.check()?;
        // Until a commit is asked for, a connection that is given up takes its transaction with it.
        let committing = AtomicBool::new(false);
        let written = within(async {
            let mut kept = self.connection.lock().await;
            // Relaxed: it changes under the same lock.
            if self.handed_over.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut connection = self.begun(kept.take()).await?;
            let done = work(&mut connection).await?;
            committing.store(true, Ordering::Relaxed);
            connection.commit().await?;
            *kept = Some(connection);
            Ok(Some(done))
        });
        let written = written.await.map_err(|error| match error {
            StoreError::Timeout | StoreError::Sql(sqlx::Error::Io(_)) if committing.load(Ordering::Relaxed) => {
                StoreError::Unconfirmed(Box::new(error))
            }
            error => error,
        });
        written?.ok_or(StoreError::HandedOver)
    }

    pub(crate) fn lock(&self) -> Option<OwnedFd> {
        match &self.source {
            Source::Sqlite(file) => file.lock().ok(),
            Source::Postgres(_) => None,
        }
    }

    /// Writes nothing more, after the write under way.
    pub(crate) async fn hand_over(&self) {
        let mut connection = self.connection.lock().await;
        self.handed_over.store(true, Ordering::Relaxed);
        if let Some(connection) = connection.take() {
            connection.close().await;
        }
    }

    /// Writes again.
    pub(crate) fn take_back(&self) {
        self.handed_over.store(false, Ordering::Relaxed);
    }

    /// A connection in a new transaction.
    async fn begun(&self, kept: Option<Connection>) -> Result<Connection, sqlx::Error> {
        if let Some(mut connection) = kept {
            match (connection.begin().await, &self.source) {
                (Ok(()), _) => return Ok(connection),
                (Err(error), Source::Sqlite(_)) => return Err(error),
                // The server was restarted meanwhile, perhaps. Nothing was asked of it yet that could be done twice.
                (Err(_), Source::Postgres(_)) => {}
            }
        }
        let mut connection = self.source.connect().await?;
        connection.begin().await?;
        Ok(connection)
    }

    pub(crate) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            connection.close().await;
        }
    }
}
