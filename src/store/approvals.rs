//! Changes that wait for a second operator.

use serde::{Deserialize, Serialize};

use crate::api::{Approval, Change, Notice};
use crate::store::database::Connection;
use crate::store::notes::{Note, note};
use crate::store::{Store, StoreError, fleet, json, notices};

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
    /// Keeps a change that is to wait with the `event` of it, has people told by `notice`, and forgets those that have waited too
    /// long by `now`, in milliseconds since 1970: all of it or nothing.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn keep_waiting(
        &self,
        waiting: &StoredApproval,
        event: Note<'_>,
        notice: &Notice,
        now: i64,
    ) -> Result<(), StoreError> {
        let work = async |connection: &mut Connection| {
            connection.execute("DELETE FROM approvals WHERE expires <= $1", &[(now / 1000).into()]).await?;
            let Approval { id, flag, generation, .. } = &waiting.approval;
            let sql = "INSERT INTO approvals (id, flag, generation, expires, body) VALUES ($1, $2, $3, $4, $5)";
            let (body, generation) = (json(waiting), generation.cast_signed());
            let values = [id.into(), flag.into(), generation.into(), waiting.expires_at.into(), (&body).into()];
            connection.execute(sql, &values).await?;
            note(connection, event).await?;
            notices::put(connection, &format!("approval:{id}"), now, notice).await
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

    /// Forgets one of them, with the `event` of that if there is one to keep; says whether it was there.
    ///
    /// # Errors
    ///
    /// If the store fails; then nothing was written.
    pub async fn forget_waiting(&self, id: &str, event: Option<Note<'_>>) -> Result<bool, StoreError> {
        let work = async |connection: &mut Connection| {
            let gone = connection.execute("DELETE FROM approvals WHERE id = $1", &[id.into()]).await? > 0;
            if let Some(event) = event.filter(|_| gone) {
                note(connection, event).await?;
            }
            fleet::tell(connection).await?;
            Ok(gone)
        };
        self.writer.write(work).await
    }
}
