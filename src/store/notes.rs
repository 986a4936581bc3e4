//! Events that are about no flag.

use crate::api::{NO_FLAG, RolloutState};
use crate::store::chain::{self, Link};
use crate::store::database::Connection;
use crate::store::{Store, StoreError, fleet, json};

impl Store {
    /// Keeps an event that is about the gateway as a whole.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn note(&self, at: &str, action: &str, actor: &str, reason: &str) -> Result<(), StoreError> {
        self.writer.write(async |connection| note(connection, at, action, actor, reason).await).await
    }
}

async fn note(
    connection: &mut Connection,
    at: &str,
    action: &str,
    actor: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let newest = "SELECT generation FROM events WHERE flag = $1 ORDER BY id DESC LIMIT 1";
    let newest = connection.fetch(newest, &[NO_FLAG.into()]).await?;
    let generation = newest.first().map_or(Ok(0), |row| row.get::<i64>("generation"))? + 1;
    let state = RolloutState { phase: String::new(), percentage: 0.0, release: String::new(), beta: None };
    let new = json(&state);
    let (id, previous) = chain::next(connection).await?;
    let link = Link {
        id,
        at,
        flag: NO_FLAG,
        generation,
        action,
        actor,
        reason: Some(reason),
        old: None,
        new: &new,
        rollback: None,
    };
    connection
        .execute(
            "INSERT INTO events (id, at, flag, generation, action, actor, reason, new, previous, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                id.into(),
                at.into(),
                NO_FLAG.into(),
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
