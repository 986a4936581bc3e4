//! The right to write to a store in a file, which only one process has: it can be passed on to another.

use std::os::fd::OwnedFd;

use crate::store::Store;

impl Store {
    /// The lock of the store's file, to be passed on with the right to write; `None` if the store is shared.
    #[must_use]
    pub fn lock(&self) -> Option<OwnedFd> {
        self.writer.lock()
    }

    /// Writes nothing from now on, after the write under way.
    pub async fn hand_over(&self) {
        self.writer.hand_over().await;
    }

    /// Writes again.
    pub fn take_back(&self) {
        self.writer.take_back();
    }
}
