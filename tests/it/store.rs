//! What happens when the store fails: traffic and rollbacks go on, other changes are refused.

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Sqlite, Transaction};

use crate::harness::{Gateway, Site, eventually, pair, problem, stderr};
use crate::upstream::Upstream;

/// Holds the store's write lock, as a stuck process or a full disk would keep everyone from writing.
async fn lock(site: &Site) -> Transaction<'static, Sqlite> {
    let options = SqliteConnectOptions::new().filename(site.path().join("tidegate.db"));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    pool.begin_with("BEGIN IMMEDIATE").await.unwrap()
}

async fn problems(gateway: &Gateway) -> String {
    gateway.admin_json("/ready").await["problems"].to_string()
}

#[tokio::test]
async fn a_store_that_takes_no_writes_refuses_changes_and_lets_rollbacks_through() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    let locked = lock(&site).await;

    let refused = gateway.set(50.0).await;
    assert!(problem(refused, 503, "store").await.starts_with("the change is not made, since it cannot be stored: "));
    assert_eq!(gateway.flag().await["percentage"], 10.0);
    eventually("ready tells of it", || async { problems(&gateway).await.contains("the store fails") }).await;
    assert_eq!(gateway.variant("alice").await, "async", "traffic goes on");

    let rolled_back: Value = gateway.act("rollback", json!({})).await.json().await.unwrap();
    assert_eq!((&rolled_back["saved"], &rolled_back["flag"]["phase"]), (&json!(false), &json!("rolled_back")));
    assert_eq!(gateway.variant("alice").await, "sync");
    eventually("what waits is told", || async { problems(&gateway).await.contains("1 changes are in force") }).await;

    locked.rollback().await.unwrap();
    eventually("the store is well again", || async { problems(&gateway).await == "[]" }).await;
    gateway.kill().await;
    let gateway = site.start().await;
    assert_eq!(gateway.flag().await["phase"], "rolled_back", "it was written as soon as it could be");
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start_on_full_disk(400).await;
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
    let gateway = site.start().await;
    let flag = gateway.flag().await;
    assert_eq!(flag["phase"], "rolled_back");
    assert!((flag["resume_percentage"].as_f64().unwrap() - acknowledged).abs() < 1e-9, "{flag} after {acknowledged}");
}

#[tokio::test]
async fn a_store_that_is_deleted_under_the_gateway_is_noticed() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    let aside = site.path().join("aside.db");
    std::fs::rename(site.path().join("tidegate.db"), &aside).unwrap();
    eventually("it is told", || async { problems(&gateway).await.contains("was removed or replaced while in use") })
        .await;
    problem(gateway.set(50.0).await, 503, "store").await;
    std::fs::rename(aside, site.path().join("tidegate.db")).unwrap();
    assert_eq!(gateway.set(50.0).await.status(), 200);
}

#[tokio::test]
async fn what_was_acknowledged_survives_being_killed() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    for percentage in [11.0, 22.5, 33.333] {
        let gateway = site.start().await;
        assert_eq!(gateway.set(percentage).await.status(), 200);
        gateway.kill().await;
        let gateway = site.start().await;
        assert_eq!(gateway.flag().await["percentage"], percentage);
        gateway.kill().await;
    }
}

#[tokio::test]
async fn a_store_serves_one_gateway() {
    let (_stable, _canary, site, gateway) = pair().await;
    let error = stderr(&site.run(&["serve"]).await, 1);
    assert!(error.contains("another gateway uses this store"), "{error}");
    gateway.kill().await;
    site.start().await;
}

#[tokio::test]
async fn the_audit_trail_cannot_be_rewritten() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    gateway.set(50.0).await;
    let mut transaction = lock(&site).await;
    for statement in ["UPDATE events SET actor = 'nobody'", "DELETE FROM events"] {
        let error = sqlx::query(statement).execute(&mut *transaction).await.unwrap_err();
        assert!(error.to_string().contains("events are append-only"), "{error}");
    }
}
