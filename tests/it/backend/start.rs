//! Migrating, seeding, and refusing to start.

use tempfile::TempDir;

use tidegate::backend::{self, Config, Error, Mode};

use crate::backend::running::{Data, KINDS, Kind, MODES, config};

#[tokio::test(flavor = "multi_thread")]
async fn starters_at_the_same_moment_migrate_once() {
    for kind in [Kind::Sqlite, Kind::Sqlite, Kind::Sqlite, Kind::Sqlite, Kind::Postgres] {
        let data = Data::new(kind).await;
        let url = data.url();
        let done = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..8).map(|_| scope.spawn(|| backend::migrate(&url).unwrap())).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect::<Vec<_>>()
        });
        let applied: usize = done.iter().map(|done| done.migrations).sum();
        assert_eq!(applied, 2, "{kind:?}: {done:?}");
        assert_eq!(data.number("SELECT COUNT(*) FROM __diesel_schema_migrations").await, 2);
        assert_eq!(done.iter().filter(|done| done.questions > 0).count(), 1, "{kind:?}: {done:?}");
        if kind == Kind::Sqlite {
            assert_eq!(data.text("PRAGMA journal_mode").await, "wal");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bank_is_seeded_once_and_left_alone() {
    for kind in KINDS {
        let data = Data::new(kind).await;
        backend::migrate(&data.url()).unwrap();
        for (query, least) in [
            ("SELECT COUNT(*) FROM questions", 60),
            ("SELECT COUNT(DISTINCT role) FROM question_roles", 12),
            ("SELECT COUNT(DISTINCT category) FROM questions", 4),
            ("SELECT COUNT(DISTINCT difficulty) FROM questions", 3),
        ] {
            assert!(data.number(query).await >= least, "{query}");
        }
        let edit = "UPDATE questions SET text = 'edited', usage_count = 7 WHERE id = 'qa-bug-report'";
        assert_eq!(data.execute(edit).await, 1);
        let before = data.rows().await;
        assert_eq!(backend::migrate(&data.url()).unwrap(), backend::Migrated { migrations: 0, questions: 0 });
        assert_eq!(data.rows().await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_migrating_refuses_a_database_that_needs_it() {
    for (kind, mode) in KINDS.into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode))) {
        let data = Data::new(kind).await;
        let told = Config { migrate: false, ..config(mode, &data) };
        let error = backend::open(told.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Pending { .. }), "{kind:?}: {error:?}");
        assert!(error.to_string().contains("run `tidegate migrate`"), "{error}");
        backend::migrate(&data.url()).unwrap();
        backend::open(told).await.unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drivers_in_urls_of_other_languages_are_understood() {
    let data = Data::new(Kind::Postgres).await;
    for scheme in ["postgresql", "postgresql+asyncpg", "postgresql+psycopg2"] {
        let url = data.url().replacen("postgres", scheme, 1);
        for mode in MODES {
            let backend = backend::open(Config { database_url: url.clone(), ..config(mode, &data) }).await.unwrap();
            backend.close().await;
        }
    }
    let directory = TempDir::new().unwrap();
    let url = format!("sqlite+aiosqlite:///{}/odd name%.db", directory.path().display());
    for mode in MODES {
        let backend = backend::open(Config { database_url: url.clone(), ..config(mode, &data) }).await.unwrap();
        backend.close().await;
    }
    assert!(directory.path().join("odd name%.db").exists());
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let directory = TempDir::new().unwrap();
    let data = Data::new(Kind::Sqlite).await;
    let sound = config(Mode::Async, &data);
    let nobody = Config { database_url: "postgres://me:secret@127.0.0.1:1/interview".to_owned(), ..sound.clone() };
    let error = backend::open(nobody).await.unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");

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
