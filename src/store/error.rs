//! What the store could not do.

use std::io;
use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use crate::flag::FlagKey;
use crate::store::CALL_TIMEOUT;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no store that Tidegate knows.
    #[error(
        "this is no store: write sqlite:// and the path of a file, like sqlite://tidegate.db, or \
         postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    Url,
    /// The schema could not be brought up to date.
    #[error("cannot bring the schema of the store up to date")]
    Migrate(#[source] MigrateError),
    /// A newer Tidegate has brought the schema further than this one knows.
    #[error("the store's schema is newer than this version of Tidegate (it has migration {0}); run the newer version")]
    NewerSchema(i64),
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
    #[error(
        "{} is locked: another gateway uses this store; each needs one of its own, or all of them one in PostgreSQL",
        path.display()
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Why it cannot be locked, if not for that.
        #[source]
        source: Option<io::Error>,
    },
    /// It holds a state that is newer than the one to be kept.
    #[error("another gateway has changed `{0}`")]
    Newer(FlagKey),
    /// Another process was given the right to write.
    #[error("another process is taking over from this gateway, or has; ask again in a moment")]
    HandedOver,
    /// It was asked to keep something and did not say whether it has.
    #[error("the store did not say whether it kept a change")]
    Unconfirmed(#[source] Box<Self>),
    /// It could not be reached since the gateway started, so nothing is known of what it holds.
    #[error("the store could not be reached since this gateway started; until it can, every flag serves stable here")]
    Unreached,
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

/// What `PostgreSQL` says when it takes no work now and may later: connection exceptions, insufficient resources, operator
/// intervention (`PostgreSQL` 17, appendix A), a database closed to connections, a server that is a standby.
const PASSING: [&str; 5] = ["08", "53", "57P", "55000", "25006"];

impl StoreError {
    /// Whether the store may be reached or take work later, though nothing else changes.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let error = match self {
            Self::Timeout => return true,
            Self::Sql(error) | Self::Migrate(MigrateError::Execute(error)) => error,
            Self::Url | Self::Migrate(_) | Self::NewerSchema(_) | Self::Gone { .. } | Self::InUse { .. } => {
                return false;
            }
            Self::Newer(_) | Self::HandedOver | Self::Unreached | Self::Unconfirmed(_) | Self::Damaged { .. } => {
                return false;
            }
        };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| PASSING.iter().any(|passing| code.starts_with(passing)))
            }
            _ => false,
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::NewerSchema(version),
            error => Self::Migrate(error),
        }
    }
}
