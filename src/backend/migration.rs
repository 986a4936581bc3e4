//! Brings a database's schema and question bank up to date.

use diesel::connection::SimpleConnection;
use diesel::result::Error as DieselError;
use diesel::sqlite::SqliteConnection;
use diesel::{ExpressionMethods, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::backend::bank::{self, BankQuestion};
use crate::backend::database_url::DatabaseUrl;
use crate::backend::diesel::connect;
use crate::backend::error::Error;
use crate::backend::schema::{question_roles, question_skills, questions};
use crate::backend::selection::Cause;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/interview/sqlite");

/// How often the switch to write-ahead logging is tried while others work on the same file. Each try waits for the
/// writer before it, so that this is reached only by as many starters at the same moment.
const WAL_TRIES: u32 = 16;

/// Creates the database if it is missing, applies the migrations that it lacks, and adds the questions that it lacks.
///
/// Blocks; call it from a blocking thread. Any number of processes may call it at the same moment: one works, the
/// others wait and find nothing to do. Questions that are there are left as they are, whatever became of them.
///
/// # Errors
///
/// When the URL is refused, or the database cannot be opened or changed.
pub fn migrate(database_url: &str) -> Result<(), Error> {
    let url: DatabaseUrl = database_url.parse()?;
    let bank = bank::questions()?;
    let mut connection =
        connect(url.path()).map_err(|error| Error::Open { path: url.path().to_owned(), source: error.into() })?;
    upgrade(&mut connection, &bank).map_err(|source| Error::Migrate { path: url.path().to_owned(), source })
}

fn upgrade(connection: &mut SqliteConnection, bank: &[BankQuestion]) -> Result<(), Cause> {
    log_ahead(connection)?;
    connection.immediate_transaction(|connection| {
        let applied = connection.run_pending_migrations(MIGRATIONS)?.len();
        let seeded = seed(connection, bank)?;
        if applied > 0 || seeded > 0 {
            tracing::info!(migrations = applied, questions = seeded, "the interview database was brought up to date");
        }
        Ok(())
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

/// Adds the questions that are missing and returns their number.
fn seed(connection: &mut SqliteConnection, bank: &[BankQuestion]) -> Result<usize, DieselError> {
    let mut added = 0;
    for question in bank {
        let id = question.id.as_str();
        let inserted = diesel::insert_into(questions::table)
            .values((
                questions::id.eq(id),
                questions::text.eq(&question.text),
                questions::category.eq(question.category.name()),
                questions::difficulty.eq(question.difficulty.name()),
                questions::usage_count.eq(0),
            ))
            .on_conflict(questions::id)
            .do_nothing()
            .execute(connection)?;
        if inserted == 0 {
            continue;
        }
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
        added += inserted;
    }
    Ok(added)
}
