//! A connection of Diesel's to either database.

use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;
use diesel::result::{ConnectionResult, QueryResult};
use diesel::sqlite::SqliteConnection;

use crate::backend::database_url::DatabaseUrl;
use crate::backend::statements::{self, Access};

pub(crate) use crate::backend::diesel::connection::generated::{AnyConnection, MultiBackend};

mod generated {
    #![allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "most of this module is generated"
    )]

    use diesel::pg::PgConnection;
    use diesel::sqlite::SqliteConnection;

    /// A connection to either database. What the two have in common can be asked of it, the rest of what is inside.
    #[derive(diesel::MultiConnection)]
    pub enum AnyConnection {
        Postgres(PgConnection),
        Sqlite(SqliteConnection),
    }
}

/// Opens a connection and sets it up as every connection must be.
pub(crate) fn connect(url: &DatabaseUrl, patience: Duration) -> ConnectionResult<AnyConnection> {
    let mut connection = match url {
        DatabaseUrl::Sqlite(path) => SqliteConnection::establish(&path.to_string_lossy()).map(AnyConnection::Sqlite)?,
        DatabaseUrl::Postgres(url) => PgConnection::establish(url).map(AnyConnection::Postgres)?,
    };
    let set_up = statements::set_up(url, patience);
    connection.batch_execute(&set_up).map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

impl AnyConnection {
    /// Does `work` in a transaction, which is kept if it succeeds and undone if it does not.
    pub(crate) fn in_transaction<T>(
        &mut self,
        access: Access,
        work: impl FnOnce(&mut Self) -> QueryResult<T>,
    ) -> QueryResult<T> {
        match self {
            Self::Postgres(connection) => {
                AnsiTransactionManager::begin_transaction_sql(connection, access.begin_postgres())?;
            }
            Self::Sqlite(connection) => {
                AnsiTransactionManager::begin_transaction_sql(connection, access.begin_sqlite())?;
            }
        }
        match work(self) {
            Ok(done) => {
                <Self as Connection>::TransactionManager::commit_transaction(self)?;
                Ok(done)
            }
            Err(error) => {
                // If the connection is gone, so is the transaction; the pool finds out.
                let _: QueryResult<()> = <Self as Connection>::TransactionManager::rollback_transaction(self);
                Err(error)
            }
        }
    }

    /// Whether this is `PostgreSQL`.
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}
