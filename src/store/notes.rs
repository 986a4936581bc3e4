//! Events that change no rollout.

use crate::api::{NO_FLAG, RolloutState};
use crate::flag::{FlagKey, Rollout};
use crate::store::chain::{self, Link};
use crate::store::database::Connection;
use crate::store::{Store, StoreError, fleet, json, state_of};

/// An event that changes no rollout.
#[derive(Debug, Clone, Copy)]
pub struct Note<'n> {
    /// When, in RFC 3339.
    pub at: &'n str,
    /// The rollout that it is about; without one it is about the gateway as a whole. Of a rollout the schema takes `ask` and
    /// `withdraw` alone, since anything else is a change and has a generation of its own.
    pub about: Option<(&'n FlagKey, &'n Rollout)>,
    /// What was done.
    pub action: &'n str,
    /// Who did it.
    pub actor: &'n str,
    /// What there is to say of it.
    pub reason: &'n str,
}

impl Store {
    /// Keeps an event that changes no rollout.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn note(&self, event: Note<'_>) -> Result<(), StoreError> {
        self.writer.write(async |connection| note(connection, event).await).await
    }
}

pub(crate) async fn note(connection: &mut Connection, event: Note<'_>) -> Result<(), sqlx::Error> {
    let Note { at, about, action, actor, reason } = event;
    let (flag, generation, state) = match about {
        Some((flag, rollout)) => (flag.as_str(), rollout.generation.get().cast_signed(), state_of(rollout)),
        None => {
            let newest = "SELECT generation FROM events WHERE flag = $1 ORDER BY id DESC LIMIT 1";
            let newest = connection.fetch(newest, &[NO_FLAG.into()]).await?;
            let next = newest.first().map_or(Ok(0), |row| row.get::<i64>("generation"))? + 1;
            let none = RolloutState { phase: String::new(), percentage: 0.0, release: String::new(), beta: None };
            (NO_FLAG, next, none)
        }
    };
    let new = json(&state);
    let (id, previous) = chain::next(connection).await?;
    let reason = Some(reason);
    let link = Link { id, at, flag, generation, action, actor, reason, old: None, new: &new, rollback: None };
    connection
        .execute(
            "INSERT INTO events (id, at, flag, generation, action, actor, reason, new, previous, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                id.into(),
                at.into(),
                flag.into(),
                generation.into(),
                action.into(),
                actor.into(),
                reason.into(),
                (&new).into(),
                (&previous).into(),
                (&link.hash(&previous)).into(),
            ],
        )
        .await?;
    fleet::tell(connection).await
}
