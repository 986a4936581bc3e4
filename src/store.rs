//! Rollouts and the audit trail, kept across restarts.
//!
//! Nothing on the request path comes here. A change of a rollout and its event are written in one transaction, and are
//! on disk when [`Store::save`] returns.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::Mutex;

use crate::api::{Event, Rollback, RolloutState};
use crate::flag::{FlagKey, Generation, Percentage, Phase, Rollout};

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long any call may take before the store counts as failed. Whoever asked for a change is waiting for the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Readers beside the one writer.
const MAX_READERS: u32 = 4;

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `sqlite://` and a path.
    pub url: String,
}

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no store that Tidegate knows.
    #[error("`{0}` is no store; write sqlite:// and the path of a file, like sqlite://tidegate.db")]
    Url(String),
    /// The schema could not be brought up to date.
    #[error("cannot bring the schema of the store up to date")]
    Migrate(#[from] MigrateError),
    /// A statement failed.
    #[error("the store failed")]
    Sql(#[from] sqlx::Error),
    /// The file is not the one that was opened: what is written to that one would be lost.
    #[error("{} was removed or replaced while in use; put it back and restart", path.display())]
    Gone {
        /// Where the file was.
        path: PathBuf,
        /// Why it cannot be looked at, if it cannot.
        #[source]
        source: Option<io::Error>,
    },
    /// Another gateway has it.
    #[error("{} is locked: another gateway uses this store, and each needs one of its own", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Why it cannot be locked, if not for that.
        #[source]
        source: Option<io::Error>,
    },
    /// It holds a state that is newer than the one to be kept.
    #[error("the store's state of `{0}` is newer than this gateway's; restart it")]
    Newer(FlagKey),
    /// It did not answer in time.
    #[error("the store did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// A row holds what Tidegate did not write.
    #[error("the store's row for `{flag}` is damaged: {what}")]
    Damaged {
        /// The flag.
        flag: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// A rollout as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRollout {
    /// The flag.
    pub flag: FlagKey,
    /// Its state.
    pub rollout: Rollout,
    /// The rollback, while its latch holds.
    pub rollback: Option<Rollback>,
}

/// A change to be kept: the state that it led to, and the event that tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The state after the change.
    pub after: StoredRollout,
    /// The state before, if the flag was known.
    pub before: Option<RolloutState>,
    /// When, in RFC 3339.
    pub at: String,
    /// What was done.
    pub action: String,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

/// The store. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    readers: SqlitePool,
    writer: Arc<Writer>,
}

/// The one connection that writes, which is as many as `SQLite` has use for.
#[derive(Debug)]
struct Writer {
    options: SqliteConnectOptions,
    file: FileIdentity,
    /// Held for as long as the store is open. Two gateways would overwrite each other's latches.
    _lock: File,
    /// `None` until it is needed, and again after any failure: what state a connection is in after one (a full disk ends
    /// its transaction behind the driver's back), nobody has to know.
    connection: Mutex<Option<SqliteConnection>>,
}

impl Store {
    /// Opens the store, makes it if it isn't there, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// If the URL is none of a store, or the store cannot be opened.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        let wrong_url = || StoreError::Url(config.url.clone());
        if !config.url.starts_with("sqlite:") {
            return Err(wrong_url());
        }
        let options = SqliteConnectOptions::from_str(&config.url)
            .map_err(|_| wrong_url())?
            .journal_mode(SqliteJournalMode::Wal)
            // FULL, not NORMAL: an acknowledged change must survive the machine, not only the process.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let lock = lock(options.get_filename())?;
        let mut connection = options.clone().create_if_missing(true).connect().await?;
        sqlx::migrate!("migrations/store/sqlite").run(&mut connection).await?;
        // A database in memory has no file, and would keep nothing.
        let file = FileIdentity::of(options.get_filename()).map_err(|_| wrong_url())?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(CALL_TIMEOUT)
            .connect_with(options.clone())
            .await?;
        let writer = Writer { options, file, _lock: lock, connection: Mutex::new(Some(connection)) };
        Ok(Self { readers, writer: Arc::new(writer) })
    }

    /// Every rollout that was ever saved.
    ///
    /// # Errors
    ///
    /// If the store fails, or a row is damaged.
    pub async fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError> {
        let rows = within(sqlx::query("SELECT * FROM rollouts ORDER BY flag").fetch_all(&self.readers)).await?;
        rows.iter().map(stored_rollout).collect()
    }

    /// Keeps a change and its event, both or neither. A state older than the one kept does not replace it.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn save(&self, record: &Record) -> Result<(), StoreError> {
        if self.writer.write(async |connection| save(connection, record).await).await? {
            Ok(())
        } else {
            Err(StoreError::Newer(record.after.flag.clone()))
        }
    }

    /// The newest `limit` events, of one flag or of all, newest first.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn events(&self, flag: Option<&FlagKey>, limit: u32) -> Result<Vec<Event>, StoreError> {
        let query = sqlx::query("SELECT * FROM events WHERE ?1 IS NULL OR flag = ?1 ORDER BY id DESC LIMIT ?2")
            .bind(flag.map(FlagKey::as_str))
            .bind(limit);
        let rows = within(query.fetch_all(&self.readers)).await?;
        rows.iter().map(event).collect()
    }

    /// Whether the store takes writes right now.
    ///
    /// # Errors
    ///
    /// If it does not, with the reason.
    pub async fn probe(&self) -> Result<(), StoreError> {
        // Taking the write lock shows a store that is read-only or locked for good, and costs no write.
        let probe =
            async |connection: &mut SqliteConnection| connection.begin_with("BEGIN IMMEDIATE").await?.rollback().await;
        self.writer.write(probe).await
    }

    /// Closes every connection, after the statements under way.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(connection) = self.writer.connection.lock().await.take() {
            // Everything that was acknowledged is on disk already.
            let _ = connection.close().await;
        }
    }
}

impl Writer {
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.file.check(self.options.get_filename())?;
        within(async {
            let mut kept = self.connection.lock().await;
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            let done = work(&mut connection).await?;
            *kept = Some(connection);
            Ok(done)
        })
        .await
    }
}

/// Which file a path leads to, whatever its name.
#[derive(Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether `path` still leads here. A file that was deleted can be written to, and keeps nothing.
    fn check(&self, path: &Path) -> Result<(), StoreError> {
        let source = match Self::of(path) {
            Ok(found) if found == *self => return Ok(()),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        Err(StoreError::Gone { path: path.to_owned(), source })
    }
}

/// Locks the file beside the store's. The system gives the lock back when this process ends, however it ends.
fn lock(store: &Path) -> Result<File, StoreError> {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = File::create(&path).map_err(|error| StoreError::InUse { path: path.clone(), source: Some(error) })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path, source: None }),
        Err(TryLockError::Error(error)) => Err(StoreError::InUse { path, source: Some(error) }),
    }
}

/// Writes a change and its event; `false` if the state kept is newer, and then nothing. Writing the same again is no
/// second event, since whoever was not told in time that it was written will try again.
async fn save(connection: &mut SqliteConnection, record: &Record) -> Result<bool, sqlx::Error> {
    let StoredRollout { flag, rollout, rollback } = &record.after;
    let rollback = rollback.as_ref().map(json);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let kept = sqlx::query(
        "INSERT INTO rollouts (flag, generation, release, phase, percentage, file_percentage, enabled, rollback) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (flag) DO UPDATE SET generation = excluded.generation, release = excluded.release, \
         phase = excluded.phase, percentage = excluded.percentage, file_percentage = excluded.file_percentage, \
         enabled = excluded.enabled, rollback = excluded.rollback \
         WHERE excluded.generation >= rollouts.generation",
    )
    .bind(flag.as_str())
    .bind(rollout.generation.get().cast_signed())
    .bind(&rollout.release)
    .bind(rollout.phase.as_str())
    .bind(rollout.percentage.thousandths())
    .bind(rollout.file_percentage.thousandths())
    .bind(rollout.enabled)
    .bind(&rollback)
    .execute(&mut *transaction)
    .await?;
    if kept.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO events (at, flag, generation, action, actor, reason, old, new, rollback) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (flag, generation) DO NOTHING",
    )
    .bind(&record.at)
    .bind(flag.as_str())
    .bind(rollout.generation.get().cast_signed())
    .bind(&record.action)
    .bind(&record.actor)
    .bind(&record.reason)
    .bind(record.before.as_ref().map(json))
    .bind(json(&state_of(rollout)))
    .bind(&rollback)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// A rollout's state as the audit trail shows it.
#[must_use]
pub fn state_of(rollout: &Rollout) -> RolloutState {
    RolloutState {
        phase: rollout.phase_name().to_owned(),
        percentage: rollout.in_force().as_percent(),
        release: rollout.release.clone(),
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

fn stored_rollout(row: &SqliteRow) -> Result<StoredRollout, StoreError> {
    let flag: String = row.try_get("flag")?;
    let damaged = |what| StoreError::Damaged { flag: flag.clone(), what };
    let percentage = |column| -> Result<Percentage, StoreError> {
        Percentage::from_thousandths(row.try_get(column)?).ok_or_else(|| damaged("percentage"))
    };
    let rollback: Option<String> = row.try_get("rollback")?;
    Ok(StoredRollout {
        flag: flag.parse().map_err(|_| damaged("flag"))?,
        rollout: Rollout {
            generation: Generation::new(row.try_get::<i64, _>("generation")?.cast_unsigned()),
            release: row.try_get("release")?,
            phase: Phase::from_name(row.try_get("phase")?).ok_or_else(|| damaged("phase"))?,
            percentage: percentage("percentage")?,
            file_percentage: percentage("file_percentage")?,
            enabled: row.try_get("enabled")?,
        },
        rollback: parse_json(rollback.as_deref()).map_err(|_| damaged("rollback"))?,
    })
}

fn event(row: &SqliteRow) -> Result<Event, StoreError> {
    let flag: String = row.try_get("flag")?;
    let damaged = |what| StoreError::Damaged { flag: flag.clone(), what };
    let text = |column| row.try_get::<Option<String>, _>(column);
    Ok(Event {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        generation: row.try_get::<i64, _>("generation")?.cast_unsigned(),
        action: row.try_get("action")?,
        actor: row.try_get("actor")?,
        reason: row.try_get("reason")?,
        old: parse_json(text("old")?.as_deref()).map_err(|_| damaged("old"))?,
        new: parse_json(text("new")?.as_deref()).ok().flatten().ok_or_else(|| damaged("new"))?,
        rollback: parse_json(text("rollback")?.as_deref()).map_err(|_| damaged("rollback"))?,
        flag: flag.clone(),
    })
}

fn parse_json<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, serde_json::Error> {
    text.map(serde_json::from_str).transpose()
}
