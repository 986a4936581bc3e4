//! Migrating, seeding, and refusing to start.

use std::collections::BTreeMap;

use tempfile::TempDir;

use tidegate::backend::{self, Config, Error, Fault, Mode, PoolConfig};

use crate::backend::running::{connect, file_of, rows, url_of};

#[tokio::test(flavor = "multi_thread")]
async fn starters_at_the_same_moment_migrate_once() {
    for _ in 0..8 {
        let directory = TempDir::new().unwrap();
        let url = url_of(&directory);
        std::thread::scope(|scope| {
            let starters: Vec<_> = (0..8).map(|_| scope.spawn(|| backend::migrate(&url))).collect();
            for starter in starters {
                starter.join().unwrap().unwrap();
            }
        });
        let mut connection = connect(&file_of(&directory)).await;
        let migrations: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM __diesel_schema_migrations")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(migrations, 1);
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
        assert_eq!(journal, "wal");
    }
}

#[tokio::test]
async fn the_bank_is_seeded_once_and_left_alone() {
    let directory = TempDir::new().unwrap();
    backend::migrate(&url_of(&directory)).unwrap();
    let mut connection = connect(&file_of(&directory)).await;
    let mut counts = BTreeMap::new();
    for (name, query) in [
        ("questions", "SELECT COUNT(*) FROM questions"),
        ("roles", "SELECT COUNT(DISTINCT role) FROM question_roles"),
        ("categories", "SELECT COUNT(DISTINCT category) FROM questions"),
        ("difficulties", "SELECT COUNT(DISTINCT difficulty) FROM questions"),
    ] {
        let count: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
        counts.insert(name, count);
    }
    let at_least = |name, least| counts.get(name).is_some_and(|count| *count >= least);
    assert!(at_least("questions", 60), "{counts:?}");
    assert!(at_least("roles", 12), "{counts:?}");
    assert!(at_least("categories", 4), "{counts:?}");
    assert_eq!(counts.get("difficulties"), Some(&3));

    let changed = sqlx::query("UPDATE questions SET text = 'edited', usage_count = 7 WHERE id = 'qa-bug-report'")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 1);
    let before = rows(&file_of(&directory)).await;
    backend::migrate(&url_of(&directory)).unwrap();
    assert_eq!(rows(&file_of(&directory)).await, before);
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let directory = TempDir::new().unwrap();
    let sound = Config {
        mode: Mode::Async,
        database_url: url_of(&directory),
        pool: PoolConfig::default(),
        fault: Fault::default(),
    };
    let postgres = Config { database_url: "postgres://me:secret@localhost/interview".to_owned(), ..sound.clone() };
    let error = backend::open(postgres).await.unwrap_err().to_string();
    assert_eq!(error, "postgres:// databases are not supported yet; use sqlite://path");

    let no_directory =
        Config { database_url: format!("sqlite://{}/none/x.db", directory.path().display()), ..sound.clone() };
    let error = backend::open(no_directory).await.unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");

    let not_a_database = directory.path().join("text.db");
    std::fs::write(&not_a_database, "not a database, ".repeat(1_000)).unwrap();
    let text = Config { database_url: format!("sqlite://{}", not_a_database.display()), ..sound };
    let error = backend::open(text).await.unwrap_err();
    assert!(matches!(error, Error::Open { .. } | Error::Migrate { .. }), "{error:?}");
}
