//! Rollouts and the audit trail, kept across restarts: in a file of `SQLite`, or in `PostgreSQL`.
//!
//! Nothing on the request path comes here. A change of a rollout and its event are written in one transaction, and are
//! on disk when [`Store::save`] returns.

mod answers;
mod approvals;
mod chain;
mod counts;
mod database;
mod error;
mod events;
mod evidence;
mod fleet;
mod handover;
mod notes;
mod notices;
mod postgres;
mod ramp;
mod record;
mod rollouts;
mod seconds;
mod sqlite;
mod trials;
mod writer;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::store::database::{Connection, Pool, Row, Value};
use crate::store::postgres::PostgresServer;
use crate::store::sqlite::SqliteFile;
use crate::store::writer::{Source, Writer};

pub use crate::store::answers::{Answer, Claim, Once};
pub use crate::store::approvals::StoredApproval;
pub use crate::store::counts::{ArmCounts, Counted};
pub use crate::store::error::StoreError;
pub use crate::store::events::Page;
pub use crate::store::evidence::{Outgoing, PARCELS_AT_A_TIME, Parcel, Told};
pub use crate::store::fleet::Changes;
pub use crate::store::notes::Note;
pub use crate::store::notices::{Onward, Standing};
pub use crate::store::record::{REASSERT, Record, Span, StoredRollout, StoredTrial, state_of};

/// How long any call may take before the store counts as failed. Whoever asked for a change is waiting for the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Readers beside the one writer; one of them may listen.
const MAX_READERS: u32 = 5;

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `sqlite://` and a path, or `postgres://` with host and database.
    pub url: String,
}

impl Config {
    /// Whether a URL is of a kind that Tidegate knows.
    #[must_use]
    pub fn is_known(url: &str) -> bool {
        url.starts_with("sqlite:") || is_postgres(url)
    }
}

/// The URL without what may be a password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, parameters) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
            _ => url.to_owned(),
        };
        let more = if parameters.is_empty() { "" } else { "?…" };
        write!(f, "{shown}{more}")
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// The store. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    readers: Pool,
    writer: Arc<Writer>,
}

impl Store {
    /// Opens the store. One in a file is made if it isn't there, and its schema brought up to date; one in `PostgreSQL` is reached
    /// by [`Store::prepare`], and fails with [`StoreError::Unreached`] before.
    ///
    /// # Errors
    ///
    /// If the URL is none of a store, or the file cannot be opened.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        Self::open_with(config, None).await
    }

    /// The same, with the `lock` of another process, which has handed over: it is used if it is that of the store's file.
    ///
    /// # Errors
    ///
    /// If the URL is none of a store, or the store cannot be opened.
    pub async fn open_with(config: &Config, lock: Option<OwnedFd>) -> Result<Self, StoreError> {
        let (readers, source) = if is_postgres(&config.url) {
            let (server, pool) = PostgresServer::new(&config.url)?;
            (Pool::Postgres(pool), Source::Postgres(server))
        } else if Config::is_known(&config.url) {
            let (file, pool) = SqliteFile::open(&config.url, lock).await?;
            (Pool::Sqlite(pool), Source::Sqlite(file))
        } else {
            return Err(StoreError::Url);
        };
        Ok(Self { readers, writer: Arc::new(Writer::new(source)) })
    }

    /// Reaches the store, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// If it cannot be reached, or its schema cannot be brought up to date.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.writer.prepare().await
    }

    /// Whether the store takes writes right now.
    ///
    /// # Errors
    ///
    /// If it does not, with the reason.
    pub async fn probe(&self) -> Result<(), StoreError> {
        // Shows a store that is read-only or locked for good, and costs no write.
        let probe = async |connection: &mut Connection| {
            connection.execute("UPDATE rollouts SET generation = generation WHERE 1 = 0", &[]).await.map(drop)
        };
        self.writer.write(probe).await
    }

    /// Closes every connection, after the statements under way.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn read(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        self.writer.check_prepared()?;
        within(self.readers.fetch(sql, values)).await
    }
}

async fn within<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::Timeout),
    }
}

/// The JSON of a wire type. They are plain structs with string keys, which always have one.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn parse_json<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, serde_json::Error> {
    text.map(serde_json::from_str).transpose()
}
