//! `[database]`: what the built-in handlers use.

use crate::backend::PoolConfig;
use crate::config::read::some_time;
use crate::document::{Placed, Section, Value, boolean, integer, string};

/// The most connections of a pool, and of its overflow.
const MAX_POOL: u32 = 10_000;

/// What the built-in handlers use.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Where the data is.
    pub url: String,
    /// Whether a built-in backend migrates it at its start.
    pub migrate: bool,
    /// How many connections to it are held, and for how long.
    pub pool: PoolConfig,
}

pub(crate) fn database(mut section: Section<'_>) -> Option<Database> {
    let url = section.optional("url", string);
    let migrate = section.optional("migrate", boolean);
    let pool = section.section("pool").and_then(|mut pool| {
        let size = pool.optional("size", connections);
        let max_overflow = pool.optional("max_overflow", connections);
        let timeout = pool.optional("timeout", some_time);
        let recycle = pool.optional("recycle", some_time);
        let pre_ping = pool.optional("pre_ping", boolean);
        if let Some(Placed { value: 0, place }) = &size {
            pool.problems().report(place, "`database.pool.size`: a pool needs at least one connection");
        }
        pool.finish();
        Some(PoolConfig {
            size: size?.value,
            max_overflow: max_overflow?.value,
            timeout: timeout?.value,
            recycle: recycle?.value,
            pre_ping: pre_ping?.value,
        })
    });
    section.finish();
    Some(Database { url: url?.value, migrate: migrate?.value, pool: pool? })
}

/// A number of connections: more than a database server takes is a slip.
fn connections(value: &Value) -> Result<u32, String> {
    let connections = integer(value)?;
    if connections > MAX_POOL { Err(format!("at most {MAX_POOL}, not {connections}")) } else { Ok(connections) }
}
