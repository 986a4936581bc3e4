//! Giving the right to change the rollouts to another process, and taking it back.
//!
//! It is about a store that only one may write to. Gateways that share one go on beside each other.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::clock;
use crate::flag::FlagKey;
use crate::rollout::Rollouts;
use crate::rollout::command::{ChangeError, Request, Saved};
use crate::store::StoreError;
use crate::telemetry::chain;

/// How long a change waits for what becomes of a handover.
const PATIENCE: Duration = Duration::from_secs(2);

impl Rollouts {
    /// Writes down all that is known, and changes and judges nothing from then on.
    ///
    /// # Errors
    ///
    /// If something cannot be written; then all goes on as before.
    pub async fn hand_over(&self) -> Result<(), StoreError> {
        if self.store.is_shared() {
            return self.flush().await;
        }
        let _saving = self.saving.lock().await;
        // What has come in up to now is evidence.
        self.tick(clock::now());
        self.set_handed_over(true);
        let written = async {
            self.write_unsaved().await?;
            self.write_trials().await
        };
        let written = written.await;
        match &written {
            Ok(()) => self.store.hand_over().await,
            Err(_) => self.set_handed_over(false),
        }
        written
    }

    /// Goes on, with what the other has written meanwhile.
    pub async fn take_back(&self) {
        if self.store.is_shared() {
            return;
        }
        self.store.take_back();
        if let Err(error) = self.follow().await {
            warn!(problem = chain(&error), "what was written meanwhile cannot be read now");
        }
        self.set_handed_over(false);
        self.unsaved.notify_one();
        info!("this gateway judges and changes rollouts again");
    }

    /// Whether another process has the right to change the rollouts. With the book in hand it stays as it is.
    pub(crate) fn is_handed_over(&self) -> bool {
        *self.handed_over.borrow()
    }

    fn set_handed_over(&self, handed_over: bool) {
        let _book = self.book();
        self.handed_over.send_replace(handed_over);
    }

    /// Makes the change; once it is clear that this gateway may.
    pub(crate) async fn make_change_in_time(&self, key: &FlagKey, request: Request) -> Result<Saved, ChangeError> {
        let made = self.make_change(key, request.clone()).await;
        if !matches!(made, Err(ChangeError::HandedOver | ChangeError::Store(StoreError::HandedOver))) {
            return made;
        }
        if self.is_back_in_time().await { self.make_change(key, request).await } else { made }
    }

    /// Whether this gateway may change the rollouts again, after as long as somebody who asks is to wait for that.
    pub(crate) async fn is_back_in_time(&self) -> bool {
        let mut handed_over = self.handed_over.subscribe();
        timeout(PATIENCE, handed_over.wait_for(|handed_over| !handed_over)).await.is_ok()
    }
}
