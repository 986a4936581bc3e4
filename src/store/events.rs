//! The audit trail.

use crate::api::Event;
use crate::flag::FlagKey;
use crate::store::database::Row;
use crate::store::{Store, StoreError, parse_json};

/// Which events are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest ones, newest first.
    Newest,
    /// Those before the event of this number, newest first.
    Before(i64),
    /// Those after the event of this number, oldest first.
    After(i64),
}

impl Store {
    /// At most `limit` events, of one flag or of all.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn events(&self, flag: Option<&FlagKey>, page: Page, limit: u32) -> Result<Vec<Event>, StoreError> {
        let older = "SELECT * FROM events WHERE ($1 IS NULL OR flag = $1) AND id < $2 ORDER BY id DESC LIMIT $3";
        let newer = "SELECT * FROM events WHERE ($1 IS NULL OR flag = $1) AND id > $2 ORDER BY id LIMIT $3";
        let (sql, id) = match page {
            Page::Newest => (older, i64::MAX),
            Page::Before(id) => (older, id),
            Page::After(id) => (newer, id),
        };
        let rows = self.read(sql, &[flag.map(FlagKey::as_str).into(), id.into(), limit.into()]).await?;
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
        hash: text("hash")?,
        flag: flag.clone(),
    })
}
