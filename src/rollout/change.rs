//! Changes that somebody asks for: stored first, then put in force. A rollback is the other way round.

use std::sync::Arc;

use crate::flag::{FlagKey, Phase};
use crate::recorder::RecordedFlag;
use crate::rollout::approvals::Needed;
use crate::rollout::beta::beta_event;
use crate::rollout::book::Book;
use crate::rollout::command::{ChangeError, Command, Request, Saved};
use crate::rollout::in_force::record;
use crate::rollout::ramp::stay;
use crate::rollout::{Rollouts, now_text};
use crate::store::{REASSERT, Record, StoreError, StoredRollout};

/// How often a change is tried that other gateways overtake.
const ATTEMPTS: u32 = 5;

impl Rollouts {
    /// Makes the change that `request` asks for, or nothing.
    ///
    /// # Errors
    ///
    /// Says why it was not made. A rollback is made even if it cannot be stored yet.
    pub async fn change(self: &Arc<Self>, key: FlagKey, request: Request) -> Result<Saved, ChangeError> {
        // In a task of its own: if the asker goes away in the middle, a change must not stay stored and not in force.
        let rollouts = Arc::clone(self);
        let changed = tokio::spawn(async move { rollouts.make_change_in_time(&key, request).await }).await;
        changed.unwrap_or(Err(ChangeError::Interrupted))
    }

    pub(crate) async fn make_change(&self, key: &FlagKey, request: Request) -> Result<Saved, ChangeError> {
        if self.is_unread() {
            return Err(ChangeError::Store(StoreError::Unreached));
        }
        if request.command == Command::RollBack {
            self.roll_back_by_hand(key, request)?;
            return Ok(if self.flush().await.is_ok() { Saved::Yes } else { Saved::Later });
        }
        let expected = request.expected;
        for _ in 0..ATTEMPTS {
            let made = self.change_once(key, &request).await;
            if !matches!(made, Err(ChangeError::Store(StoreError::Newer(_)))) {
                return made;
            }
            // Another gateway was first. Unless the asker meant its picture only, the change is made on the new one.
            let _saving = self.saving.lock().await;
            self.settle(key).await?;
            if expected.is_some() {
                break;
            }
        }
        Err(ChangeError::Overtaken)
    }

    async fn change_once(&self, key: &FlagKey, request: &Request) -> Result<Saved, ChangeError> {
        let _saving = self.saving.lock().await;
        // Without what is waiting to be written, the store's picture is too old to build a change on.
        self.write_unsaved().await?;
        let Some(record) = self.prepare(key, request)? else { return Ok(Saved::Yes) };
        let stored = self.save(&record).await;
        let mut book = self.book();
        self.note_store_health(&mut book, stored.as_ref().err());
        if let (Err(StoreError::Unconfirmed(_)), false) = (&stored, self.store.is_shared()) {
            // It may still be written: what is in force has to be written over it.
            self.reassert(&mut book, key, request);
        }
        book.reserved = None;
        // In a shared store, another gateway may have built on it by then: whatever it holds is taken over.
        stored.map_err(|error| match error {
            error @ StoreError::Unconfirmed(_) if self.store.is_shared() => ChangeError::Uncertain(error),
            error => ChangeError::Store(error),
        })?;
        let overtaken = match self.flags.load().get(key) {
            Some(entry) => entry.rollout.generation >= record.after.rollout.generation,
            None => true,
        };
        if overtaken {
            return Err(ChangeError::Overtaken);
        }
        self.put_in_force(&mut book, &record);
        Ok(Saved::Yes)
    }

    /// The record of the change, with its generation reserved; `None` if there is nothing to change.
    fn prepare(&self, key: &FlagKey, request: &Request) -> Result<Option<Record>, ChangeError> {
        let mut book = self.book();
        if self.is_handed_over() {
            return Err(ChangeError::HandedOver);
        }
        let set = self.flags.load();
        let entry = looked_at(set.get(key), key, request)?;
        let Some(live) = book.live.get(key) else { return Err(ChangeError::UnknownFlag(key.clone())) };
        let (before, ramp) = (&live.progress.standing(&entry.rollout), entry.flag.ramp.as_ref());
        let at = now_text();
        let mut beta = None;
        let after = match &request.command {
            Command::Set(percentage) => before.set(*percentage)?,
            Command::Beta { percentage, add, remove } => {
                let moved = percentage.map_or_else(|| Ok(before.clone()), |percentage| before.set(percentage))?;
                let (after, changed) = moved.change_beta(&entry.flag, add, remove, &request.actor, &at)?;
                beta = Some(beta_event(&changed));
                after
            }
            Command::Pause => before.pause()?,
            Command::Resume(percentage) => before.resume(*percentage, ramp)?,
            Command::Promote => before.promote()?,
            Command::Skip => before.skip(ramp)?,
            Command::Approve => before.approve(ramp, stay(live))?,
            Command::RollBack => before.roll_back(),
            Command::Follow(action) => before.follow(*action),
        };
        let command = &request.command;
        if after.generation == before.generation {
            return Ok(None);
        }
        if request.second.is_none()
            && command.is_a_persons()
            && book.second_operator.is_some_and(|rule| rule.is_needed(before, &after))
        {
            let (generation, from, to) = (before.generation, before.in_force(), after.percentage);
            return Err(ChangeError::NeedsSecond(Needed { generation, from, to }));
        }
        let rollback = live.rollback.clone().filter(|_| after.phase == Phase::RolledBack);
        book.reserved = Some((key.clone(), after.generation));
        let after = StoredRollout { flag: key.clone(), rollout: after, rollback };
        let Request { command, actor, reason, once, second, .. } = request;
        let actor = second.as_ref().map_or_else(|| actor.clone(), |second| format!("{actor}, approved by {second}"));
        let record = record(after, Some(before), command.action().to_owned(), &actor, reason.clone());
        Ok(Some(Record { beta, at, once: once.clone(), ..record }))
    }

    /// Gives the state in force a newer generation than the change that may or may not have been stored, and queues it.
    fn reassert(&self, book: &mut Book, key: &FlagKey, request: &Request) {
        let set = self.flags.load();
        let (Some(entry), Some(live)) = (set.get(key), book.live.get(key)) else { return };
        let before = &live.progress.standing(&entry.rollout);
        let rollout = book.after_reserved(key, before.clone());
        let rollback = live.rollback.clone();
        let after = StoredRollout { flag: key.clone(), rollout, rollback };
        let reason =
            Some("the store did not say in time whether it kept a change; this is what is in force".to_owned());
        let record = record(after, Some(before), REASSERT.to_owned(), &request.actor, reason);
        let record = Record { once: request.once.clone(), ..record };
        self.put_in_force(book, &record);
        book.unsaved.push_back(record);
        self.unsaved.notify_one();
    }

    fn roll_back_by_hand(&self, key: &FlagKey, request: Request) -> Result<(), ChangeError> {
        let mut book = self.book();
        if self.is_handed_over() {
            return Err(ChangeError::HandedOver);
        }
        let set = self.flags.load();
        let entry = looked_at(set.get(key), key, &request)?;
        if entry.rollout.phase == Phase::RolledBack {
            return Ok(());
        }
        self.roll_back(&mut book, entry, "manual", &request.actor, request.reason);
        Ok(())
    }
}

/// The flag that a request is about, if it is still what the asker looked at.
fn looked_at<'s>(
    entry: Option<&'s Arc<RecordedFlag>>,
    key: &FlagKey,
    request: &Request,
) -> Result<&'s Arc<RecordedFlag>, ChangeError> {
    let entry = entry.ok_or_else(|| ChangeError::UnknownFlag(key.clone()))?;
    let actual = entry.rollout.generation;
    match request.expected {
        Some(expected) if expected != actual => Err(ChangeError::Stale { expected, actual }),
        _ => Ok(entry),
    }
}
