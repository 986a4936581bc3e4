//! A store in a file of its own, for one gateway.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::store::database::Connection;
use crate::store::{CALL_TIMEOUT, MAX_READERS, StoreError};

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The file, and the right to write to it.
#[derive(Debug)]
pub(crate) struct SqliteFile {
    options: SqliteConnectOptions,
    identity: FileIdentity,
    /// Held for as long as the store is open. Two gateways would overwrite each other's latches.
    lock: File,
}

impl SqliteFile {
    /// Opens the file, makes it if it isn't there, and brings its schema up to date.
    pub(crate) async fn open(url: &str, lock: Option<OwnedFd>) -> Result<(Self, SqlitePool), StoreError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::Url)?
            .journal_mode(SqliteJournalMode::Wal)
            // FULL, not NORMAL: an acknowledged change must survive the machine, not only the process.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let lock = locked(options.get_filename(), lock)?;
        let mut connection = options.clone().create_if_missing(true).connect().await?;
        sqlx::migrate!("migrations/store/sqlite").run(&mut connection).await?;
        // A database in memory has no file, and would keep nothing.
        let identity = FileIdentity::of(options.get_filename()).map_err(|_| StoreError::Url)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(CALL_TIMEOUT)
            .connect_with(options.clone())
            .await?;
        Ok((Self { options, identity, lock }, pool))
    }

    /// Whether the file is still the one that was opened.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.identity.check(self.options.get_filename())
    }

    /// The lock, for another process.
    pub(crate) fn lock(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone().map(OwnedFd::from)
    }

    pub(crate) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        Ok(Connection::Sqlite(self.options.connect().await?))
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
        fs::metadata(path).map(Self::from)
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

impl From<fs::Metadata> for FileIdentity {
    fn from(metadata: fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Locks the file beside the store's. The system gives the lock back when this process ends, however it ends, and every
/// other to which it was `passed` on.
fn locked(store: &Path, passed: Option<OwnedFd>) -> Result<File, StoreError> {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let is_its = |file: &File| file.metadata().map(FileIdentity::from).ok() == FileIdentity::of(&path).ok();
    let file = match passed.map(File::from).filter(is_its) {
        // Locking it once more shows that it was locked, and does nothing.
        Some(file) => Ok(file),
        None => File::create(&path),
    };
    let file = file.map_err(|error| StoreError::InUse { path: path.clone(), source: Some(error) })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path, source: None }),
        Err(TryLockError::Error(error)) => Err(StoreError::InUse { path, source: Some(error) }),
    }
}
