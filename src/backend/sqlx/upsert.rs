//! Many questions at once, by sqlx.

use sqlx::{AnyConnection, Result};

use crate::backend::sqlx::is_postgres;
use crate::backend::statements::{BULK_POSTGRES, BULK_SQLITE, LOCK_BANK};
use crate::backend::upsert::{OnConflict, Upsert, Upserted};

/// Writes the good rows, or none if all or nothing was asked for and one is bad.
pub(crate) async fn upsert(connection: &mut AnyConnection, asked: &Upsert) -> Result<Upserted> {
    let bulk = if is_postgres(connection) { &BULK_POSTGRES } else { &BULK_SQLITE };
    if is_postgres(connection) {
        sqlx::query(LOCK_BANK).execute(&mut *connection).await?;
    }
    let there: Vec<String> =
        sqlx::query_scalar(bulk.there).bind(asked.json.clone()).fetch_all(&mut *connection).await?;
    let outcome = asked.outcome(&there);
    if asked.is_refused(&outcome) {
        return Ok(Upserted { inserted: 0, updated: 0, ..outcome });
    }
    let rows = asked.rows_to_write(&there);
    let writes: &[&'static str] = match asked.on_conflict {
        OnConflict::Update => &[bulk.update, bulk.clear_roles, bulk.clear_skills, bulk.roles, bulk.skills],
        OnConflict::Skip | OnConflict::Fail => &[bulk.insert, bulk.roles, bulk.skills],
    };
    for statement in writes {
        sqlx::query(*statement).bind(rows.to_string()).execute(&mut *connection).await?;
    }
    Ok(outcome)
}
