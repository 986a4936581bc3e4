//! What the flag files say is put in force: all of it at once, or nothing.

use std::sync::Arc;

use tracing::{error, info};

use crate::clock;
use crate::diagnostic::Diagnostic;
use crate::flag::{Generation, Phase, Rollout};
use crate::flag_file::{Definition, set_version};
use crate::recorder::{RecordedFlag, RecordedFlagSet};
use crate::rollout::book::{Book, Live, ReloadResult, basis};
use crate::rollout::in_force::{announce, record};
use crate::rollout::trial::Sharing;
use crate::rollout::{BY_FILE, Rollouts};
use crate::store::StoredRollout;

impl Rollouts {
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

    pub(crate) fn put_files_in_force(&self, book: &mut Book, current: &RecordedFlagSet, definitions: Vec<Definition>) {
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
}
