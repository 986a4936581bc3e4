//! How gateways that share a store put their evidence together: each says what it has heard, and reads what all have.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::flag::{FlagKey, Generation, Phase};
use crate::rollout::book::Live;
use crate::rollout::{BY_JUDGE, Rollouts};
use crate::store::{Outgoing, PARCELS_AT_A_TIME, Parcel, StoreError, StoredTrial};

/// How often parcels are exchanged. It is fixed: when a parcel ends may not depend on what is in it.
const EXCHANGE: Duration = Duration::from_millis(250);

/// A gateway that could not exchange parcels for so long goes on by itself.
pub(crate) const CUT_OFF: Duration = Duration::from_secs(1);

/// What is to be read of one trial.
#[derive(Debug)]
struct Wanted {
    flag: FlagKey,
    trial: String,
    joined: bool,
}

impl Rollouts {
    /// Exchanges evidence with the gateways that share the store, until `shutdown` turns true.
    pub async fn exchange_until(&self, mut shutdown: watch::Receiver<bool>) {
        let mut turns = interval(EXCHANGE);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick(), if self.store.is_shared() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            // A store that fails is told of by those who write rollouts. What was not sent is sent again.
            if self.exchange().await.is_ok() {
                self.book().exchanged = clock::now();
            }
        }
    }

    async fn exchange(&self) -> Result<(), StoreError> {
        let (outgoing, wanted) = self.pack();
        if !outgoing.is_empty() {
            self.store.put_parcels(&self.instance.id, &outgoing).await?;
            let mut book = self.book();
            for live in book.live.values_mut() {
                live.on_trial.sent(&outgoing);
            }
        }
        for Wanted { flag, trial, joined } in wanted {
            let mut kept = if joined { None } else { Some(self.store.trial(&flag).await?) };
            while let Some((since, known)) = self.join(&flag, &trial, kept.take()) {
                let parcels = self.store.parcels(&flag, &trial, since, known).await?;
                if !self.fold(&flag, &trial, &parcels) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What is to be sent, and what is to be read.
    fn pack(&self) -> (Vec<Outgoing>, Vec<Wanted>) {
        let (mut outgoing, mut wanted) = (Vec::new(), Vec::new());
        let mut book = self.book();
        let mut numbers = book.parcels;
        let set = self.flags.load();
        for (flag, live) in &mut book.live {
            let Some(entry) = set.get(flag) else { continue };
            let trial = live.on_trial.hash().to_owned();
            let generation = entry.rollout.generation.get();
            for parcel in live.on_trial.pack(&mut numbers, generation, &entry.attached) {
                outgoing.push(Outgoing { flag: flag.clone(), trial: trial.clone(), parcel });
            }
            if entry.rollout.enabled && entry.rollout.phase != Phase::RolledBack {
                wanted.push(Wanted { flag: flag.clone(), joined: live.on_trial.has_joined(), trial });
            }
        }
        book.parcels = numbers;
        (outgoing, wanted)
    }

    /// From which generation on, and after which parcel, `trial` is to be read; with what is `kept` of it in the store, if that was
    /// asked. Nothing if something else is on trial by now.
    fn join(&self, flag: &FlagKey, trial: &str, kept: Option<Option<StoredTrial>>) -> Option<(Generation, i64)> {
        let mut book = self.book();
        let live = book.live.get_mut(flag).filter(|live| live.on_trial.hash() == trial)?;
        if let Some(kept) = kept {
            live.on_trial.join(kept);
        }
        live.on_trial.position()
    }

    /// Adds `parcels`, and judges by them unless there are more. Says whether there are.
    fn fold(&self, flag: &FlagKey, trial: &str, parcels: &[Parcel]) -> bool {
        let mut book = self.book();
        let set = self.flags.load();
        let (Some(entry), Some(live)) = (set.get(flag), book.live.get_mut(flag)) else { return false };
        let same = |live: &&mut Live| live.on_trial.hash() == trial;
        let Some(live) = Some(live).filter(same) else { return false };
        let generation = entry.rollout.generation.get();
        // What is ahead of the rollout as it is known here waits until that is here, too.
        let known: Vec<_> = parcels.iter().take_while(|parcel| parcel.generation <= generation).collect();
        for parcel in &known {
            live.on_trial.fold(parcel, &self.instance.id);
        }
        if known.len() == parcels.len() && parcels.len() >= PARCELS_AT_A_TIME as usize {
            return true;
        }
        let worse = live.on_trial.conclude();
        let judged = entry.rollout.enabled && entry.rollout.phase != Phase::RolledBack;
        if let Some(cause) = worse.filter(|_| judged) {
            self.roll_back(&mut book, entry, cause.as_str(), BY_JUDGE, None);
        }
        false
    }
}
