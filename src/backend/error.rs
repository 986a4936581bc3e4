//! Why a backend does not start or stops serving.

use std::io;
use std::path::PathBuf;

use tokio::task::JoinError;

/// Why a backend does not start or stops serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database is of a kind that no implementation speaks yet.
    #[error("{scheme}:// databases are not supported yet; use sqlite://path")]
    Unsupported {
        /// The URL's scheme. The rest of the URL may hold a password and is left out.
        scheme: String,
    },
    /// The database URL cannot be understood.
    #[error("the database URL is not valid: {0}; write it as sqlite://path")]
    Url(&'static str),
    /// The pool's figures make no sense together.
    #[error("the connection pool cannot work: {0}")]
    Pool(&'static str),
    /// The database cannot be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The database's file.
        path: PathBuf,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema or the question bank cannot be brought up to date.
    #[error("cannot bring the database {} up to date", path.display())]
    Migrate {
        /// The database's file.
        path: PathBuf,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The question bank inside the program cannot be read.
    #[error("the built-in question bank cannot be read")]
    Bank(#[source] serde_json::Error),
    /// The runtime stopped the work.
    #[error("the work was stopped before it was done")]
    Stopped(#[source] JoinError),
    /// The listener failed.
    #[error("the backend stopped serving")]
    Serve(#[source] io::Error),
}
