//! The evidence against each canary.

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
        let read = |row: &Row| {
            Some(StoredTrial {
                flag: row.get::<String>("flag").ok()?.parse().ok()?,
                basis: row.get("basis").ok()?,
                numbers: serde_json::from_str(row.get("state").ok()?).ok()?,
            })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Keeps the trials, each in place of what was kept of its flag.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn save_trials(&self, trials: &[StoredTrial]) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            let sql = "INSERT INTO trials (flag, basis, state) VALUES ($1, $2, $3) \
                       ON CONFLICT (flag) DO UPDATE SET basis = excluded.basis, state = excluded.state";
            for StoredTrial { flag, basis, numbers } in trials {
                connection.execute(sql, &[flag.as_str().into(), basis.into(), (&json(numbers)).into()]).await?;
            }
            Ok(())
        };
        self.writer.write(work).await
    }
}
