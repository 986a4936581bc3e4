//! The tick, at which every canary is judged.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::flag::{Arm, Percentage, Phase};
use crate::rollout::exchange::CUT_OFF;
use crate::rollout::{BY_JUDGE, Rollouts, TICK};

/// The cause of taking out a canary that nobody can be sent to.
pub(crate) const CANARY_UNAVAILABLE: &str = "canary_unavailable";

impl Rollouts {
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
}
