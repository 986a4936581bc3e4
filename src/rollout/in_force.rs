//! Another state of a rollout is put in force, and becomes a record for the store. Whoever decides on it comes through here.

use std::sync::Arc;

use tracing::{info, warn};

use crate::api::Rollback;
use crate::flag::Rollout;
use crate::recorder::RecordedFlag;
use crate::rollout::book::Book;
use crate::rollout::counts::of_canary;
use crate::rollout::status::evidence;
use crate::rollout::why::of_rollback;
use crate::rollout::{ROLLBACK, Rollouts, now_text};
use crate::store::{Record, StoredRollout, state_of};

impl Rollouts {
    /// Takes the canary out of traffic now, and queues the record of it.
    pub(crate) fn roll_back(
        &self,
        book: &mut Book,
        entry: &RecordedFlag,
        cause: &str,
        by: &str,
        reason: Option<String>,
    ) {
        let key = &entry.flag.key;
        let rollout = book.after_reserved(key, entry.rollout.roll_back());
        let (requests, failures) = of_canary(book, entry);
        let rollback = Rollback {
            at: now_text(),
            cause: cause.to_owned(),
            evidence: book.live.get(key).map(evidence).unwrap_or_default(),
            requests,
            failures,
            by: by.to_owned(),
            reason: reason.clone(),
            why: book.live.get(key).and_then(|live| of_rollback(live, entry, cause)).map(Box::new),
        };
        let after = StoredRollout { flag: key.clone(), rollout, rollback: Some(rollback) };
        let record = record(after, Some(&entry.rollout), ROLLBACK.to_owned(), by, reason);
        self.put_in_force(book, &record);
        book.counters.count_rollback(key, cause);
        book.unsaved.push_back(record);
        self.unsaved.notify_one();
    }

    pub(crate) fn put_in_force(&self, book: &mut Book, record: &Record) {
        self.enforce(book, &record.after);
        announce(record);
    }

    pub(crate) fn enforce(&self, book: &mut Book, after: &StoredRollout) {
        let StoredRollout { flag: key, rollout, rollback } = after;
        let set = self.flags.load();
        if rollback.is_none() && book.live.get(key).is_some_and(|live| live.rollback.is_some()) {
            book.lifted.insert(key.clone(), rollout.generation);
        }
        let (Some(before), Some(live)) = (set.get(key), book.live.get_mut(key)) else { return };
        live.next_generation(&self.instance.id, before, rollout, rollback.clone());
        self.flags.update(|set| {
            let flag = Arc::clone(&before.flag);
            let attached = self.recorder.open(&flag, live.definition.failures);
            (Some(set.with(RecordedFlag { flag, rollout: rollout.clone(), attached })), ())
        });
    }
}

pub(crate) fn record(
    after: StoredRollout,
    before: Option<&Rollout>,
    action: String,
    actor: &str,
    reason: Option<String>,
) -> Record {
    let base = before.map(|before| before.generation);
    let before = before.map(state_of);
    Record { after, before, base, at: now_text(), action, actor: actor.to_owned(), reason, beta: None, once: None }
}

/// Logs a change that is in force. A latch that goes on being latched is no new rollback.
pub(crate) fn announce(record: &Record) {
    let StoredRollout { flag, rollout, rollback } = &record.after;
    let rollback = rollback.as_ref().filter(|_| record.action == ROLLBACK);
    let state = state_of(rollout);
    let old = record.before.as_ref().map_or(0.0, |before| before.percentage);
    match rollback {
        Some(rollback) => warn!(
            feature_flag.key = %flag, cause = %rollback.cause, by = %rollback.by, requests = rollback.requests,
            failures = rollback.failures, generation = rollout.generation.get(), "canary rolled back",
        ),
        None => info!(
            feature_flag.key = %flag, action = %record.action, by = %record.actor, old_percent = old,
            percent = state.percentage, phase = %state.phase, generation = rollout.generation.get(), "rollout changed",
        ),
    }
}
