//! The flag set in force, and the only way to change it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::flag::FlagSet;

/// Holds the current [`FlagSet`]. Reading never waits: a reader keeps the snapshot that it loaded.
pub struct FlagStore<T> {
    current: ArcSwap<FlagSet<T>>,
    /// Orders the writers, so that a change is always made on the newest set.
    writer: Mutex<()>,
}

impl<T> FlagStore<T> {
    /// A store with `set` in force.
    #[must_use]
    pub fn new(set: FlagSet<T>) -> Self {
        Self { current: ArcSwap::from_pointee(set), writer: Mutex::new(()) }
    }

    /// The set in force at this moment.
    pub fn load(&self) -> Guard<Arc<FlagSet<T>>> {
        self.current.load()
    }

    /// Puts the set that `change` makes of the current one in force, if it makes one. What `change` returns beside it
    /// is handed on. No other change can come in between.
    pub fn update<R>(&self, change: impl FnOnce(&FlagSet<T>) -> (Option<FlagSet<T>>, R)) -> R {
        // A writer that panicked has not stored anything: the set is whole either way.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, result) = change(&self.current.load());
        if let Some(set) = set {
            self.current.store(Arc::new(set));
        }
        result
    }
}

impl<T: fmt::Debug> fmt::Debug for FlagStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlagStore").field("current", &self.current).finish_non_exhaustive()
    }
}
