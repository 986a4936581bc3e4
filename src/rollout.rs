//! The rollouts: every change of them goes through here, and the tick that judges the canaries lives here.
//!
//! Two orders of events matter. What a person asks for is stored first and then put in force, so that nothing
//! acknowledged is ever lost. What protects users (a rollback, and what the flag files say) is put in force first and
//! stored as soon as the store lets us: a store that is down can delay a record, never a rollback.

mod answers;
mod approvals;
mod arrival;
mod asked;
mod beta;
mod book;
mod command;
mod counts;
mod exchange;
mod explanation;
mod fleet;
mod handover;
mod latency;
mod merge;
mod ramp;
mod saving;
mod seconds;
mod status;
mod trial;
mod why;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::api::{Instance, Rollback};
use crate::availability::Availability;
use crate::clock;
use crate::diagnostic::Diagnostic;
use crate::flag::{Arm, FlagKey, Generation, Percentage, Phase, Rollout};
use crate::flag_file::{Definition, set_version};
use crate::recorder::{RecordedFlag, RecordedFlagSet, RecordedFlagStore, Recorder};
use crate::rollout::arrival::Kept;
use crate::rollout::beta::beta_event;
use crate::rollout::book::{Book, Live, basis};
use crate::rollout::exchange::CUT_OFF;
use crate::rollout::merge::larger;
use crate::rollout::ramp::stay;
use crate::rollout::trial::Sharing;
use crate::store::{REASSERT, Record, Store, StoreError, StoredRollout, state_of};
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

/// How often a change is tried that other gateways overtake.
const ATTEMPTS: u32 = 5;

/// The action of taking a canary out.
const ROLLBACK: &str = "rollback";

/// The cause of taking out a canary that nobody can be sent to.
const CANARY_UNAVAILABLE: &str = "canary_unavailable";

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

    /// Puts what the flag files say in force, all of it at once, or keeps the last good set and notes what is wrong.
    pub fn adopt_files(&self, loaded: Result<Vec<Definition>, Vec<Diagnostic>>) {
        match loaded {
            Ok(definitions) => self.adopt(definitions),
            Err(problems) => {
                let mut book = self.book();
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                if lines != book.bad_files {
                    for problem in &lines {
                        error!(%problem, in_force = book.live.len(), "bad flag file; what was in force stays so");
                    }
                }
                book.counters.count_reload(ReloadResult::Rejected);
                book.bad_files = lines;
            }
        }
    }

    fn adopt(&self, definitions: Vec<Definition>) {
        let mut book = self.book();
        if !book.bad_files.is_empty() {
            info!("the flag files are good again");
            book.bad_files.clear();
        }
        if book.is_same(&definitions) {
            return;
        }
        self.put_files_in_force(&mut book, &self.flags.load(), definitions);
        drop(book);
        self.unsaved.notify_one();
    }

    fn put_files_in_force(&self, book: &mut Book, current: &RecordedFlagSet, definitions: Vec<Definition>) {
        let mut gone = std::mem::take(&mut book.live);
        let mut entries = Vec::new();
        let version = set_version(&definitions);
        for definition in definitions {
            let key = definition.flag.key.clone();
            let live = gone.remove(&key);
            entries.push(if book.unread {
                self.withhold(book, definition)
            } else {
                self.adopt_one(book, current.get(&key), live, definition)
            });
        }
        for (key, live) in gone {
            if let (Some(entry), false) = (current.get(&key), book.unread) {
                info!(feature_flag.key = %key, "the flag's file is gone; its rollout is kept for when it comes back");
                let rollout = live.progress.standing(&entry.rollout);
                book.dormant.insert(key.clone(), StoredRollout { flag: key, rollout, rollback: live.rollback });
            }
        }
        self.flags.update(|_| (Some(RecordedFlagSet::from_iter(entries).of_version(version)), ()));
        book.counters.count_reload(ReloadResult::Applied);
        book.counters.flags_since = clock::now();
    }

    fn adopt_one(
        &self,
        book: &mut Book,
        entry: Option<&Arc<RecordedFlag>>,
        live: Option<Live>,
        definition: Definition,
    ) -> Arc<RecordedFlag> {
        let flag = Arc::new(definition.flag.clone());
        let dormant = book.dormant.remove(&flag.key);
        let standing = |entry: &Arc<RecordedFlag>| {
            live.as_ref().map_or_else(|| entry.rollout.clone(), |live| live.progress.standing(&entry.rollout))
        };
        let before = entry.map(standing).or(dormant.as_ref().map(|kept| kept.rollout.clone()));
        let kept = dormant.and_then(|kept| kept.rollback);
        let latched = live.as_ref().and_then(|live| live.rollback.clone()).or(kept);
        let (rollout, actions) = match &before {
            Some(before) => {
                let (rollout, adoptions) = before.adopt(&flag, entry.map(|entry| &*entry.flag));
                (rollout, adoptions.into_iter().map(|adoption| adoption.as_str()).collect())
            }
            None => (Rollout::begin(&flag, Generation::FIRST), vec!["release"]),
        };
        let rollout = if actions.is_empty() { rollout } else { book.after_reserved(&flag.key, rollout) };
        let rollback = latched.filter(|_| rollout.phase == Phase::RolledBack);
        if !actions.is_empty() {
            let after = StoredRollout { flag: flag.key.clone(), rollout: rollout.clone(), rollback: rollback.clone() };
            let reason = Some(definition.path.display().to_string());
            let record = record(after, before.as_ref(), actions.join(", "), BY_FILE, reason);
            announce(&record);
            book.unsaved.push_back(record);
        }
        // The same generation goes on in the same ledger, unless other outcomes are failures now: what else the file says
        // changes nothing about them.
        let failures = definition.failures;
        let same_generation = entry
            .filter(|entry| entry.rollout.generation == rollout.generation && entry.attached.failures() == failures);
        let attached =
            same_generation.map_or_else(|| self.recorder.open(&flag, failures), |entry| Arc::clone(&entry.attached));
        let kept = book.kept_trials.remove(&flag.key);
        let since = book.lifted.get(&flag.key).copied().unwrap_or(Generation::FIRST);
        let sharing = if self.store.is_shared() { Sharing::Yes } else { Sharing::No };
        let live = match live.filter(|live| basis(&live.definition) == basis(&definition)) {
            Some(live) => {
                let mut live = Live { definition, ..live };
                if let (None, Some(before)) = (same_generation, entry) {
                    live.next_generation(&self.instance.id, before, &rollout, rollback);
                }
                live
            }
            None => Live::new(definition, &rollout, rollback, since, sharing, kept),
        };
        book.live.insert(flag.key.clone(), live);
        Arc::new(RecordedFlag { flag, rollout, attached })
    }

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

    async fn make_change(&self, key: &FlagKey, request: Request) -> Result<Saved, ChangeError> {
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

    /// Takes the canary out of traffic now, and queues the record of it.
    fn roll_back(&self, book: &mut Book, entry: &RecordedFlag, cause: &str, by: &str, reason: Option<String>) {
        let key = &entry.flag.key;
        let rollout = book.after_reserved(key, entry.rollout.roll_back());
        let fleet = book.live.get(key).and_then(|live| live.on_trial.fleet_counts(entry.rollout.generation));
        let (requests, failures) = larger(entry.attached.counts(Arm::Canary), fleet);
        let rollback = Rollback {
            at: now_text(),
            cause: cause.to_owned(),
            evidence: book.live.get(key).map(status::evidence).unwrap_or_default(),
            requests,
            failures,
            by: by.to_owned(),
            reason: reason.clone(),
            why: book.live.get(key).and_then(|live| why::why(live, entry)).map(Box::new),
        };
        let after = StoredRollout { flag: key.clone(), rollout, rollback: Some(rollback) };
        let record = record(after, Some(&entry.rollout), ROLLBACK.to_owned(), by, reason);
        self.put_in_force(book, &record);
        book.counters.count_rollback(key, cause);
        book.unsaved.push_back(record);
        self.unsaved.notify_one();
    }

    fn put_in_force(&self, book: &mut Book, record: &Record) {
        self.enforce(book, &record.after);
        announce(record);
    }

    fn enforce(&self, book: &mut Book, after: &StoredRollout) {
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

    /// Judges every canary on what has come in up to `now`, and rolls back those that are worse.
    pub fn tick(&self, now: Instant) {
        let mut book = self.book();
        if self.is_handed_over() {
            return;
        }
        let set = self.flags.load();
        let mut worse = Vec::new();
        let second = clock::wall().as_second();
        let cut_off = now.saturating_duration_since(book.exchanged) >= CUT_OFF;
        let mut away = Vec::new();
        for (key, live) in &mut book.live {
            let Some(entry) = set.get(key) else { continue };
            live.progress.look(now, &entry.rollout, &entry.attached);
            if !entry.rollout.enabled || entry.rollout.phase == Phase::RolledBack {
                continue;
            }
            let since = self.availability.unavailable_since(entry.flag.backend(Arm::Canary));
            let for_too_long = since
                .is_some_and(|since| now.saturating_duration_since(since) >= live.definition.guard.max_unavailable);
            if for_too_long && entry.rollout.in_force() > Percentage::ZERO {
                away.push(Arc::clone(entry));
                continue;
            }
            if cut_off {
                live.on_trial.go_alone();
            }
            let found = live.on_trial.observe(now, entry);
            live.tape.add(second, &self.instance.id, entry, live.on_trial.heard());
            worse.extend(found.map(|cause| (Arc::clone(entry), cause)));
        }
        for entry in away {
            let reason = Some("no server of the canary's can be used".to_owned());
            self.roll_back(&mut book, &entry, CANARY_UNAVAILABLE, BY_JUDGE, reason);
        }
        for (entry, cause) in worse {
            self.roll_back(&mut book, &entry, cause.as_str(), BY_JUDGE, None);
        }
    }

    /// Judges the canaries at every tick until `shutdown` turns true.
    pub async fn judge_until(&self, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(clock::now()),
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change of the book is complete before anything that could panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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

fn record(
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

/// The time in RFC 3339, to the millisecond.
fn now_text() -> String {
    format!("{:.3}", clock::wall())
}

/// Logs a change that is in force. A latch that goes on being latched is no new rollback.
fn announce(record: &Record) {
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
