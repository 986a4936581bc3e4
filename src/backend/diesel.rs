//! The synchronous implementation: Diesel, on blocking threads.

mod connection;
pub(crate) mod listing;
pub(crate) mod questions;
pub(crate) mod sessions;
pub(crate) mod upsert;

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError, QueryResult};
use diesel::{RunQueryDsl, sql_types};

use crate::backend::database_url::DatabaseUrl;
use crate::backend::failure::{Cause, Class, StoreError};
use crate::backend::pool::{Connect, Lease};
use crate::backend::statements::{Access, SLEEP_POSTGRES};

pub(crate) use crate::backend::diesel::connection::{AnyConnection, MultiBackend, connect};

/// Opens Diesel's connections on blocking threads.
#[derive(Debug)]
pub(crate) struct SyncConnect {
    pub(crate) url: DatabaseUrl,
    pub(crate) patience: Duration,
}

impl Connect for SyncConnect {
    /// Empty while a blocking thread has the connection; if that thread dies, it stays so, and the pool replaces it.
    type Connection = Option<AnyConnection>;

    async fn open(&self) -> Result<Self::Connection, Cause> {
        let (url, patience) = (self.url.clone(), self.patience);
        let opened = tokio::task::spawn_blocking(move || connect(&url, patience)).await;
        opened.map_err(Cause::from)?.map(Some).map_err(Cause::from)
    }

    async fn ping(&self, slot: &mut Self::Connection) -> Result<(), Cause> {
        let Some(mut connection) = slot.take() else { return Err("its last user did not give it back".into()) };
        let pinged = tokio::task::spawn_blocking(move || {
            connection.batch_execute("SELECT 1").map(|()| connection).map_err(Cause::from)
        });
        *slot = Some(pinged.await.map_err(Cause::from)??);
        Ok(())
    }
}

/// Does `work` in a transaction on a blocking thread; it runs to its end even if the caller goes away.
pub(crate) async fn transact<T: Send + Sync + 'static, R: Send + 'static>(
    mut lease: Lease<SyncConnect>,
    access: Access,
    slow: Duration,
    asked: Arc<T>,
    work: fn(&mut AnyConnection, &T) -> QueryResult<R>,
) -> Result<R, StoreError> {
    let done = tokio::task::spawn_blocking(move || {
        let slot = lease.as_deref_mut().and_then(Option::as_mut);
        let Some(connection) = slot else {
            return Err(StoreError::before(Class::ConnectionLost, "the pool lent nothing"));
        };
        let locks = access.locks().filter(|_| connection.is_postgres());
        if let Some((lock, _)) = &locks
            && let Err(error) = connection.batch_execute(lock)
        {
            let class = classify(&error);
            if class == Class::ConnectionLost {
                lease.discard();
            }
            return Err(StoreError::before(class, error));
        }
        let result = connection.in_transaction(access, |connection| {
            linger(connection, slow)?;
            work(connection, &asked)
        });
        // A lock that is not given back may not go back into the pool either.
        let kept = locks.is_some_and(|(_, unlock)| connection.batch_execute(&unlock).is_err());
        let class = result.as_ref().err().map(classify);
        if kept || class == Some(Class::ConnectionLost) {
            lease.discard();
        }
        result.map_err(|error| StoreError::during(class.unwrap_or(Class::Other), error))
    });
    done.await.map_err(|stopped| StoreError::during(Class::Other, stopped))?
}

/// Makes a query slow, where that was asked for.
fn linger(connection: &mut AnyConnection, slow: Duration) -> QueryResult<()> {
    if slow.is_zero() || !connection.is_postgres() {
        return Ok(());
    }
    diesel::sql_query(SLEEP_POSTGRES).bind::<sql_types::Double, _>(slow.as_secs_f64()).execute(connection).map(drop)
}

/// Diesel passes on what the database said, but not its code, for most of what can be tried again.
fn classify(error: &DieselError) -> Class {
    match error {
        DieselError::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::SerializationFailure => Class::Serialization,
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => Class::ConnectionLost,
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::RestrictViolation
            | DatabaseErrorKind::ExclusionViolation => Class::Constraint,
            _ => of_message(information.message()),
        },
        DieselError::BrokenTransactionManager => Class::ConnectionLost,
        _ => Class::Other,
    }
}

fn of_message(message: &str) -> Class {
    const MESSAGES: [(&str, Class); 10] = [
        ("database is locked", Class::Busy),
        ("database table is locked", Class::Busy),
        ("unable to open database file", Class::ConnectionLost),
        ("deadlock detected", Class::Deadlock),
        ("could not serialize access", Class::Serialization),
        ("canceling statement due to lock timeout", Class::Busy),
        ("canceling statement due to statement timeout", Class::Busy),
        ("terminating connection", Class::ConnectionLost),
        ("server closed the connection", Class::ConnectionLost),
        ("the database system is", Class::ConnectionLost),
    ];
    MESSAGES.iter().find(|(beginning, _)| message.starts_with(beginning)).map_or(Class::Other, |(_, class)| *class)
}
