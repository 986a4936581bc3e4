//! How gateways that share a store agree on the rollouts.
//!
//! A state is written only over an older generation, so of two that change a rollout at once, one is refused; it takes over
//! what the other wrote. There is one exception: a rollback that was refused is made again on top of what was written, since
//! whoever wrote that did not know of the evidence.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::api::Instance;
use crate::flag::{FlagKey, Phase};
use crate::rollout::book::Book;
use crate::rollout::in_force::{announce, record};
use crate::rollout::{BY_FILE, ROLLBACK, Rollouts, TICK};
use crate::store::{StoreError, StoredRollout};

/// How often the store is looked at for what nobody told.
const LOOK: Duration = Duration::from_secs(1);

impl Rollouts {
    /// Takes over what other gateways write into the store, until `shutdown` turns true.
    pub async fn follow_until(&self, mut shutdown: watch::Receiver<bool>) {
        let mut changes = self.store.changes();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick(), if self.store.is_shared() => {}
                () = changes.next() => {}
                // Whoever took over writes there; what is under way here follows it.
                _ = ticks.tick(), if self.is_handed_over() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            // A failure is noted by those who write.
            let _ = self.follow().await;
        }
    }

    pub(crate) async fn follow(&self) -> Result<(), StoreError> {
        if self.is_unread() {
            return Ok(());
        }
        // Nothing of ours is under way: what is read is as new as what we wrote.
        let _saving = self.saving.lock().await;
        let stored = self.store.rollouts().await?;
        let instances = self.store.instances().await?;
        let others = self.store.counts_of_others(&self.instance.id).await?;
        let waiting = self.store.waiting().await?;
        let mut book = self.book();
        (book.instances, book.others) = (instances, others);
        book.waiting = waiting;
        for stored in stored {
            // What waits to be written is settled when it is.
            if !book.unsaved.iter().any(|record| record.after.flag == stored.flag) {
                self.take_over(&mut book, stored);
            }
        }
        drop(book);
        self.written.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Puts a stored state in force, if it is newer than the one that is.
    fn take_over(&self, book: &mut Book, stored: StoredRollout) {
        let newer = |generation| stored.rollout.generation > generation;
        match self.flags.load().get(&stored.flag) {
            Some(entry) if newer(entry.rollout.generation) => self.adopt_stored(book, &stored),
            Some(_) => {}
            None if book.dormant.get(&stored.flag).is_none_or(|kept| newer(kept.rollout.generation)) => {
                book.dormant.insert(stored.flag.clone(), stored);
            }
            None => {}
        }
    }

    fn adopt_stored(&self, book: &mut Book, stored: &StoredRollout) {
        let rollout = &stored.rollout;
        info!(
            feature_flag.key = %stored.flag, generation = rollout.generation.get(),
            percent = rollout.in_force().as_percent(), phase = rollout.phase_name(),
            "rollout taken over from another gateway",
        );
        self.enforce(book, stored);
    }

    /// Settles what waits to be written of `flag` with what another gateway wrote first. To be called with `saving` held.
    ///
    /// # Errors
    ///
    /// If the store fails; then all is as it was.
    pub(crate) async fn settle(&self, flag: &FlagKey) -> Result<(), StoreError> {
        let Some(stored) = self.store.rollout(flag).await? else { return Ok(()) };
        let mut book = self.book();
        let waiting: Vec<_> = book.unsaved.iter().filter(|record| record.after.flag == *flag).cloned().collect();
        book.unsaved.retain(|record| record.after.flag != *flag);
        let set = self.flags.load();
        let Some(entry) = set.get(flag) else {
            book.dormant.insert(flag.clone(), stored);
            return Ok(());
        };
        let ours = &entry.rollout;
        let latched = book.live.get(flag).and_then(|live| live.rollback.clone());
        let rolled_back = waiting.iter().any(|record| record.action == ROLLBACK)
            && ours.phase == Phase::RolledBack
            && ours.release == stored.rollout.release
            && stored.rollout.phase != Phase::RolledBack;
        let before = &stored.rollout;
        let by_file = waiting.iter().rev().find(|record| record.actor == BY_FILE);
        let again = if let (true, Some(rollback)) = (rolled_back, latched) {
            warn!(feature_flag.key = %flag, "another gateway changed a rollout that was just rolled back; it stays so");
            let (by, reason) = (rollback.by.clone(), rollback.reason.clone());
            let after = StoredRollout { flag: flag.clone(), rollout: before.roll_back(), rollback: Some(rollback) };
            Some(record(after, Some(before), ROLLBACK.to_owned(), &by, reason))
        } else {
            // A file that was edited here is still to be put in force, unless another gateway has done that.
            by_file.and_then(|waiting| {
                let (rollout, adoptions) = before.adopt(&entry.flag, Some(&entry.flag));
                let actions: Vec<_> = adoptions.into_iter().map(|adoption| adoption.as_str()).collect();
                let rollback = stored.rollback.clone().filter(|_| rollout.phase == Phase::RolledBack);
                let after = StoredRollout { flag: flag.clone(), rollout, rollback };
                let again = || record(after, Some(before), actions.join(", "), BY_FILE, waiting.reason.clone());
                (!actions.is_empty()).then(again)
            })
        };
        match again {
            Some(record) => {
                self.enforce(&mut book, &record.after);
                announce(&record);
                book.unsaved.push_back(record);
            }
            None => self.adopt_stored(&mut book, &stored),
        }
        Ok(())
    }

    /// This gateway, as the others see it.
    #[must_use]
    pub fn instance(&self) -> Instance {
        Instance { flag_set_version: self.set_version().to_string(), ..self.instance.clone() }
    }

    /// The gateways that share the store; this one alone, if nobody does.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let us = self.instance();
        let others = self.book().instances.clone();
        let mut all: Vec<_> = others.into_iter().filter(|other| other.id != us.id).collect();
        all.push(us);
        all.sort_by(|a, b| (&a.name, &a.started).cmp(&(&b.name, &b.started)));
        all
    }

    /// What is wrong with the fleet, if anything is.
    pub(crate) fn fleet_problem(instances: &[Instance], us: &Instance) -> Option<String> {
        let others = instances.iter().filter(|other| other.alive && other.id != us.id);
        let differing: Vec<_> = others
            .filter(|other| other.flag_set_version != us.flag_set_version)
            .map(|other| format!("{} has {}", other.name, other.flag_set_version))
            .collect();
        (!differing.is_empty()).then(|| {
            format!(
                "gateways hold different flag files: this one has {}, {}; give all of them the same",
                us.flag_set_version,
                differing.join(", ")
            )
        })
    }
}

/// What a gateway that begins now tells of itself.
pub(crate) fn instance(name: String, started: String) -> Instance {
    Instance {
        id: uuid::Uuid::now_v7().to_string(),
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        flag_set_version: String::new(),
        started,
        lag_ms: 0,
        alive: true,
    }
}
