//! What both modes say to a database in the same words: how a connection is set up, how a transaction begins,
//! and statements that neither query language has.

use std::time::Duration;

use crate::backend::database_url::DatabaseUrl;

/// How long a statement waits for a lock that another transaction, backend or process holds.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a transaction may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// One snapshot, nothing written.
    Read,
    /// One snapshot, nothing written, and nobody at work on what this number stands for.
    Shared(i64),
    /// Each statement sees what was committed before it; rows that are changed are locked in one order.
    Write,
    /// As if transactions ran one after the other, and alone at work on what this number stands for.
    Exclusive(i64),
}

impl Access {
    /// Whether anything may be written.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Exclusive(_))
    }

    /// How such a transaction begins on `PostgreSQL`.
    pub(crate) const fn begin_postgres(self) -> &'static str {
        match self {
            Self::Read | Self::Shared(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Self::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Exclusive(_) => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }

    /// How such a transaction begins on `SQLite`, which knows one writer and is always serializable.
    pub(crate) const fn begin_sqlite(self) -> &'static str {
        match self {
            Self::Read | Self::Shared(_) => "BEGIN DEFERRED",
            Self::Write | Self::Exclusive(_) => "BEGIN IMMEDIATE",
        }
    }

    /// The statements that lock and unlock on `PostgreSQL`, around the transaction.
    ///
    /// The lock is the connection's and not the transaction's: a transaction that waited for a lock within would see
    /// its data as they were before the wait. `SQLite` needs none of them: its transactions are alone as it is.
    pub(crate) fn locks(self) -> Option<(String, String)> {
        match self {
            Self::Read | Self::Write => None,
            Self::Shared(number) => Some((
                format!("SELECT pg_advisory_lock_shared({number})"),
                format!("SELECT pg_advisory_unlock_shared({number})"),
            )),
            Self::Exclusive(number) => {
                Some((format!("SELECT pg_advisory_lock({number})"), format!("SELECT pg_advisory_unlock({number})")))
            }
        }
    }
}

/// The number that stands for a user's sessions among advisory locks: FNV-1a of the user's id (Fowler, Noll, Vo).
///
/// Two users with the same number merely wait for each other.
pub(crate) fn lock_of(user: &str) -> i64 {
    let hash = user
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i64::from_ne_bytes(hash.to_ne_bytes())
}

/// The statements that every connection begins with. `patience` bounds each later statement on `PostgreSQL`.
pub(crate) fn set_up(url: &DatabaseUrl, patience: Duration) -> String {
    let lock = LOCK_TIMEOUT.as_millis();
    match url {
        // The timeout leads, since the other two may already meet a lock.
        DatabaseUrl::Sqlite(_) => {
            format!("PRAGMA busy_timeout = {lock}; PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL;")
        }
        // A transaction whose process is gone or stuck may not hold its locks for ever.
        DatabaseUrl::Postgres(_) => {
            let patience = patience.as_millis().max(1);
            format!(
                "SET lock_timeout = {lock}; SET statement_timeout = {patience}; \
                 SET idle_in_transaction_session_timeout = {patience}; SET client_min_messages = warning;"
            )
        }
    }
}

/// Waits `$1` seconds on the server, as a slow query does.
pub(crate) const SLEEP_POSTGRES: &str = "SELECT pg_sleep($1)";

/// The lock that keeps bulk changes of the question bank from each other: which rows were there is told to the client.
pub(crate) const LOCK_BANK: &str = "SELECT pg_advisory_xact_lock(7162254517430806891)";

/// The statements of a bulk upsert. Each takes the rows as `$1`, a JSON array, so that ten thousand of them are one
/// round trip and one value, whatever a database's limit of values is.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// The ids that are there.
    pub(crate) there: &'static str,
    /// Inserts or replaces.
    pub(crate) update: &'static str,
    /// Inserts what is not there.
    pub(crate) insert: &'static str,
    /// Removes the roles of the rows' questions.
    pub(crate) clear_roles: &'static str,
    /// Removes their skills.
    pub(crate) clear_skills: &'static str,
    /// Adds the rows' roles.
    pub(crate) roles: &'static str,
    /// Adds their skills.
    pub(crate) skills: &'static str,
}

macro_rules! bulk {
    ($rows:literal, $elements:literal) => {
        Bulk {
            there: concat!("SELECT id FROM questions WHERE id IN (SELECT value->>'id' FROM ", $rows, ") ORDER BY id"),
            update: concat!(bulk!(@insert $rows), "DO UPDATE SET text = excluded.text, category = excluded.category, \
                difficulty = excluded.difficulty, difficulty_rank = excluded.difficulty_rank, \
                discrimination = excluded.discrimination, location = excluded.location, search = excluded.search"),
            insert: concat!(bulk!(@insert $rows), "DO NOTHING"),
            clear_roles: concat!("DELETE FROM question_roles WHERE question_id IN (SELECT value->>'id' FROM ", $rows, ")"),
            clear_skills: concat!("DELETE FROM question_skills WHERE question_id IN (SELECT value->>'id' FROM ", $rows, ")"),
            roles: concat!("INSERT INTO question_roles (question_id, role) SELECT q.value->>'id', e.value FROM ",
                $rows, " AS q, ", $elements, "(q.value->'roles') AS e"),
            skills: concat!("INSERT INTO question_skills (question_id, skill) SELECT q.value->>'id', e.value FROM ",
                $rows, " AS q, ", $elements, "(q.value->'skills') AS e"),
        }
    };
    // `WHERE true` tells SQLite that `ON` begins no join.
    (@insert $rows:literal) => {
        concat!("INSERT INTO questions (id, text, category, difficulty, difficulty_rank, discrimination, location, search) \
            SELECT value->>'id', value->>'text', value->>'category', value->>'difficulty', \
            CAST(value->>'rank' AS BIGINT), CAST(value->>'discrimination' AS DOUBLE PRECISION), \
            CAST(value->>'location' AS DOUBLE PRECISION), value->>'search' FROM ", $rows, " WHERE true ON CONFLICT (id) ")
    };
}

/// For `SQLite`.
pub(crate) const BULK_SQLITE: Bulk = bulk!("json_each($1)", "json_each");

/// For `PostgreSQL`.
pub(crate) const BULK_POSTGRES: Bulk = bulk!("json_array_elements(CAST($1 AS json))", "json_array_elements_text");
