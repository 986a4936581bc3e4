//! A store in `PostgreSQL`, which several gateways share.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::store::database::Connection;
use crate::store::{CALL_TIMEOUT, MAX_READERS, StoreError};

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
    options: PgConnectOptions,
}

impl PostgresServer {
    /// Reaches the database, and brings its schema up to date.
    pub(crate) async fn open(url: &str) -> Result<(Self, PgPool), StoreError> {
        let plain = PgConnectOptions::from_str(url).map_err(|_| StoreError::Url)?.application_name("tidegate");
        let migrated = async {
            let mut connection = plain.connect().await?;
            sqlx::migrate!("migrations/store/postgres").run(&mut connection).await?;
            Ok::<_, StoreError>(())
        };
        tokio::time::timeout(MIGRATION_TIMEOUT, migrated).await.map_err(|_| StoreError::Timeout)??;
        let options = plain.options(LIMITS);
        // Lazy: the server may go down at any moment from here on, also at this one.
        let pool = PgPoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(CALL_TIMEOUT)
            .connect_lazy_with(options.clone());
        Ok((Self { options }, pool))
    }

    pub(crate) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        let mut connection = Connection::Postgres(self.options.connect().await?);
        connection.execute(DURABLE, &[]).await?;
        Ok(connection)
    }
}
