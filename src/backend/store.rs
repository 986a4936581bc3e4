//! What both implementations offer, and the figures that are kept of it.

mod meter;

use crate::backend::config::{Mode, PoolConfig};
use crate::backend::database_url::DatabaseUrl;
use crate::backend::diesel::SyncStore;
use crate::backend::error::Error;
use crate::backend::selection::{PoolState, Question, Selection, StoreError};
use crate::backend::sqlx::AsyncStore;
use crate::clock;

pub(crate) use crate::backend::store::meter::{Meter, Queries};

/// The question bank in its database, by one of the two implementations.
#[derive(Debug)]
pub(crate) struct Store {
    driver: Driver,
    meter: Meter,
}

#[derive(Debug)]
enum Driver {
    Sync(SyncStore),
    Async(AsyncStore),
}

impl Store {
    /// Opens the pool and sees that a query works.
    pub(crate) async fn open(mode: Mode, url: DatabaseUrl, pool: PoolConfig) -> Result<Self, Error> {
        let driver = match mode {
            Mode::Sync => Driver::Sync(SyncStore::new(&url, pool)),
            Mode::Async => Driver::Async(AsyncStore::new(&url, pool)),
        };
        let store = Self { driver, meter: Meter::default() };
        store.ping().await.map_err(|error| Error::Open { path: url.path().to_owned(), source: Box::new(error) })?;
        Ok(store)
    }

    /// Which implementation this is.
    pub(crate) fn mode(&self) -> Mode {
        match self.driver {
            Driver::Sync(_) => Mode::Sync,
            Driver::Async(_) => Mode::Async,
        }
    }

    /// Picks the questions that suit `wanted` best and raises their usage counts by one, all in one transaction.
    pub(crate) async fn take_questions(&self, wanted: Selection) -> Result<Vec<Question>, StoreError> {
        let begun = clock::now();
        let result = match &self.driver {
            Driver::Sync(store) => store.take_questions(wanted).await,
            Driver::Async(store) => store.take_questions(&wanted).await,
        };
        self.meter.record(clock::now().duration_since(begun), result.is_err());
        result
    }

    /// A trivial query.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let begun = clock::now();
        let result = match &self.driver {
            Driver::Sync(store) => store.ping().await,
            Driver::Async(store) => store.ping().await,
        };
        self.meter.record(clock::now().duration_since(begun), result.is_err());
        result
    }

    /// The pool as it is now.
    pub(crate) fn pool(&self) -> PoolState {
        match &self.driver {
            Driver::Sync(store) => store.pool(),
            Driver::Async(store) => store.pool(),
        }
    }

    /// What was asked of the database so far.
    pub(crate) fn queries(&self) -> Queries {
        self.meter.read()
    }

    /// Waits for the work in flight; afterwards nothing more is accepted.
    pub(crate) async fn close(&self) {
        match &self.driver {
            Driver::Sync(store) => store.close().await,
            Driver::Async(store) => store.close().await,
        }
    }
}
