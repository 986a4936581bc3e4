//! The evidence against each canary.

use std::collections::BTreeMap;

use crate::flag::{FlagKey, Generation};
use crate::store::database::{Connection, Row};
use crate::store::record::StoredTrial;
use crate::store::{Store, StoreError, json};

impl Store {
    /// Every trial that was saved, as far as it can be read. Without the others, evidence begins anew: that is no reason not
    /// to start.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn trials(&self) -> Result<Vec<StoredTrial>, StoreError> {
        let rows = self.read("SELECT * FROM trials", &[]).await?;
        Ok(rows.iter().filter_map(stored_trial).collect())
    }

    /// The trial of one flag, if one was saved that can be read.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn trial(&self, flag: &FlagKey) -> Result<Option<StoredTrial>, StoreError> {
        let rows = self.read("SELECT * FROM trials WHERE flag = $1", &[flag.as_str().into()]).await?;
        Ok(rows.first().and_then(stored_trial))
    }

    /// The generation with which each flag's last rollback was lifted. It is in the audit trail with the change itself, so that
    /// evidence from before it is known for what it is, however soon after it a gateway ended.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn lifted(&self) -> Result<BTreeMap<FlagKey, Generation>, StoreError> {
        let sql = "SELECT flag, MAX(generation) AS generation FROM events \
                   WHERE action = 'resume' AND old LIKE '%\"phase\":\"rolled_back\"%' GROUP BY flag";
        let rows = self.read(sql, &[]).await?;
        let read = |row: &Row| {
            let generation = Generation::new(row.get::<i64>("generation").ok()?.cast_unsigned());
            Some((row.get::<String>("flag").ok()?.parse().ok()?, generation))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Keeps the trials, each in place of what was kept of its flag, unless another gateway has kept the same one further on.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn save_trials(&self, trials: &[StoredTrial]) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let sql = "INSERT INTO trials (flag, basis, state, through, since, span) VALUES ($1, $2, $3, $4, $5, $6) \
                       ON CONFLICT (flag) DO UPDATE SET basis = excluded.basis, state = excluded.state, \
                       through = excluded.through, since = excluded.since, span = excluded.span \
                       WHERE trials.basis <> excluded.basis OR trials.since < excluded.since \
                       OR (trials.since = excluded.since AND trials.through <= excluded.through)";
            for StoredTrial { flag, basis, numbers, through, since, span } in trials {
                let (state, since, span) = (json(numbers), since.get().cast_signed(), json(span));
                let (flag, state, span) = (flag.as_str().into(), (&state).into(), (&span).into());
                connection.execute(sql, &[flag, basis.into(), state, (*through).into(), since.into(), span]).await?;
            }
            Ok(())
        };
        self.writer.write(work).await
    }
}

fn stored_trial(row: &Row) -> Option<StoredTrial> {
    Some(StoredTrial {
        flag: row.get::<String>("flag").ok()?.parse().ok()?,
        basis: row.get("basis").ok()?,
        numbers: serde_json::from_str(row.get("state").ok()?).ok()?,
        through: row.get("through").ok()?,
        since: Generation::new(row.get::<i64>("since").ok()?.cast_unsigned()),
        // Nothing is judged by it, so the evidence is good without.
        span: serde_json::from_str(row.get("span").ok()?).unwrap_or_default(),
    })
}
