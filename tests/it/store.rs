//! What the store keeps, and what happens when it fails: traffic and rollbacks go on, other changes are refused.

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

use crate::harness::{Gateway, Site, eventually, problem, stderr};
use crate::postgres::{Cluster, Database};
use crate::upstream::Upstream;

/// The two databases that a store can be in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A site with backends, and with a store of its own.
pub(crate) struct Place {
    _backends: [Upstream; 2],
    pub(crate) site: Site,
    pub(crate) database: Option<Database>,
}

impl Place {
    pub(crate) async fn new(kind: Kind) -> Self {
        let backends = [Upstream::start().await, Upstream::start().await];
        let site = Site::with_servers(backends[0].address(), backends[1].address());
        let database = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(Cluster::shared().database().await),
        };
        if let Some(database) = &database {
            site.configure(&format!("[store]\nurl = \"{}\"\n", database.url()));
        }
        Self { _backends: backends, site, database }
    }

    pub(crate) async fn connect(&self) -> Connection {
        let file = SqliteConnectOptions::new().filename(self.site.path().join("tidegate.db"));
        match &self.database {
            None => Connection::Sqlite(file.connect().await.unwrap()),
            Some(database) => Connection::Postgres(database.connect().await),
        }
    }
}

/// Somebody else's connection to the store.
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Connection {
    pub(crate) async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => connection.execute(sql).await.map(drop),
            Self::Postgres(connection) => connection.execute(sql).await.map(drop),
        }
    }

    /// Keeps everyone from writing, as a stuck process would.
    async fn lock(&mut self) {
        let sql = match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN; LOCK TABLE rollouts, events, trials IN EXCLUSIVE MODE",
        };
        self.execute(sql).await.unwrap();
    }
}

async fn problems(gateway: &Gateway) -> String {
    gateway.admin_json("/ready").await["problems"].to_string()
}

on_both!(
    a_store_that_takes_no_writes_refuses_changes_and_lets_rollbacks_through,
    what_was_acknowledged_survives_being_killed,
    the_audit_trail_cannot_be_rewritten,
    a_newer_schema_is_left_alone,
);

async fn a_store_that_takes_no_writes_refuses_changes_and_lets_rollbacks_through(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    let mut other = place.connect().await;
    other.lock().await;

    let refused = gateway.set(50.0).await;
    assert!(problem(refused, 503, "store").await.starts_with("the change is not made, since it cannot be stored: "));
    assert_eq!(gateway.flag().await["percentage"], 10.0);
    eventually("ready tells of it", || async { problems(&gateway).await.contains("the store fails") }).await;
    assert_eq!(gateway.variant("alice").await, "async", "traffic goes on");

    let rolled_back: Value = gateway.act("rollback", json!({})).await.json().await.unwrap();
    assert_eq!((&rolled_back["saved"], &rolled_back["flag"]["phase"]), (&json!(false), &json!("rolled_back")));
    assert_eq!(gateway.variant("alice").await, "sync");
    eventually("what waits is told", || async { problems(&gateway).await.contains("changes are in force") }).await;

    other.execute("ROLLBACK").await.unwrap();
    eventually("the store is well again", || async { problems(&gateway).await == "[]" }).await;
    gateway.kill().await;
    let gateway = place.site.start().await;
    assert_eq!(gateway.flag().await["phase"], "rolled_back", "it was written as soon as it could be");
}

async fn what_was_acknowledged_survives_being_killed(kind: Kind) {
    let place = Place::new(kind).await;
    for percentage in [11.0, 22.5, 33.333] {
        let gateway = place.site.start().await;
        assert_eq!(gateway.set(percentage).await.status(), 200);
        gateway.kill().await;
        let gateway = place.site.start().await;
        assert_eq!(gateway.flag().await["percentage"], percentage);
        gateway.kill().await;
    }
}

async fn the_audit_trail_cannot_be_rewritten(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    gateway.set(50.0).await;
    let mut other = place.connect().await;
    let emptying = if place.database.is_some() { "TRUNCATE events" } else { "DELETE FROM events WHERE id = 1" };
    for statement in ["UPDATE events SET actor = 'nobody'", "DELETE FROM events", emptying] {
        let error = other.execute(statement).await.unwrap_err();
        assert!(error.to_string().contains("events are append-only"), "{error}");
    }
}

async fn a_newer_schema_is_left_alone(kind: Kind) {
    let place = Place::new(kind).await;
    place.site.start().await.kill().await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of a later version', true, '\\x00', 0)";
    place.connect().await.execute(later).await.unwrap();
    let error = stderr(&place.site.run(&["serve"]).await, 1);
    assert!(error.contains("the store's schema is newer than this version of Tidegate"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    let place = Place::new(Kind::Sqlite).await;
    let gateway = place.site.start_on_full_disk(1200).await;
    let mut acknowledged = 0.0;
    let refused = loop {
        let changed = gateway.set(acknowledged + 0.001).await;
        if changed.status() != 200 {
            break changed;
        }
        acknowledged += 0.001;
    };
    problem(refused, 503, "store").await;
    assert_eq!(gateway.variant("alice").await, "async", "traffic goes on");
    let rolled_back: Value = gateway.act("rollback", json!({})).await.json().await.unwrap();
    assert_eq!(rolled_back["saved"], false);

    gateway.make_room().await;
    eventually("the store is well again", || async { problems(&gateway).await == "[]" }).await;
    gateway.kill().await;
    let gateway = place.site.start().await;
    let flag = gateway.flag().await;
    assert_eq!(flag["phase"], "rolled_back");
    assert!((flag["resume_percentage"].as_f64().unwrap() - acknowledged).abs() < 1e-9, "{flag} after {acknowledged}");
}

#[tokio::test]
async fn a_store_that_is_deleted_under_the_gateway_is_noticed() {
    let place = Place::new(Kind::Sqlite).await;
    let (site, gateway) = (&place.site, place.site.start().await);
    let aside = site.path().join("aside.db");
    std::fs::rename(site.path().join("tidegate.db"), &aside).unwrap();
    eventually("it is told", || async { problems(&gateway).await.contains("was removed or replaced while in use") })
        .await;
    problem(gateway.set(50.0).await, 503, "store").await;
    std::fs::rename(aside, site.path().join("tidegate.db")).unwrap();
    assert_eq!(gateway.set(50.0).await.status(), 200);
}

#[tokio::test]
async fn a_file_serves_one_gateway() {
    let place = Place::new(Kind::Sqlite).await;
    let gateway = place.site.start().await;
    let error = stderr(&place.site.run(&["serve"]).await, 1);
    assert!(error.contains("another gateway uses this store"), "{error}");
    gateway.kill().await;
    place.site.start().await;
}

#[tokio::test]
async fn a_read_only_postgresql_refuses_changes() {
    let place = Place::new(Kind::Postgres).await;
    let gateway = place.site.start().await;
    let database = place.database.as_ref().unwrap();
    database.set("default_transaction_read_only", "on").await;
    eventually("it is told", || async { problems(&gateway).await.contains("read-only transaction") }).await;
    assert!(problem(gateway.set(50.0).await, 503, "store").await.contains("read-only"));
    let rolled_back: Value = gateway.act("rollback", json!({})).await.json().await.unwrap();
    assert_eq!(rolled_back["saved"], false);
    database.set("default_transaction_read_only", "off").await;
    eventually("the store is well again", || async { problems(&gateway).await == "[]" }).await;
    let events = gateway.admin_json("/api/v1/events").await;
    assert_eq!(events["events"][0]["action"], "rollback");
}

#[tokio::test]
async fn a_lost_connection_costs_no_change() {
    let place = Place::new(Kind::Postgres).await;
    let gateway = place.site.start().await;
    for percentage in [20.0, 30.0, 40.0] {
        place.database.as_ref().unwrap().disconnect_all().await;
        assert_eq!(gateway.set(percentage).await.status(), 200, "{percentage}");
    }
}

#[tokio::test]
async fn without_its_store_a_gateway_does_not_start() {
    let place = Place::new(Kind::Sqlite).await;
    // A server that lets nobody in by this name will not do so later, either.
    let database = Cluster::shared().database().await;
    let url = database.url().replace("postgres@", "gate:secret@") + "&password=hidden";
    place.site.configure(&format!("[store]\nurl = \"{url}\"\n"));
    let error = stderr(&place.site.run(&["serve"]).await, 1);
    let name = database.name();
    assert!(error.contains(&format!("cannot open the store postgres://localhost/{name}?…; without it")), "{error}");
    assert!(!error.contains("secret") && !error.contains("hidden"), "{error}");

    let place = Place::new(Kind::Sqlite).await;
    place.site.configure("[store]\nurl = \"sqlite://missing/store.db\"\n");
    let error = stderr(&place.site.run(&["serve"]).await, 1);
    assert!(error.contains("cannot open the store sqlite://missing/store.db; without it"), "{error}");
}
