//! One way to speak to either database. The statements are the same for both: `$1` marks a value, integers are `BIGINT`
//! in `PostgreSQL`.

use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Connection as _, Decode, Error, Executor as _, Postgres, Row as _, Sqlite, Type};

/// The advisory lock that a writing transaction holds in `PostgreSQL`: "tidegate" in ASCII. `SQLite` has one writer anyway.
const BEGIN_POSTGRES: &str = "BEGIN; SELECT pg_advisory_xact_lock(x'7469646567617465'::bigint)";

/// Takes the write lock at once: what is read in the transaction stays true until it ends.
const BEGIN_SQLITE: &str = "BEGIN IMMEDIATE";

/// A value in a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'v> {
    Text(Option<&'v str>),
    Integer(i64),
    Bool(bool),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(Some(text))
    }
}

impl<'v> From<Option<&'v str>> for Value<'v> {
    fn from(text: Option<&'v str>) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v Option<String>> for Value<'v> {
    fn from(text: &'v Option<String>) -> Self {
        Self::Text(text.as_deref())
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

/// The statement with its values, for whichever database the context asks for.
macro_rules! statement {
    ($sql:expr, $values:expr) => {
        $values.iter().fold(sqlx::query($sql), |query, value| match *value {
            Value::Text(text) => query.bind(text),
            Value::Integer(number) => query.bind(number),
            Value::Bool(bool) => query.bind(bool),
        })
    };
}

/// A connection, in a transaction or not.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Connection {
    /// Begins a transaction that no other writer's runs beside. Dropping the connection undoes it.
    pub(crate) async fn begin(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => connection.execute(BEGIN_SQLITE).await.map(drop),
            Self::Postgres(connection) => connection.execute(BEGIN_POSTGRES).await.map(drop),
        }
    }

    pub(crate) async fn commit(&mut self) -> Result<(), Error> {
        self.execute("COMMIT", &[]).await.map(drop)
    }

    /// Says how many rows were written.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, Error> {
        match self {
            Self::Sqlite(connection) => Ok(statement!(sql, values).execute(connection).await?.rows_affected()),
            Self::Postgres(connection) => Ok(statement!(sql, values).execute(connection).await?.rows_affected()),
        }
    }

    pub(crate) async fn fetch(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        match self {
            Self::Sqlite(connection) => Ok(sqlite_rows(statement!(sql, values).fetch_all(connection).await?)),
            Self::Postgres(connection) => Ok(postgres_rows(statement!(sql, values).fetch_all(connection).await?)),
        }
    }

    pub(crate) async fn close(self) {
        // Everything that was acknowledged is on disk already.
        let _ = match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        };
    }
}

/// Connections that only read.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    pub(crate) async fn fetch(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        match self {
            Self::Sqlite(pool) => Ok(sqlite_rows(statement!(sql, values).fetch_all(pool).await?)),
            Self::Postgres(pool) => Ok(postgres_rows(statement!(sql, values).fetch_all(pool).await?)),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// What stands in `column`.
    pub(crate) fn get<'r, T>(&'r self, column: &str) -> Result<T, Error>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

fn sqlite_rows(rows: Vec<SqliteRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

fn postgres_rows(rows: Vec<PgRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Postgres).collect()
}
