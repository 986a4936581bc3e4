//! Why a backend does not start or stops serving.

use std::io;

use tokio::task::JoinError;

/// Why a backend does not start or stops serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database URL cannot be understood.
    #[error("the database URL is not valid: {0}; write it as sqlite://path or postgres://user@host/database")]
    Url(&'static str),
    /// The pool's figures make no sense together.
    #[error("the connection pool cannot work: {0}")]
    Pool(&'static str),
    /// The database cannot be opened.
    #[error("cannot open the database {database}")]
    Open {
        /// The file, or the URL without its password.
        database: String,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema or the question bank cannot be brought up to date.
    #[error("cannot bring the database {database} up to date")]
    Migrate {
        /// The file, or the URL without its password.
        database: String,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database lacks migrations, and the start was told not to apply them.
    #[error("the database {database} is not up to date; run `tidegate migrate`")]
    Pending {
        /// The file, or the URL without its password.
        database: String,
    },
    /// The pool cannot be built.
    #[error("the connection pool cannot be built")]
    BuildPool(#[source] Box<dyn std::error::Error + Send + Sync>),
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
