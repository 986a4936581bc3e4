//! A store in `PostgreSQL`, which several gateways share.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::store::database::Connection;
use crate::store::{CALL_TIMEOUT, MAX_READERS, StoreError, within};

/// How long bringing the schema up to date may take, together with waiting for another gateway that is at it.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The server's own limits, in milliseconds: a gateway that hangs in a transaction may not keep the others from writing.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "3000"), ("lock_timeout", "1000"), ("idle_in_transaction_session_timeout", "3000")];

/// What is committed has to be on disk. A server that waits for more, like a standby, goes on doing so.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false) \
                       WHERE current_setting('synchronous_commit') = 'off'";

/// How to reach the database.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    plain: Box<PgConnectOptions>,
    options: PgConnectOptions,
    /// Whether the schema is known to be this version's.
    prepared: AtomicBool,
}

impl PostgresServer {
    /// The database at `url`, which is not reached yet, and connections to read from it.
    pub(crate) fn new(url: &str) -> Result<(Self, PgPool), StoreError> {
        let plain = PgConnectOptions::from_str(url).map_err(|_| StoreError::Url)?.application_name("tidegate");
        let options = plain.clone().options(LIMITS);
        let pool = PgPoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(CALL_TIMEOUT)
            .connect_lazy_with(options.clone());
        Ok((Self { plain: Box::new(plain), options, prepared: AtomicBool::new(false) }, pool))
    }

    /// Reaches the database, and brings its schema up to date.
    pub(crate) async fn prepare(&self) -> Result<(), StoreError> {
        let mut connection = within(self.plain.connect()).await?;
        let migrations = sqlx::migrate!("migrations/store/postgres");
        let migrated =
            tokio::time::timeout(MIGRATION_TIMEOUT, migrations.run_direct(None, &mut connection, false)).await;
        migrated.map_err(|_| StoreError::Timeout)??;
        // Nothing else is told by it.
        self.prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it was reached and holds what this version knows.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.prepared.load(Ordering::Relaxed) { Ok(()) } else { Err(StoreError::Unreached) }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        let mut connection = Connection::Postgres(self.options.connect().await?);
        connection.execute(DURABLE, &[]).await?;
        Ok(connection)
    }
}
