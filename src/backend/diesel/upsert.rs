//! Many questions at once, by Diesel: statements on JSON, which its query language does not have.

use diesel::query_builder::SqlQuery;
use diesel::result::QueryResult;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl};

use crate::backend::diesel::AnyConnection;
use crate::backend::statements::{BULK_POSTGRES, BULK_SQLITE, LOCK_BANK};
use crate::backend::upsert::{OnConflict, Upsert, Upserted};

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = Text)]
    id: String,
}

/// Writes the good rows, or none if all or nothing was asked for and one is bad.
pub(crate) fn upsert(connection: &mut AnyConnection, asked: &Upsert) -> QueryResult<Upserted> {
    let bulk = if connection.is_postgres() { &BULK_POSTGRES } else { &BULK_SQLITE };
    if connection.is_postgres() {
        let lock: SqlQuery = diesel::sql_query(LOCK_BANK);
        lock.execute(connection)?;
    }
    let there: Vec<Id> = diesel::sql_query(bulk.there).bind::<Text, _>(&asked.json).load(connection)?;
    let there: Vec<String> = there.into_iter().map(|row| row.id).collect();
    let outcome = asked.outcome(&there);
    if asked.is_refused(&outcome) {
        return Ok(Upserted { inserted: 0, updated: 0, ..outcome });
    }
    let rows = asked.rows_to_write(&there);
    let writes: &[&str] = match asked.on_conflict {
        OnConflict::Update => &[bulk.update, bulk.clear_roles, bulk.clear_skills, bulk.roles, bulk.skills],
        OnConflict::Skip | OnConflict::Fail => &[bulk.insert, bulk.roles, bulk.skills],
    };
    for statement in writes {
        diesel::sql_query(*statement).bind::<Text, _>(&*rows).execute(connection)?;
    }
    Ok(outcome)
}
