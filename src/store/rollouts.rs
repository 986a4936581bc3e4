//! The rollouts, each with the events that tell how it came to be so.

use serde::{Deserialize, Serialize};

use crate::api::RolloutState;
use crate::flag::{
    BetaChange, BetaChangeKind, BetaChanges, FlagKey, Generation, Percentage, Phase, RampState, Rollout,
};
use crate::store::chain::{self, Link};
use crate::store::database::{Connection, Row};
use crate::store::fleet;
use crate::store::notices::tell_of;
use crate::store::record::{REASSERT, Record, StoredRollout, state_of};
use crate::store::{Store, StoreError, answers, json, parse_json, ramp};

impl Store {
    /// Every rollout that was ever saved.
    ///
    /// # Errors
    ///
    /// If the store fails, or a row is damaged.
    pub async fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError> {
        let rows = self.read("SELECT * FROM rollouts ORDER BY flag", &[]).await?;
        rows.iter().map(stored_rollout).collect()
    }

    /// Keeps a change and its event, both or neither. It replaces an older state only; in a shared store only the one that it
    /// was made on, or the one of generation `own`, which this gateway wrote.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn save(&self, record: &Record, own: Option<Generation>) -> Result<(), StoreError> {
        let bases = [record.base, own].map(|base| if self.is_shared() { base.map_or(0, number) } else { ANY });
        if self.writer.write(async |connection| save(connection, record, bases).await).await? {
            Ok(())
        } else {
            Err(StoreError::Newer(record.after.flag.clone()))
        }
    }

    /// Keeps how far these rollouts have come on the steps that they stand on. One that has changed since is left alone.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn save_ramps(&self, ramps: &[(FlagKey, Generation, RampState)]) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let sql = "UPDATE rollouts SET ramp = $1 WHERE flag = $2 AND generation = $3";
            for (flag, generation, state) in ramps {
                let (state, generation) = (ramp::text(*state), generation.get().cast_signed());
                connection.execute(sql, &[(&state).into(), flag.as_str().into(), generation.into()]).await?;
            }
            Ok(())
        };
        self.writer.write(work).await
    }
}

/// Any state may be replaced.
const ANY: i64 = -1;

fn number(generation: Generation) -> i64 {
    generation.get().cast_signed()
}

/// Writes a change and its event; `false` if the state kept is none that it may replace, and then nothing. Writing the same again is
/// no second event, since whoever was not told in time that it was written will try again.
async fn save(connection: &mut Connection, record: &Record, [base, own]: [i64; 2]) -> Result<bool, sqlx::Error> {
    let StoredRollout { flag, rollout, rollback } = &record.after;
    let flag = flag.as_str();
    let generation = number(rollout.generation);
    let rollback = rollback.as_ref().map(json);
    let beta = beta_text(&rollout.beta);
    let kept = connection
        .execute(
            "INSERT INTO rollouts (flag, generation, release, phase, percentage, file_percentage, enabled, rollback, ramp, beta) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (flag) DO UPDATE SET generation = excluded.generation, release = excluded.release, \
             phase = excluded.phase, percentage = excluded.percentage, file_percentage = excluded.file_percentage, \
             enabled = excluded.enabled, rollback = excluded.rollback, ramp = excluded.ramp, \
             beta = excluded.beta \
             WHERE excluded.generation > rollouts.generation AND ($11 = -1 OR rollouts.generation IN ($11, $12))",
            &[
                flag.into(),
                generation.into(),
                (&rollout.release).into(),
                rollout.phase.as_str().into(),
                rollout.percentage.thousandths().into(),
                rollout.file_percentage.thousandths().into(),
                rollout.enabled.into(),
                (&rollback).into(),
                (&rollout.ramp.map(ramp::text)).into(),
                (&beta).into(),
                base.into(),
                own.into(),
            ],
        )
        .await?;
    let Record { before, at, action, actor, reason, .. } = record;
    let new = json(&RolloutState { beta: record.beta.clone(), ..state_of(rollout) });
    if kept == 0 {
        let same = "SELECT id FROM events \
                    WHERE flag = $1 AND generation = $2 AND at = $3 AND action = $4 AND actor = $5 AND new = $6";
        let values = [flag.into(), generation.into(), at.into(), action.into(), actor.into(), (&new).into()];
        return Ok(!connection.fetch(same, &values).await?.is_empty());
    }
    let old = before.as_ref().map(json);
    let (id, previous) = chain::next(connection).await?;
    let (reason, old, rollback) = (reason.as_deref(), old.as_deref(), rollback.as_deref());
    let link = Link { id, at, flag, generation, action, actor, reason, old, new: &new, rollback };
    connection
        .execute(
            "INSERT INTO events (id, at, flag, generation, action, actor, reason, old, new, rollback, previous, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            &[
                id.into(),
                at.into(),
                flag.into(),
                generation.into(),
                action.into(),
                actor.into(),
                reason.into(),
                old.into(),
                (&new).into(),
                rollback.into(),
                (&previous).into(),
                (&link.hash(&previous)).into(),
            ],
        )
        .await?;
    if let Some(once) = &record.once {
        answers::done(connection, once, (action != REASSERT).then_some(rollout.generation)).await?;
    }
    tell_of(connection, record).await?;
    fleet::tell(connection).await?;
    Ok(true)
}

/// A change of the beta list as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct StoredBetaChange {
    user: String,
    added: bool,
    by: String,
    at: String,
}

fn beta_text(changes: &BetaChanges) -> Option<String> {
    let kept = |(user, change): (&str, &BetaChange)| {
        let BetaChange { kind, by, at } = change.clone();
        StoredBetaChange { user: user.to_owned(), added: kind == BetaChangeKind::Added, by, at }
    };
    let mut kept: Vec<_> = changes.iter().map(kept).collect();
    kept.sort_by(|a, b| a.user.cmp(&b.user));
    (!kept.is_empty()).then(|| json(&kept))
}

fn beta_changes(text: Option<&str>) -> Result<BetaChanges, serde_json::Error> {
    let kept: Vec<StoredBetaChange> = parse_json(text)?.unwrap_or_default();
    let change = |StoredBetaChange { user, added, by, at }| {
        let kind = if added { BetaChangeKind::Added } else { BetaChangeKind::Removed };
        (user.into_boxed_str(), BetaChange { kind, by, at })
    };
    Ok(kept.into_iter().map(change).collect())
}

pub(crate) fn stored_rollout(row: &Row) -> Result<StoredRollout, StoreError> {
    let flag: String = row.get("flag")?;
    let damaged = |what| StoreError::Damaged { flag: flag.clone(), what };
    let percentage = |column| -> Result<Percentage, StoreError> {
        let thousandths = u32::try_from(row.get::<i64>(column)?).ok();
        thousandths.and_then(Percentage::from_thousandths).ok_or_else(|| damaged("percentage"))
    };
    let rollback: Option<String> = row.get("rollback")?;
    Ok(StoredRollout {
        flag: flag.parse().map_err(|_| damaged("flag"))?,
        rollout: Rollout {
            generation: Generation::new(row.get::<i64>("generation")?.cast_unsigned()),
            release: row.get("release")?,
            phase: Phase::from_name(row.get("phase")?).ok_or_else(|| damaged("phase"))?,
            percentage: percentage("percentage")?,
            file_percentage: percentage("file_percentage")?,
            enabled: row.get("enabled")?,
            ramp: ramp::read(row.get("ramp")?).map_err(|_| damaged("ramp"))?,
            beta: beta_changes(row.get::<Option<String>>("beta")?.as_deref()).map_err(|_| damaged("beta"))?,
        },
        rollback: parse_json(rollback.as_deref()).map_err(|_| damaged("rollback"))?,
    })
}
