//! The asynchronous implementation: sqlx.

pub(crate) mod listing;
pub(crate) mod questions;
pub(crate) mod sessions;
mod sql;
pub(crate) mod upsert;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, install_default_drivers};
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::backend::database_url::DatabaseUrl;
use crate::backend::failure::{Cause, Class, StoreError};
use crate::backend::pool::{Connect, Lease};
use crate::backend::statements::{self, Access, SLEEP_POSTGRES};

/// What a statement or a row of statements comes to.
pub(crate) type Work<'c, R> = Pin<Box<dyn Future<Output = sqlx::Result<R>> + Send + 'c>>;

/// Opens sqlx's connections.
#[derive(Debug)]
pub(crate) struct AsyncConnect {
    url: DatabaseUrl,
    options: AnyConnectOptions,
    patience: Duration,
}

impl AsyncConnect {
    pub(crate) fn new(url: DatabaseUrl, patience: Duration) -> Result<Self, Cause> {
        install_default_drivers();
        let options: AnyConnectOptions = url.for_sqlx().parse()?;
        Ok(Self { url, options: options.disable_statement_logging(), patience })
    }
}

impl Connect for AsyncConnect {
    type Connection = AnyConnection;

    async fn open(&self) -> Result<AnyConnection, Cause> {
        let mut connection = AnyConnection::connect_with(&self.options).await?;
        let set_up = statements::set_up(&self.url, self.patience);
        sqlx::raw_sql(AssertSqlSafe(set_up)).execute(&mut connection).await?;
        Ok(connection)
    }

    async fn ping(&self, connection: &mut AnyConnection) -> Result<(), Cause> {
        Ok(connection.ping().await?)
    }
}

/// Does `work` in a transaction.
pub(crate) async fn transact<T: Sync, R>(
    mut lease: Lease<AsyncConnect>,
    access: Access,
    slow: Duration,
    asked: Arc<T>,
    work: for<'c> fn(&'c mut AnyConnection, &'c T) -> Work<'c, R>,
) -> Result<R, StoreError> {
    let Some(connection) = lease.as_deref_mut() else {
        return Err(StoreError::before(Class::ConnectionLost, "the pool lent nothing"));
    };
    let locks = access.locks().filter(|_| is_postgres(connection));
    if let Some((lock, _)) = &locks
        && let Err(error) = sqlx::raw_sql(AssertSqlSafe(lock.clone())).execute(&mut *connection).await
    {
        let class = classify(&error);
        if class == Class::ConnectionLost {
            lease.discard();
        }
        return Err(StoreError::before(class, error));
    }
    let begin = if is_postgres(connection) { access.begin_postgres() } else { access.begin_sqlite() };
    let result = async {
        let mut transaction = connection.begin_with(begin).await?;
        linger(&mut transaction, slow).await?;
        let done = work(&mut transaction, &asked).await?;
        transaction.commit().await?;
        Ok(done)
    }
    .await;
    // A lock that is not given back may not go back into the pool either.
    let kept = match locks {
        Some((_, unlock)) => sqlx::raw_sql(AssertSqlSafe(unlock)).execute(&mut *connection).await.is_err(),
        None => false,
    };
    let class = result.as_ref().err().map(classify);
    if kept || class == Some(Class::ConnectionLost) {
        lease.discard();
    }
    result.map_err(|error| StoreError::during(class.unwrap_or(Class::Other), error))
}

/// Whether this is `PostgreSQL`.
pub(crate) fn is_postgres(connection: &AnyConnection) -> bool {
    connection.backend_name() == "PostgreSQL"
}

/// Makes a query slow, where that was asked for.
async fn linger(connection: &mut AnyConnection, slow: Duration) -> sqlx::Result<()> {
    if slow.is_zero() || !is_postgres(connection) {
        return Ok(());
    }
    sqlx::query(SLEEP_POSTGRES).bind(slow.as_secs_f64()).execute(connection).await.map(drop)
}

fn classify(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            // SQLSTATE has five characters, a result code of SQLite at most four.
            Some(code) if code.len() == 5 => Class::of_sqlstate(&code),
            Some(code) => code.parse().map_or(Class::Other, Class::of_sqlite),
            None => Class::Other,
        },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
            Class::ConnectionLost
        }
        _ => Class::Other,
    }
}
