//! The audit trail.

use crate::api::Event;
use crate::flag::FlagKey;
use crate::store::database::Row;
use crate::store::{Store, StoreError, parse_json};

impl Store {
    /// The newest `limit` events, of one flag or of all, newest first.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn events(&self, flag: Option<&FlagKey>, limit: u32) -> Result<Vec<Event>, StoreError> {
        let sql = "SELECT * FROM events WHERE $1 IS NULL OR flag = $1 ORDER BY id DESC LIMIT $2";
        let rows = self.read(sql, &[flag.map(FlagKey::as_str).into(), limit.into()]).await?;
        rows.iter().map(event).collect()
    }
}

fn event(row: &Row) -> Result<Event, StoreError> {
    let flag: String = row.get("flag")?;
    let damaged = |what| StoreError::Damaged { flag: flag.clone(), what };
    let text = |column| row.get::<Option<String>>(column);
    Ok(Event {
        id: row.get("id")?,
        at: row.get("at")?,
        generation: row.get::<i64>("generation")?.cast_unsigned(),
        action: row.get("action")?,
        actor: row.get("actor")?,
        reason: row.get("reason")?,
        old: parse_json(text("old")?.as_deref()).map_err(|_| damaged("old"))?,
        new: parse_json(text("new")?.as_deref()).ok().flatten().ok_or_else(|| damaged("new"))?,
        rollback: parse_json(text("rollback")?.as_deref()).map_err(|_| damaged("rollback"))?,
        flag: flag.clone(),
    })
}
