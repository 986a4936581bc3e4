//! Taking the rollouts up from the store: at the start, or as soon as a store is there that could not be reached then.
//!
//! Until a shared store was read, nobody here knows which flags are rolled back, nor what people asked for. So every flag
//! serves stable, as if it was latched, in generation 0, which no store holds and nobody can change.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;

use crate::api::{Rollback, STORE_UNREACHED};
use crate::flag::{FlagKey, Generation, Percentage, Phase, Rollout};
use crate::flag_file::Definition;
use crate::recorder::{RecordedFlag, RecordedFlagSet};
use crate::rollout::book::{Book, Live};
use crate::rollout::trial::Sharing;
use crate::rollout::{Rollouts, now_text};
use crate::store::{Store, StoreError, StoredApproval, StoredRollout, StoredTrial};

/// Who takes it back: this gateway, from itself.
const BY_GATEWAY: &str = "gateway";

/// What a store holds that rollouts go on from.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) rollouts: Vec<StoredRollout>,
    pub(crate) trials: Vec<StoredTrial>,
    pub(crate) lifted: BTreeMap<FlagKey, Generation>,
    pub(crate) waiting: Vec<StoredApproval>,
}

impl Kept {
    /// Reads it, once the store is as this version wants it.
    pub(crate) async fn read(store: &Store) -> Result<Self, StoreError> {
        store.prepare().await?;
        Ok(Self {
            rollouts: store.rollouts().await?,
            trials: store.trials().await?,
            lifted: store.lifted().await?,
            waiting: store.waiting().await?,
        })
    }
}

impl Rollouts {
    /// Goes on from a store that could not be reached at the start.
    ///
    /// # Errors
    ///
    /// If it still cannot be; then all is as it was.
    pub(crate) async fn take_up(&self) -> Result<(), StoreError> {
        let kept = Kept::read(&self.store).await?;
        let mut book = self.book();
        book.take_up(kept);
        let definitions = std::mem::take(&mut book.live).into_values().map(|live| live.definition).collect();
        info!("the store can be reached: the rollouts are taken up from it");
        self.put_files_in_force(&mut book, &RecordedFlagSet::default(), definitions);
        drop(book);
        self.unsaved.notify_one();
        Ok(())
    }

    /// Whether nothing is known of the rollouts yet, since the store could not be reached.
    pub(crate) fn is_unread(&self) -> bool {
        self.book().unread
    }

    /// Has everyone served by stable until the flag's rollout can be read.
    pub(crate) fn withhold(&self, book: &mut Book, definition: Definition) -> Arc<RecordedFlag> {
        let flag = Arc::new(definition.flag.clone());
        let rollout = Rollout {
            phase: Phase::RolledBack,
            percentage: Percentage::ZERO,
            ..Rollout::begin(&flag, Generation::new(0))
        };
        let rollback = Rollback {
            at: now_text(),
            cause: STORE_UNREACHED.to_owned(),
            evidence: Vec::new(),
            requests: 0,
            failures: 0,
            by: BY_GATEWAY.to_owned(),
            reason: Some("the store cannot be reached, so nobody here knows whether it is rolled back".to_owned()),
            why: None,
        };
        let attached = self.recorder.open(&flag, definition.failures);
        let live = Live::new(definition, &rollout, Some(rollback), Generation::FIRST, Sharing::Yes, None);
        book.live.insert(flag.key.clone(), live);
        Arc::new(RecordedFlag { flag, rollout, attached })
    }
}
