//! Notifications: what happens to rollouts is told to webhooks, at least once each, and whatever they do, nothing waits for
//! them.
//!
//! What there is to tell is in the store, written in the transaction of the change that it is about. Each channel goes through
//! it at its own pace, one notice after the other. A channel that fails is asked again, later and later, until the notice
//! is too old to be of use.

mod channel;
mod payload;
mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::api::Notice;
use crate::clock;
use crate::rollout::Rollouts;
use crate::store::{Onward, Standing, Store, StoreError};

pub use crate::notify::channel::{Channel, Format, Kind, KindError, Secret};
pub use crate::notify::send::{Delivery, send};

/// How often is looked for what nobody told of: the end of a wait, other gateways' notices, a gate, bad files.
const LOOK: Duration = Duration::from_secs(1);

/// For how long a gateway holds a channel while it sends a notice: longer than that takes.
const LEASE: Duration = Duration::from_secs(20);

/// How long the first repetition waits; each further one twice as long, up to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The same bad files are told of anew after this many seconds.
const SAME_AGAIN: i64 = 600;

/// What flag files are called beside the flags that they are of: no flag has this name.
const FILES: &str = "";

/// What became of notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The channel took it.
    Sent,
    /// It did not, and is asked again.
    Failed,
    /// It refused it, or would not take it in time: it is not asked again.
    GivenUp,
}

impl Fate {
    /// As written in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
        }
    }
}

/// What this gateway's channels have done.
#[derive(Debug, Default)]
pub struct Deliveries {
    fates: Mutex<BTreeMap<(String, Fate), u64>>,
    waiting: Mutex<BTreeMap<String, u64>>,
}

impl Deliveries {
    /// How many notices ended how since the start, by channel.
    #[must_use]
    pub fn fates(&self) -> BTreeMap<(String, Fate), u64> {
        self.fates.lock().clone()
    }

    /// How many notices wait, by channel.
    #[must_use]
    pub fn waiting(&self) -> BTreeMap<String, u64> {
        self.waiting.lock().clone()
    }

    fn count(&self, channel: &Channel, fate: Fate) {
        *self.fates.lock().entry((channel.name.clone(), fate)).or_default() += 1;
    }
}

/// Tells every channel what there is to tell, until `shutdown` turns true.
pub async fn notify_until(
    channels: Vec<Channel>,
    store: Store,
    rollouts: Arc<Rollouts>,
    deliveries: Arc<Deliveries>,
    shutdown: watch::Receiver<bool>,
) {
    let mut stopping = shutdown.clone();
    if channels.is_empty() {
        drop(stopping.wait_for(|stop| *stop).await);
        return;
    }
    let mut parts = JoinSet::new();
    for channel in channels {
        let holder = rollouts.instance().id;
        let serving = Serving { channel, holder, store: store.clone(), deliveries: Arc::clone(&deliveries) };
        parts.spawn(serving.run(rollouts.written(), shutdown.clone()));
    }
    let mut told = BTreeMap::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stopping.wait_for(|stop| *stop) => break,
        }
        tell_of_states(&rollouts, &store, &mut told).await;
    }
    while parts.join_next().await.is_some() {}
}

/// Has people told of states that are no change of a rollout: a gate that a person has to open, and flag files that cannot be
/// used. `told` is what was told of each last.
async fn tell_of_states(rollouts: &Rollouts, store: &Store, told: &mut BTreeMap<String, String>) {
    let now = clock::wall();
    let mut notices = Vec::new();
    for flag in rollouts.flags() {
        let Some(ramp) = flag.ramp.filter(|ramp| ramp.waits_for.as_deref() == Some("approval")) else { continue };
        let next = ramp.next_percentage.map(|next| format!(", to go on to {next} %")).unwrap_or_default();
        let summary = format!("{} waits at {} % for `tidegate approve {}`{next}", flag.key, flag.percentage, flag.key);
        let notice =
            Notice { flag: Some(flag.key.clone()), generation: Some(flag.generation), ..notice(Kind::Gate, summary) };
        let key = format!("gate:{}:{}", flag.key, flag.generation);
        notices.push((flag.key, key.clone(), key, notice));
    }
    let problems = rollouts.bad_files();
    if problems.is_empty() {
        told.remove(FILES);
    } else {
        let summary = format!("bad flag files, so the last good set stays in force: {}", problems.join("; "));
        // Gateways that were given the same files tell of them once.
        let same: String = Sha256::digest(&summary).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("bad_flags:{same}:{}", now.as_second() / SAME_AGAIN);
        let mark = same;
        notices.push((FILES.to_owned(), mark, key, Notice { problems, ..notice(Kind::BadFlags, summary) }));
    }
    for (of, mark, key, notice) in notices {
        // What the store does not take now it is asked to at the next look.
        if told.get(&of) != Some(&mark) && store.put_notice(&key, now.as_millisecond(), &notice).await.is_ok() {
            told.insert(of, mark);
        }
    }
}

fn notice(kind: Kind, summary: String) -> Notice {
    Notice {
        id: uuid::Uuid::now_v7().to_string(),
        event: kind.as_str().to_owned(),
        at: format!("{:.3}", clock::wall()),
        summary,
        flag: None,
        generation: None,
        by: None,
        reason: None,
        old: None,
        new: None,
        rollback: None,
        problems: Vec::new(),
    }
}

/// What `tidegate notify test` sends.
#[must_use]
pub fn test_notice(channel: &Channel) -> Notice {
    notice(Kind::Test, format!("a test of Tidegate's channel `{}`: nothing has happened", channel.name))
}

/// One channel, as it is served.
#[derive(Debug)]
struct Serving {
    channel: Channel,
    holder: String,
    store: Store,
    deliveries: Arc<Deliveries>,
}

impl Serving {
    async fn run(self, mut written: watch::Receiver<u64>, mut shutdown: watch::Receiver<bool>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                changed = written.changed() => if changed.is_err() { return },
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            // A store that fails is told of by those who write rollouts; what waits, waits.
            tokio::select! {
                _ = async { while self.next().await? {} Ok::<_, StoreError>(()) } => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Sends the next notice that the channel wants; whether it is worth looking for another.
    async fn next(&self) -> Result<bool, StoreError> {
        let Self { channel, holder, store, .. } = self;
        let Standing { notices, waiting, position, attempts, next_at } = store.standing(&channel.name, holder).await?;
        self.deliveries.waiting.lock().insert(channel.name.clone(), waiting);
        let now = clock::wall().as_millisecond();
        let (Some((last, ..)), true) = (notices.last(), now >= next_at) else { return Ok(false) };
        if !store.hold_channel(&channel.name, holder, position, now, LEASE).await? {
            return Ok(false);
        }
        let Some((id, at, notice)) = notices.iter().find(|(.., notice)| channel.wants(&notice.event)) else {
            store.move_channel(&channel.name, holder, Onward::After(*last), 0).await?;
            return Ok(true);
        };
        let too_old = now.saturating_sub(*at) > i64::try_from(channel.max_age.as_millis()).unwrap_or(i64::MAX);
        let delivery =
            if too_old { Delivery::Refused("it is too old by now".to_owned()) } else { self.deliver(notice).await };
        let (fate, onward, attempts) = match &delivery {
            Delivery::Sent(_) => (Fate::Sent, Onward::After(*id), 0),
            Delivery::Refused(why) => {
                warn!(channel = %channel.name, event = %notice.event, %why, "a notification is given up");
                (Fate::GivenUp, Onward::After(*id), 0)
            }
            Delivery::Failed(why) => {
                let wait = wait(attempts);
                info!(channel = %channel.name, event = %notice.event, %why, wait_s = wait.as_secs(), "a notification failed; it is tried again");
                let again = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
                (Fate::Failed, Onward::Again(again), attempts.saturating_add(1))
            }
        };
        self.deliveries.count(channel, fate);
        store.move_channel(&channel.name, holder, onward, attempts).await?;
        Ok(fate != Fate::Failed)
    }

    async fn deliver(&self, notice: &Notice) -> Delivery {
        let (channel, notice) = (self.channel.clone(), notice.clone());
        let sent = tokio::task::spawn_blocking(move || send(&channel, &notice, clock::wall())).await;
        sent.unwrap_or_else(|_| Delivery::Failed("it was broken off".to_owned()))
    }
}

/// How long to wait after so many failed attempts before this one.
fn wait(attempts: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds: Vec<_> = (0..12).map(|attempts| wait(attempts).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }
}
