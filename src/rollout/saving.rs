//! How what is in force gets into the store, whatever state the store is in.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock;
use crate::rollout::book::Book;
use crate::rollout::{Rollouts, now_text};
use crate::store::{Note, Record, StoreError};
use crate::telemetry::chain;

/// How often the store is asked whether it still takes writes, and what could not be written is tried again.
const STORE_PROBE: Duration = Duration::from_secs(1);

/// How often the evidence is kept. What a killed process had seen since then is forgotten: that costs evidence, and
/// nothing of the bound on false rollbacks, since when it was killed says nothing about the outcomes.
const TRIALS_KEPT: Duration = Duration::from_secs(2);

impl Rollouts {
    /// Writes what waits to be written as soon as the store takes it, until `shutdown` turns true; then once more.
    pub async fn save_until(&self, mut shutdown: watch::Receiver<bool>) {
        let mut trials = interval(TRIALS_KEPT);
        trials.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probes = interval(STORE_PROBE);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stop = tokio::select! {
                () = self.unsaved.notified() => false,
                // Nothing is written here while another process may.
                _ = probes.tick(), if !self.is_handed_over() => {
                    let probed = match self.is_unread() {
                        true => self.take_up().await,
                        false => self.store.beat(&self.instance()).await,
                    };
                    self.note_store_health(&mut self.book(), probed.as_ref().err());
                    // Told again with the next probe if it was not.
                    let _ = self.tell_counts().await;
                    false
                }
                _ = trials.tick(), if !self.is_handed_over() => {
                    self.keep_trials().await;
                    continue;
                }
                () = async { drop(shutdown.wait_for(|stop| *stop).await) } => true,
            };
            // A failure is noted where it happened, and tried again with the next probe.
            let _ = self.flush().await;
            if stop {
                // What is not told now is not told.
                let _ = self.tell_counts().await;
                return;
            }
        }
    }

    /// Keeps the evidence as it is now, how far the ramps have come, and what was counted in the seconds that are over. What the
    /// store does not take is kept the next time, but for the seconds, which are lost.
    pub async fn keep_trials(&self) {
        let _saving = self.saving.lock().await;
        if self.is_handed_over() {
            return;
        }
        // A failure is noted, and what was not kept is kept the next time.
        let _ = self.write_trials().await;
    }

    /// To be called with `saving` held.
    pub(crate) async fn write_trials(&self) -> Result<(), StoreError> {
        let (mut kept, mut ramps, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
        if self.is_unread() {
            return Ok(());
        }
        let now = clock::wall().as_second();
        {
            let mut book = self.book();
            // A set and its book belong together while the book is in hand.
            let set = self.flags.load();
            for (key, live) in &mut book.live {
                let entry = set.get(key);
                kept.extend(entry.and_then(|entry| live.on_trial.take_changes(key, &entry.attached)));
                let generation = entry.map(|entry| entry.rollout.generation);
                seconds.extend(live.tape.take_before(now).into_iter().map(|second| (key.clone(), second)));
                ramps.extend(generation.zip(live.progress.take_changes()).map(|(at, state)| (key.clone(), at, state)));
            }
        }
        if kept.is_empty() && ramps.is_empty() && seconds.is_empty() {
            return Ok(());
        }
        let saved = async {
            self.store.save_trials(&kept).await?;
            self.store.save_ramps(&ramps).await?;
            // Last, since nothing rests on them: what is not taken is lost.
            if seconds.is_empty() { Ok(()) } else { self.store.save_seconds(&seconds).await }
        };
        let saved = saved.await;
        self.note_store_health(&mut self.book(), saved.as_ref().err());
        saved
    }

    /// Keeps an event that is about the gateway as a whole. If the store does not take it, the log alone has it.
    pub async fn note(&self, action: &str, actor: &str, reason: &str) {
        let _saving = self.saving.lock().await;
        let event = Note { at: &now_text(), about: None, action, actor, reason };
        match self.store.note(event).await {
            Ok(()) => self.written.send_modify(|count| *count += 1),
            Err(error) => warn!(action, actor, problem = chain(&error), "an event could not be kept"),
        }
    }

    /// Writes what waits to be written.
    ///
    /// # Errors
    ///
    /// If the store fails; what was not written still waits.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let _saving = self.saving.lock().await;
        self.write_unsaved().await
    }

    /// To be called with `saving` held.
    pub(crate) async fn write_unsaved(&self) -> Result<(), StoreError> {
        loop {
            let Some(record) = self.book().unsaved.front().cloned() else { return Ok(()) };
            let saved = self.save(&record).await;
            if let Err(StoreError::Newer(flag)) = &saved {
                self.settle(flag).await?;
                continue;
            }
            let mut book = self.book();
            if saved.is_ok() {
                book.unsaved.pop_front();
            }
            self.note_store_health(&mut book, saved.as_ref().err());
            saved?;
        }
    }

    pub(crate) async fn save(&self, record: &Record) -> Result<(), StoreError> {
        let flag = &record.after.flag;
        let own = self.book().written.get(flag).copied();
        let saved = self.store.save(record, own).await;
        if saved.is_ok() {
            self.book().written.insert(flag.clone(), record.after.rollout.generation);
            self.written.send_modify(|count| *count += 1);
        }
        saved
    }

    pub(crate) fn note_store_health(&self, book: &mut Book, error: Option<&StoreError>) {
        // Another gateway's newer state is no failure, nor is its right to write.
        let fails = |error: &&StoreError| !matches!(error, StoreError::Newer(_) | StoreError::HandedOver);
        let text = error.filter(fails).map(|error| chain(error));
        match (&book.store_error, &text) {
            (None, Some(problem)) => {
                warn!(%problem, "the store fails; traffic and rollbacks go on, other changes are refused");
            }
            // It is not well before what waited is written.
            (Some(_), None) if !book.unsaved.is_empty() => return,
            (Some(_), None) => info!("the store takes writes again"),
            _ => {}
        }
        book.store_error = text;
    }
}
