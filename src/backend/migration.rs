//! Brings a database's schema and question bank up to date.

use std::collections::HashSet;
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection, ExpressionMethods, QueryDsl, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::backend::bank::{self, BankQuestion};
use crate::backend::database_url::DatabaseUrl;
use crate::backend::diesel::{AnyConnection, connect};
use crate::backend::error::Error;
use crate::backend::failure::Cause;
use crate::backend::schema::{question_roles, question_skills, questions};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/interview/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/interview/postgres");

/// How often the switch to write-ahead logging is tried while others work on the same file. Each try waits for the
/// writer before it, so that this is reached only by as many starters at the same moment.
const WAL_TRIES: u32 = 16;

/// How long a statement of a migration may take, and wait for a lock: another starter may be at work on a large table.
const PATIENCE: Duration = Duration::from_secs(600);

/// The advisory lock that a migration holds: "interview" in ASCII, cut to eight bytes.
const MIGRATION_LOCK: i64 = 0x696e_7465_7276_6965;

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Migrations that were applied.
    pub migrations: usize,
    /// Questions that were added.
    pub questions: usize,
}

/// Creates the database's tables if they are missing, applies the migrations that it lacks, and adds the questions that
/// it lacks. An `SQLite` file is created; a `PostgreSQL` database has to be there.
///
/// Blocks; call it from a blocking thread. Any number of processes may call it at the same moment: one works, the
/// others wait and find nothing to do. All of it is done, or nothing. Questions that are there are left as they are.
///
/// # Errors
///
/// When the URL is refused, or the database cannot be opened or changed.
pub fn migrate(database_url: &str) -> Result<Migrated, Error> {
    let url: DatabaseUrl = database_url.parse()?;
    let bank = bank::questions()?;
    let mut connection =
        connect(&url, PATIENCE).map_err(|error| Error::Open { database: url.to_string(), source: error.into() })?;
    upgrade(&mut connection, &bank).map_err(|source| Error::Migrate { database: url.to_string(), source })
}

/// Refuses a database that lacks a migration.
///
/// # Errors
///
/// When the URL is refused, the database cannot be opened, or `tidegate migrate` is due.
pub(crate) fn check(database_url: &str) -> Result<(), Error> {
    let url: DatabaseUrl = database_url.parse()?;
    if let DatabaseUrl::Sqlite(path) = &url
        && !path.exists()
    {
        // Opening it would create it, empty.
        return Err(Error::Pending { database: url.to_string() });
    }
    let mut connection =
        connect(&url, PATIENCE).map_err(|error| Error::Open { database: url.to_string(), source: error.into() })?;
    let pending = match &mut connection {
        AnyConnection::Sqlite(connection) => connection.has_pending_migration(SQLITE),
        AnyConnection::Postgres(connection) => connection.has_pending_migration(POSTGRES),
    };
    match pending {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::Pending { database: url.to_string() }),
        Err(source) => Err(Error::Migrate { database: url.to_string(), source }),
    }
}

fn upgrade(connection: &mut AnyConnection, bank: &[BankQuestion]) -> Result<Migrated, Cause> {
    begin_alone(connection)?;
    let done = apply(connection).and_then(|migrations| {
        let questions = seed(connection, bank)?;
        Ok(Migrated { migrations, questions })
    });
    match done {
        Ok(done) => {
            <AnyConnection as Connection>::TransactionManager::commit_transaction(connection)?;
            if done.migrations > 0 || done.questions > 0 {
                let Migrated { migrations, questions } = done;
                tracing::info!(migrations, questions, "the interview database was brought up to date");
            }
            Ok(done)
        }
        Err(error) => {
            // What went wrong first is what is told.
            let _: Result<(), DieselError> =
                <AnyConnection as Connection>::TransactionManager::rollback_transaction(connection);
            Err(error)
        }
    }
}

/// Begins the one transaction that may migrate at a time.
fn begin_alone(connection: &mut AnyConnection) -> Result<(), Cause> {
    match connection {
        AnyConnection::Sqlite(connection) => {
            log_ahead(connection)?;
            AnsiTransactionManager::begin_transaction_sql(connection, "BEGIN IMMEDIATE")?;
        }
        AnyConnection::Postgres(connection) => {
            connection.batch_execute(&format!("SET lock_timeout = {}", PATIENCE.as_millis()))?;
            AnsiTransactionManager::begin_transaction_sql(connection, "BEGIN")?;
            connection.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))?;
        }
    }
    Ok(())
}

fn apply(connection: &mut AnyConnection) -> Result<usize, Cause> {
    Ok(match connection {
        AnyConnection::Sqlite(connection) => connection.run_pending_migrations(SQLITE)?.len(),
        AnyConnection::Postgres(connection) => connection.run_pending_migrations(POSTGRES)?.len(),
    })
}

/// Switches the file to write-ahead logging, so that readers and the writer do not wait for each other.
///
/// Two processes that do this at once would each wait for the other's read lock; `SQLite` refuses one of them at once,
/// without its busy timeout. An empty write transaction is what that timeout does hold for.
fn log_ahead(connection: &mut SqliteConnection) -> Result<(), DieselError> {
    let mut tries = 1;
    loop {
        match connection.batch_execute("PRAGMA journal_mode = WAL;") {
            Err(_locked) if tries < WAL_TRIES => {
                connection.batch_execute("BEGIN IMMEDIATE; COMMIT;")?;
                tries += 1;
            }
            done => return done,
        }
    }
}

/// Adds the questions that are missing and returns their number; nobody else adds any meanwhile.
fn seed(connection: &mut AnyConnection, bank: &[BankQuestion]) -> Result<usize, Cause> {
    let there: HashSet<String> = questions::table.select(questions::id).load(connection)?.into_iter().collect();
    let missing: Vec<&BankQuestion> = bank.iter().filter(|question| !there.contains(&question.id)).collect();
    for question in &missing {
        let id = question.id.as_str();
        let (discrimination, location) = question.starting_values();
        diesel::insert_into(questions::table)
            .values((
                questions::id.eq(id),
                questions::text.eq(&question.text),
                questions::category.eq(question.category.name()),
                questions::difficulty.eq(question.difficulty.name()),
                questions::usage_count.eq(0),
                questions::difficulty_rank.eq(question.difficulty.rank()),
                questions::discrimination.eq(discrimination),
                questions::location.eq(location),
                questions::search.eq(question.text.to_lowercase()),
            ))
            .execute(connection)?;
        for role in &question.roles {
            diesel::insert_into(question_roles::table)
                .values((question_roles::role.eq(role.slug()), question_roles::question_id.eq(id)))
                .execute(connection)?;
        }
        for skill in &question.skills {
            diesel::insert_into(question_skills::table)
                .values((question_skills::question_id.eq(id), question_skills::skill.eq(skill)))
                .execute(connection)?;
        }
    }
    Ok(missing.len())
}
