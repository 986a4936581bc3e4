//! The database by either implementation, and what stands before both: the breaker, the retry, the limits, the figures.

pub(crate) mod meter;

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::result::QueryResult;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backend::backoff;
use crate::backend::breaker::{Breaker, BreakerState};
use crate::backend::config::{Mode, PoolConfig};
use crate::backend::database_url::DatabaseUrl;
use crate::backend::diesel::{self as sync_mode, SyncConnect};
use crate::backend::error::Error;
use crate::backend::failure::{Cause, Class, StoreError};
use crate::backend::fault::Chance;
use crate::backend::history::{History, HistoryPage};
use crate::backend::listing::{Listing, Page};
use crate::backend::pool::{Pool, PoolState};
use crate::backend::selection::{Question, Selection};
use crate::backend::session::{Reference, Refusal, Start, Submission, Whole};
use crate::backend::sqlx::{self as async_mode, AsyncConnect, Work};
use crate::backend::statements::{Access, lock_of};
use crate::backend::store::meter::{Meter, Queries};
use crate::backend::upsert::{Upsert, Upserted};
use crate::clock;

/// How long a request may take in all: tries are repeated only within it, and no statement outlives it. It is what the
/// gateway waits for an answer by default.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Where the draws of waiting times begin. Stores that compete are apart by more than a draw: each has its own load.
const JITTER_SEED: u64 = 0x6a69_7474_6572_2121;

/// Operations that may be under way at once, far more than any pool lets through; closing waits for all of them.
const OPERATIONS: u32 = 1 << 20;

/// The question bank and the sessions in their database. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    driver: Driver,
    config: PoolConfig,
    /// What each transaction is held up by, for drills.
    slow: Duration,
    meter: Meter,
    breaker: Breaker,
    jitter: Chance,
    operations: Arc<Semaphore>,
    /// `SQLite` has one writer at a time and lets the others poll for the lock; standing in line is fairer and faster.
    write_turn: Option<Semaphore>,
}

#[derive(Debug)]
enum Driver {
    Sync(Pool<SyncConnect>),
    Async(Pool<AsyncConnect>),
}

/// A function of the synchronous implementation.
pub(crate) type SyncWork<T, R> = fn(&mut sync_mode::AnyConnection, &T) -> QueryResult<R>;

/// The same function of the asynchronous one.
pub(crate) type AsyncWork<T, R> = for<'c> fn(&'c mut ::sqlx::AnyConnection, &'c T) -> Work<'c, R>;

impl Store {
    /// Builds the pool and sees that a query works.
    pub(crate) async fn open(mode: Mode, url: DatabaseUrl, config: PoolConfig, slow: Duration) -> Result<Self, Error> {
        let failed = |source: Cause| Error::Open { database: url.to_string(), source };
        let driver = match mode {
            Mode::Sync => {
                let connect = SyncConnect { url: url.clone(), patience: REQUEST_LIMIT };
                Driver::Sync(Pool::new(connect, config).map_err(Error::BuildPool)?)
            }
            Mode::Async => {
                let connect = AsyncConnect::new(url.clone(), REQUEST_LIMIT).map_err(failed)?;
                Driver::Async(Pool::new(connect, config).map_err(Error::BuildPool)?)
            }
        };
        let one_writer = matches!(url, DatabaseUrl::Sqlite(_));
        let shared = Shared {
            driver,
            config,
            slow,
            meter: Meter::new(clock::now()),
            breaker: Breaker::default(),
            jitter: Chance::new(JITTER_SEED),
            operations: Arc::new(Semaphore::new(usize::try_from(OPERATIONS).unwrap_or(Semaphore::MAX_PERMITS))),
            write_turn: one_writer.then(|| Semaphore::new(1)),
        };
        let store = Self { shared: Arc::new(shared) };
        store.ping().await.map_err(|error| Error::Open { database: url.to_string(), source: error.into() })?;
        Ok(store)
    }

    /// Which implementation this is.
    pub(crate) fn mode(&self) -> Mode {
        match self.shared.driver {
            Driver::Sync(_) => Mode::Sync,
            Driver::Async(_) => Mode::Async,
        }
    }

    /// Picks the questions that suit `wanted` best and raises their usage counts by one, all in one transaction.
    pub(crate) async fn take_questions(&self, wanted: Selection) -> Result<Vec<Question>, StoreError> {
        let asynchronous: AsyncWork<_, _> = |c, wanted| Box::pin(async_mode::questions::take(c, wanted));
        self.run(Access::Write, wanted, sync_mode::questions::take, asynchronous).await
    }

    /// The questions that `listing` asks for.
    pub(crate) async fn list(&self, listing: Listing) -> Result<Page, StoreError> {
        let asynchronous: AsyncWork<_, _> = |c, listing| Box::pin(async_mode::listing::list(c, listing));
        let questions = self.run(Access::Read, listing.clone(), sync_mode::listing::list, asynchronous).await?;
        Ok(Page::new(&listing, questions))
    }

    /// Writes many questions at once.
    pub(crate) async fn upsert(&self, asked: Upsert) -> Result<Upserted, StoreError> {
        let asynchronous: AsyncWork<_, _> = |c, asked| Box::pin(async_mode::upsert::upsert(c, asked));
        self.run(Access::Write, asked, sync_mode::upsert::upsert, asynchronous).await
    }

    /// Starts a session.
    pub(crate) async fn start(&self, start: Start) -> Result<Result<Whole, Refusal>, StoreError> {
        let access = Access::Exclusive(lock_of(&start.user));
        let asynchronous: AsyncWork<_, _> = |c, start| Box::pin(async_mode::sessions::start(c, start));
        self.run(access, start, sync_mode::sessions::start, asynchronous).await
    }

    /// A session with its questions.
    pub(crate) async fn session(&self, which: Reference) -> Result<Result<Whole, Refusal>, StoreError> {
        let access = Access::Shared(lock_of(&which.user));
        let asynchronous: AsyncWork<_, _> = |c, which| Box::pin(async_mode::sessions::read(c, which));
        self.run(access, which, sync_mode::sessions::read, asynchronous).await
    }

    /// Takes answers.
    pub(crate) async fn submit(&self, given: Submission) -> Result<Result<Whole, Refusal>, StoreError> {
        let access = Access::Exclusive(lock_of(&given.session.user));
        let asynchronous: AsyncWork<_, _> = |c, given| Box::pin(async_mode::sessions::submit(c, given));
        self.run(access, given, sync_mode::sessions::submit, asynchronous).await
    }

    /// Gives a session up.
    pub(crate) async fn abandon(&self, which: Reference) -> Result<Result<Whole, Refusal>, StoreError> {
        let access = Access::Exclusive(lock_of(&which.user));
        let asynchronous: AsyncWork<_, _> = |c, which| Box::pin(async_mode::sessions::abandon(c, which));
        self.run(access, which, sync_mode::sessions::abandon, asynchronous).await
    }

    /// Goes on with a session that was given up.
    pub(crate) async fn resume(&self, which: Reference) -> Result<Result<Whole, Refusal>, StoreError> {
        let access = Access::Exclusive(lock_of(&which.user));
        let asynchronous: AsyncWork<_, _> = |c, which| Box::pin(async_mode::sessions::resume(c, which));
        self.run(access, which, sync_mode::sessions::resume, asynchronous).await
    }

    /// The sessions of a user.
    pub(crate) async fn history(&self, asked: History) -> Result<HistoryPage, StoreError> {
        let asynchronous: AsyncWork<_, _> = |c, asked| Box::pin(async_mode::sessions::history(c, asked));
        let sessions = self.run(Access::Read, asked.clone(), sync_mode::sessions::history, asynchronous).await?;
        Ok(HistoryPage::new(&asked, sessions))
    }

    /// A trivial query.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let asynchronous: AsyncWork<_, _> = |c, ()| Box::pin(async_mode::questions::ping(c));
        self.run(Access::Read, (), |c, ()| sync_mode::questions::ping(c), asynchronous).await
    }

    /// The pool as it is now.
    pub(crate) fn pool(&self) -> PoolState {
        match &self.shared.driver {
            Driver::Sync(pool) => pool.state(),
            Driver::Async(pool) => pool.state(),
        }
    }

    /// What was asked of the database so far.
    pub(crate) fn queries(&self) -> Queries {
        self.shared.meter.read(clock::now())
    }

    /// What the breaker does now.
    pub(crate) fn breaker(&self) -> BreakerState {
        self.shared.breaker.state()
    }

    /// Waits for the work in flight; afterwards nothing more is accepted.
    pub(crate) async fn close(&self) {
        let everyone = self.shared.operations.acquire_many(OPERATIONS).await;
        self.shared.operations.close();
        drop(everyone);
        match &self.shared.driver {
            Driver::Sync(pool) => pool.close(),
            Driver::Async(pool) => pool.close(),
        }
    }

    /// Does `asked` in a transaction by whichever implementation this is, and again where that may help.
    ///
    /// What was begun is brought to its end in both modes, also if the client hangs up: a blocking thread cannot be
    /// stopped, so the asynchronous mode does not stop either, and no mode leaves work half done where the other does it.
    pub(crate) async fn run<T, R>(
        &self,
        access: Access,
        asked: T,
        synchronous: SyncWork<T, R>,
        asynchronous: AsyncWork<T, R>,
    ) -> Result<R, StoreError>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
    {
        let place = Arc::clone(&self.shared.operations)
            .acquire_owned()
            .await
            .map_err(|closed| StoreError::before(Class::Exhausted, closed))?;
        let (shared, asked) = (Arc::clone(&self.shared), Arc::new(asked));
        let whole = tokio::spawn(async move {
            let begun = clock::now();
            let result = shared.persist(begun, access, asked, synchronous, asynchronous).await;
            let now = clock::now();
            shared.meter.record(now, now.duration_since(begun), result.as_ref().err().map(StoreError::class));
            drop(place);
            result
        });
        whole.await.map_err(|stopped| StoreError::during(Class::Other, stopped))?
    }
}

impl Shared {
    /// Tries until it is done, cannot be helped, or [`REQUEST_LIMIT`] since `begun` would pass.
    async fn persist<T, R>(
        &self,
        begun: Instant,
        access: Access,
        asked: Arc<T>,
        synchronous: SyncWork<T, R>,
        asynchronous: AsyncWork<T, R>,
    ) -> Result<R, StoreError>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
    {
        let left = |now: Instant| REQUEST_LIMIT.saturating_sub(now.duration_since(begun));
        let mut tries = 0_u32;
        loop {
            self.breaker.pass(clock::now()).map_err(|retry_after| StoreError::Away { retry_after })?;
            let attempt = self
                .attempt(
                    self.config.timeout.min(left(clock::now())),
                    access,
                    Arc::clone(&asked),
                    synchronous,
                    asynchronous,
                )
                .await;
            let now = clock::now();
            let error = match attempt {
                Ok(done) => {
                    self.breaker.heard(now, true);
                    return Ok(done);
                }
                Err(error) => error,
            };
            // A full pool says nothing about the database.
            if error.class() != Class::Exhausted {
                self.breaker.heard(now, error.class() != Class::ConnectionLost);
            }
            tries = tries.saturating_add(1);
            let again = match &error {
                StoreError::Failed { class, begun, .. } => class.may_be_retried(*begun),
                StoreError::Away { .. } => false,
            };
            let pause = backoff::wait(tries, self.jitter.draw(), left(now)).filter(|_| again);
            let Some(pause) = pause else { return Err(error) };
            self.meter.retried(error.class());
            tracing::debug!(error = &error as &dyn std::error::Error, tries, "a transaction is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T, R>(
        &self,
        patience: Duration,
        access: Access,
        asked: Arc<T>,
        synchronous: SyncWork<T, R>,
        asynchronous: AsyncWork<T, R>,
    ) -> Result<R, StoreError>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
    {
        let _turn = match &self.write_turn {
            Some(turn) if access.writes() => Some(
                timeout(patience, turn.acquire())
                    .await
                    .map_err(|elapsed| StoreError::before(Class::Exhausted, elapsed))?
                    .map_err(|closed| StoreError::before(Class::Exhausted, closed))?,
            ),
            _ => None,
        };
        match &self.driver {
            Driver::Sync(pool) => {
                let lease = self.timed(pool.lease(patience)).await?;
                self.linger().await;
                sync_mode::transact(lease, access, self.slow, asked, synchronous).await
            }
            Driver::Async(pool) => {
                let lease = self.timed(pool.lease(patience)).await?;
                self.linger().await;
                async_mode::transact(lease, access, self.slow, asked, asynchronous).await
            }
        }
    }

    async fn timed<L>(&self, lease: impl Future<Output = L>) -> L {
        let begun = clock::now();
        let lease = lease.await;
        self.meter.acquired(clock::now().duration_since(begun));
        lease
    }

    /// `SQLite` has no way to sleep in a query; `PostgreSQL` sleeps by itself.
    async fn linger(&self) {
        if self.write_turn.is_some() && !self.slow.is_zero() {
            tokio::time::sleep(self.slow).await;
        }
    }
}
