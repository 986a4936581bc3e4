//! The rollouts: every change of them goes through here, and the tick that judges the canaries lives here.
//!
//! Two orders of events matter. What a person asks for is stored first and then put in force, so that nothing
//! acknowledged is ever lost. What protects users (a rollback, and what the flag files say) is put in force first and
//! stored as soon as the store lets us: a store that is down can delay a record, never a rollback.

mod adoption;
mod answers;
mod approvals;
mod arrival;
mod asked;
mod beta;
mod book;
mod change;
mod command;
mod counts;
mod exchange;
mod explanation;
mod fleet;
mod handover;
mod in_force;
mod latency;
mod merge;
mod ramp;
mod saving;
mod seconds;
mod status;
mod tick;
mod trial;
mod why;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tracing::warn;

use crate::api::Instance;
use crate::availability::Availability;
use crate::clock;
use crate::recorder::{RecordedFlagStore, Recorder};
use crate::rollout::arrival::Kept;
use crate::rollout::book::Book;
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

pub use crate::rollout::approvals::Needed;
pub use crate::rollout::asked::{AskedError, AskedRequest};
pub use crate::rollout::beta::CursorError;
pub use crate::rollout::book::{Counters, ReloadResult};
pub use crate::rollout::command::{ChangeError, Command, Request, Saved};
pub use crate::rollout::explanation::explanation;
pub use crate::rollout::status::flagd_export;
pub use crate::rollout::trial::settings;

/// How often the canaries are judged.
pub const TICK: Duration = Duration::from_millis(100);

/// The action of taking a canary out.
const ROLLBACK: &str = "rollback";

/// The actor of what flag files change.
const BY_FILE: &str = "file";

/// The actor of what the judge decides.
const BY_JUDGE: &str = "judge";

/// The actor of what a ramp does.
const BY_RAMP: &str = "ramp";

/// Every rollout, with what is needed to change, judge and keep it.
pub struct Rollouts {
    flags: Arc<RecordedFlagStore>,
    recorder: Arc<Recorder>,
    availability: Arc<Availability>,
    store: Store,
    /// Held for moments only, never while waiting for anything.
    book: Mutex<Book>,
    /// Orders everything that writes to the store.
    saving: AsyncMutex<()>,
    unsaved: Notify,
    /// Whether another process has the right to change the rollouts. Changed with the book in hand only.
    handed_over: watch::Sender<bool>,
    /// Counts what was written to the audit trail.
    written: watch::Sender<u64>,
    /// This gateway, as others see it.
    instance: Instance,
}

impl fmt::Debug for Rollouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollouts").field("flags", &self.flags).finish_non_exhaustive()
    }
}

impl Rollouts {
    /// Takes up the rollouts where the store has them; `name` is what the gateway is called among those that share it.
    /// No flag is in force before [`Rollouts::adopt_files`]. While a store that gateways share cannot be reached, every flag
    /// serves stable; [`Rollouts::save_until`] takes the rollouts up when it can.
    ///
    /// # Errors
    ///
    /// If the store cannot be read and waiting would not help: without it a latch might be missed.
    pub async fn open(
        flags: Arc<RecordedFlagStore>,
        recorder: Arc<Recorder>,
        availability: Arc<Availability>,
        store: Store,
        name: String,
    ) -> Result<Arc<Self>, StoreError> {
        let mut book = Book::new(clock::now());
        match Kept::read(&store).await {
            Ok(kept) => book.take_up(kept),
            Err(error) if store.is_shared() && error.may_pass() => {
                let problem = chain(&error);
                warn!(%problem, "the store cannot be reached: every flag serves stable until it can");
                book.store_error = Some(problem);
            }
            Err(error) => return Err(error),
        }
        let (saving, unsaved) = (AsyncMutex::new(()), Notify::new());
        let (written, handed_over) = (watch::Sender::new(0), watch::Sender::new(false));
        let instance = fleet::instance(name, now_text());
        let book = Mutex::new(book);
        Ok(Arc::new(Self {
            flags,
            recorder,
            availability,
            store,
            book,
            saving,
            unsaved,
            handed_over,
            written,
            instance,
        }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change of the book is complete before anything that could panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time in RFC 3339, to the millisecond.
fn now_text() -> String {
    format!("{:.3}", clock::wall())
}
