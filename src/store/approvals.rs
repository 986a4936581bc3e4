//! Changes that wait for a second operator.

use serde::{Deserialize, Serialize};

use crate::api::{Approval, Change};
use crate::store::database::Connection;
use crate::store::{Store, StoreError, fleet, json};

/// A change that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredApproval {
    /// As people see it.
    pub approval: Approval,
    /// What was asked for besides the action.
    pub change: Change,
    /// Until when it waits, in seconds since 1970.
    pub expires_at: i64,
}

impl Store {
    /// Keeps a change that is to wait, and forgets those that have waited too long by `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn keep_waiting(&self, waiting: &StoredApproval, now: i64) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            connection.execute("DELETE FROM approvals WHERE expires <= $1", &[now.into()]).await?;
            let Approval { id, flag, generation, .. } = &waiting.approval;
            let sql = "INSERT INTO approvals (id, flag, generation, expires, body) VALUES ($1, $2, $3, $4, $5)";
            let (body, generation) = (json(waiting), generation.cast_signed());
            let values = [id.into(), flag.into(), generation.into(), waiting.expires_at.into(), (&body).into()];
            connection.execute(sql, &values).await?;
            fleet::tell(connection).await
        };
        self.writer.write(work).await
    }

    /// The changes that wait, oldest first; some may be void by now.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn waiting(&self) -> Result<Vec<StoredApproval>, StoreError> {
        let rows = self.read("SELECT body FROM approvals ORDER BY expires, id", &[]).await?;
        let mut waiting = Vec::new();
        for row in &rows {
            // A row that a newer version wrote otherwise is none that can be approved here.
            waiting.extend(serde_json::from_str::<StoredApproval>(&row.get::<String>("body")?).ok());
        }
        Ok(waiting)
    }

    /// Forgets one of them; says whether it was there.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn forget_waiting(&self, id: &str) -> Result<bool, StoreError> {
        let work = async |connection: &mut Connection| {
            let gone = connection.execute("DELETE FROM approvals WHERE id = $1", &[id.into()]).await?;
            fleet::tell(connection).await?;
            Ok(gone > 0)
        };
        self.writer.write(work).await
    }
}
