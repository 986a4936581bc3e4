//! What people are to be told, kept with the change that it is about, and how far each channel has come with telling it.
//!
//! A channel's place moves on only after a notice was sent, so that each is sent at least once, however a gateway ends. Of
//! gateways that share a store one holds a channel at a time. Moments are those of the gateways' clocks.

use std::time::Duration;

use crate::api::{Notice, RolloutState};
use crate::flag::Phase;
use crate::store::database::Connection;
use crate::store::record::{Record, state_of};
use crate::store::{Store, StoreError, json};

/// Notices that are kept at most: whoever was away for longer than that is told by the audit trail.
const MAX_NOTICES: i64 = 10_000;

/// How many notices are looked at together.
const PAGE: u32 = 100;

/// Where a channel stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The next notices, oldest first, each with its number and with when it came, in milliseconds since 1970.
    pub notices: Vec<(i64, i64, Notice)>,
    /// How many there are in all.
    pub waiting: u64,
    /// The last notice that the channel is done with.
    pub position: i64,
    /// How often the first has failed.
    pub attempts: u32,
    /// When it may be tried, in milliseconds since 1970: as late as another gateway may be at it.
    pub next_at: i64,
}

/// How a channel goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// With what follows the notice of this number.
    After(i64),
    /// With the same notice, at this moment, in milliseconds since 1970.
    Again(i64),
}

impl Store {
    /// Has people told of what `key` names, once.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn put_notice(&self, key: &str, at: i64, notice: &Notice) -> Result<(), StoreError> {
        self.writer.write(async |connection| put(connection, key, at, notice).await).await
    }

    /// Where `channel` stands for the gateway `holder`; a new one begins with what comes from now on.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn standing(&self, channel: &str, holder: &str) -> Result<Standing, StoreError> {
        let sql = "SELECT *, (SELECT COUNT(*) FROM notices WHERE notices.id > channels.position) AS waiting \
                   FROM channels WHERE name = $1";
        let rows = self.read(sql, &[channel.into()]).await?;
        let Some(row) = rows.first() else {
            let begin = async |connection: &mut Connection| {
                let sql = "INSERT INTO channels (name, position, attempts, next_at, lease) \
                           SELECT $1, COALESCE(MAX(id), 0), 0, 0, 0 FROM notices WHERE 1 = 1 ON CONFLICT (name) DO NOTHING";
                connection.execute(sql, &[channel.into()]).await.map(drop)
            };
            self.writer.write(begin).await?;
            return Ok(Standing { notices: Vec::new(), waiting: 0, position: 0, attempts: 0, next_at: 0 });
        };
        let position: i64 = row.get("position")?;
        // Nobody else is at a store that is not shared: what holds there is from before a restart.
        let ours = !self.is_shared() || row.get::<Option<String>>("holder")?.as_deref() == Some(holder);
        let (lease, next_at) = (row.get::<i64>("lease")?, row.get::<i64>("next_at")?);
        let waiting = row.get::<i64>("waiting")?.max(0).cast_unsigned();
        let attempts = u32::try_from(row.get::<i64>("attempts")?).unwrap_or(u32::MAX);
        let next_at = if ours { next_at } else { next_at.max(lease) };
        if waiting == 0 {
            return Ok(Standing { notices: Vec::new(), waiting, position, attempts, next_at });
        }
        let sql = "SELECT * FROM notices WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = self.read(sql, &[position.into(), PAGE.into()]).await?;
        let mut notices = Vec::new();
        for row in &rows {
            let (id, body) = (row.get::<i64>("id")?, row.get::<String>("body")?);
            // A row that this version cannot read is passed over with the next one that it can.
            if let Ok(notice) = serde_json::from_str(&body) {
                notices.push((id, row.get::<i64>("at")?, notice));
            }
        }
        Ok(Standing { notices, waiting, position, attempts, next_at })
    }

    /// Takes `channel` for `holder` from `now` on, in milliseconds since 1970, for the time of `lease`; `false` if another gateway
    /// holds it, or has moved it on from `position` meanwhile.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn hold_channel(
        &self,
        channel: &str,
        holder: &str,
        position: i64,
        now: i64,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let alone = !self.is_shared();
        let until = now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
        let work = async |connection: &mut Connection| {
            let sql = "UPDATE channels SET holder = $2, lease = $3 \
                       WHERE name = $1 AND (holder = $2 OR lease < $4) AND position = $5";
            let free = if alone { i64::MAX } else { now };
            let values = [channel.into(), holder.into(), until.into(), free.into(), position.into()];
            Ok(connection.execute(sql, &values).await? > 0)
        };
        self.writer.write(work).await
    }

    /// Says how `channel`, held by `holder`, goes on after the `attempts` to send its next notice, and gives it free.
    ///
    /// # Errors
    ///
    /// If the store fails; then the notice may be sent once more.
    pub async fn move_channel(
        &self,
        channel: &str,
        holder: &str,
        onward: Onward,
        attempts: u32,
    ) -> Result<(), StoreError> {
        let (position, next_at) = match onward {
            Onward::After(id) => (id, 0),
            Onward::Again(at) => (0, at),
        };
        let work = async |connection: &mut Connection| {
            let sql = "UPDATE channels SET attempts = $4, next_at = $5, lease = 0, \
                       position = CASE WHEN position > $3 THEN position ELSE $3 END \
                       WHERE name = $1 AND holder = $2";
            let values = [channel.into(), holder.into(), position.into(), attempts.into(), next_at.into()];
            connection.execute(sql, &values).await.map(drop)
        };
        self.writer.write(work).await
    }
}

pub(crate) async fn put(connection: &mut Connection, key: &str, at: i64, notice: &Notice) -> Result<(), sqlx::Error> {
    let body = json(notice);
    let sql = "INSERT INTO notices (key, at, body) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING";
    connection.execute(sql, &[key.into(), at.into(), (&body).into()]).await?;
    let surplus = "DELETE FROM notices WHERE id <= (SELECT MAX(id) FROM notices) - $1";
    connection.execute(surplus, &[MAX_NOTICES.into()]).await.map(drop)
}

/// Has people told of a change, in the transaction that it is written in, if it is one to tell of.
pub(crate) async fn tell_of(connection: &mut Connection, record: &Record) -> Result<(), sqlx::Error> {
    let Some(notice) = notice(record) else { return Ok(()) };
    let key = format!("change:{}:{}", record.after.flag, record.after.rollout.generation);
    let at = record.at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond);
    put(connection, &key, at, &notice).await
}

/// The actions that are told of under their own names.
const TOLD: [&str; 5] = ["rollback", "resume", "step", "pause", "promote"];

/// The phases that only a person or a new release ends.
const HOLDING: [Phase; 2] = [Phase::RolledBack, Phase::Paused];

fn was_held(state: &RolloutState) -> bool {
    HOLDING.iter().any(|phase| phase.as_str() == state.phase)
}

fn notice(record: &Record) -> Option<Notice> {
    let Record { after, before, at, action, actor, reason, .. } = record;
    let (flag, new) = (&after.flag, state_of(&after.rollout));
    let percentage = new.percentage;
    let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let from = before.as_ref().map(|before| format!("from {} % ", before.percentage)).unwrap_or_default();
    let summary = match action.as_str() {
        "rollback" => {
            let judged = after
                .rollback
                .as_ref()
                .filter(|rollback| rollback.reason.is_none())
                .map(|rollback| format!(": {}, {}", rollback.cause, rollback.found()));
            format!("{flag} was rolled back by {actor}{}", judged.unwrap_or(why))
        }
        "resume" => format!("{flag} goes on at {percentage} %, by {actor}{why}"),
        "step" => format!("{flag} went {from}to {percentage} %{why}"),
        "pause" => format!("{flag} is paused at {percentage} %, by {actor}{why}"),
        "promote" => format!("{flag} is promoted by {actor}: everyone is on the canary"),
        // A new release lifts a latch and a pause as well.
        _ if before.as_ref().is_some_and(was_held) && !HOLDING.contains(&after.rollout.phase) => {
            format!("{flag} goes on at {percentage} % with release {}, by {actor}{why}", new.release)
        }
        _ => return None,
    };
    let event = if TOLD.contains(&action.as_str()) { action.as_str() } else { "resume" };
    Some(Notice {
        id: uuid::Uuid::now_v7().to_string(),
        event: event.to_owned(),
        at: at.clone(),
        summary,
        flag: Some(flag.to_string()),
        generation: Some(after.rollout.generation.get()),
        by: Some(actor.clone()),
        reason: reason.clone(),
        old: before.clone(),
        new: Some(new),
        rollback: after.rollback.clone().filter(|_| action == "rollback").map(Box::new),
        problems: Vec::new(),
    })
}
