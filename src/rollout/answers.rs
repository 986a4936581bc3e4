//! Changes that are asked for with a key, so that asking twice is asking once.

use crate::clock;
use crate::rollout::Rollouts;
use crate::store::{Answer, Claim, Once, StoreError};

impl Rollouts {
    /// Claims the request whose hash is `asked`, unless that was done before. To be called by whoever knows that this gateway is
    /// not at it already.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn claim(&self, once: &Once, asked: &str) -> Result<Claim, StoreError> {
        let claimed = self.store.claim(once, asked, clock::wall().as_second()).await;
        if matches!(claimed, Err(StoreError::HandedOver)) && self.is_back_in_time().await {
            return self.store.claim(once, asked, clock::wall().as_second()).await;
        }
        claimed
    }

    /// Keeps what was answered to what was claimed, or lets go of it.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn keep_answer(&self, once: &Once, answer: Option<&Answer>) -> Result<(), StoreError> {
        match answer {
            Some(answer) => self.store.keep_answer(once, answer).await,
            None => self.store.release(once).await,
        }
    }
}
