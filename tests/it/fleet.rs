//! Several gateways that share a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, stdout};
use crate::postgres::{Cluster, Database};
use crate::upstream::Upstream;

/// Gateways over one database, each with a directory of its own.
struct Fleet {
    _backends: [Upstream; 2],
    sites: Vec<Site>,
    gateways: Vec<Gateway>,
}

impl Fleet {
    async fn start(count: usize, database: &Database) -> Self {
        let backends = [Upstream::start().await, Upstream::start().await];
        let (mut sites, mut gateways) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let site = Site::with_servers(backends[0].address(), backends[1].address());
            site.configure(&format!("[store]\nurl = \"{}\"\n", database.url()));
            gateways.push(site.start().await);
            sites.push(site);
        }
        Self { _backends: backends, sites, gateways }
    }

    /// Waits until every gateway has this to say of the flag.
    async fn agree(&self, field: &str, value: &Value) {
        for gateway in &self.gateways {
            eventually("all gateways agree", || async { gateway.flag().await[field] == *value }).await;
        }
    }
}

#[tokio::test]
async fn a_change_reaches_every_gateway() {
    let fleet = Fleet::start(3, &Cluster::shared().database().await).await;
    let [first, second, third] = fleet.gateways.as_slice() else { panic!("three were started") };
    assert_eq!(first.set(40.0).await.status(), 200);
    fleet.agree("percentage", &json!(40.0)).await;
    let rolled_back = second.act("rollback", json!({"reason": "it looks bad"})).await;
    assert_eq!(rolled_back.json::<Value>().await.unwrap()["saved"], true);
    fleet.agree("phase", &json!("rolled_back")).await;
    for gateway in &fleet.gateways {
        assert_eq!(gateway.variant("alice").await, "sync");
        assert_eq!(gateway.flag().await["rollback"]["reason"], "it looks bad");
    }
    assert_eq!(third.act("resume", json!({})).await.status(), 200);
    fleet.agree("phase", &json!("manual")).await;
    fleet.agree("generation", &json!(4)).await;
}

#[tokio::test]
async fn those_who_change_at_once_make_one_change_after_the_other() {
    let fleet = Fleet::start(2, &Cluster::shared().database().await).await;
    let (first, second) = (&fleet.gateways[0], &fleet.gateways[1]);
    for round in 0..10 {
        let base = f64::from(round) * 2.0 + 20.0;
        let (one, other) = tokio::join!(first.set(base), second.set(base + 1.0));
        assert_eq!((one.status().as_u16(), other.status().as_u16()), (200, 200));
    }
    let events = first.admin_json("/api/v1/events?limit=1000").await;
    let generations: Vec<_> =
        events["events"].as_array().unwrap().iter().rev().map(|event| event["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, (1..=21).collect::<Vec<_>>(), "none was lost, none was made twice");
    assert_eq!(first.admin_json("/api/v1/events/verify").await["problems"], json!([]));
    fleet.agree("generation", &json!(21)).await;
    assert_eq!(first.flag().await["percentage"], second.flag().await["percentage"]);
}

#[tokio::test]
async fn a_change_meant_for_an_old_picture_is_refused_whoever_made_the_new_one() {
    let fleet = Fleet::start(2, &Cluster::shared().database().await).await;
    let (first, second) = (&fleet.gateways[0], &fleet.gateways[1]);
    assert_eq!(first.set(30.0).await.status(), 200);
    let url = format!("{}/api/v1/flags/{FLAG}", second.admin);
    let change = second.client.patch(url).header("if-match", "\"1\"").json(&json!({"percentage": 50}));
    assert_eq!(change.send().await.unwrap().status(), 412);
    fleet.agree("percentage", &json!(30.0)).await;
}

#[tokio::test]
async fn a_file_that_all_gateways_get_is_one_change() {
    let fleet = Fleet::start(3, &Cluster::shared().database().await).await;
    for site in &fleet.sites {
        site.write("flags/async-database.toml", &flag_text(25.0));
    }
    fleet.agree("percentage", &json!(25.0)).await;
    fleet.agree("generation", &json!(2)).await;
    let events = fleet.gateways[0].admin_json("/api/v1/events").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 2, "{events}");
}

#[tokio::test]
async fn status_shows_every_gateway_and_warns_of_other_files() {
    let fleet = Fleet::start(2, &Cluster::shared().database().await).await;
    let (gateway, site) = (&fleet.gateways[0], &fleet.sites[0]);
    let status = async || stdout(&gateway.cli(site, &["status"]).await);
    eventually("both are shown", || async { status().await.contains("s ago") }).await;
    assert!(!status().await.contains("different flag files"));
    fleet.sites[1].write("flags/async-database.toml", &format!("{}# another\n", flag_text(10.0)).replace("bob", "eve"));
    eventually("it is told", || async { status().await.contains("gateways hold different flag files") }).await;
    let list = gateway.admin_json("/api/v1/instances").await;
    assert_eq!(list["instances"].as_array().unwrap().len(), 2);
    let Fleet { gateways, .. } = fleet;
    let mut gateways = gateways.into_iter();
    let (first, second) = (gateways.next().unwrap(), gateways.next().unwrap());
    second.kill().await;
    eventually("the other one is gone", || async {
        let list = first.admin_json("/api/v1/instances").await;
        list["instances"].as_array().unwrap().iter().any(|instance| instance["alive"] == false)
    })
    .await;
}

/// Asks a gateway again and again until it is told to stop, and counts how often that did not go well.
fn load(gateway: &Gateway, stop: &Arc<AtomicBool>, failed: &Arc<AtomicU64>) -> tokio::task::JoinHandle<u64> {
    let (client, url) = (gateway.client.clone(), format!("{}/api/v1/x", gateway.http));
    let (stop, failed) = (Arc::clone(stop), Arc::clone(failed));
    tokio::spawn(async move {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            let answer = client.get(&url).header("x-user-id", format!("user-{asked}")).send().await;
            if !answer.is_ok_and(|answer| answer.status() == 200) {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            asked += 1;
        }
        asked
    })
}

#[tokio::test]
async fn a_store_that_hangs_or_restarts_costs_no_request_and_no_rollback() {
    let cluster = Cluster::start();
    let fleet = Fleet::start(3, &cluster.database().await).await;
    let [first, second, third] = fleet.gateways.as_slice() else { panic!("three were started") };
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let loads: Vec<_> = fleet.gateways.iter().map(|gateway| load(gateway, &stop, &failed)).collect();

    assert_eq!(first.set(50.0).await.status(), 200);
    fleet.agree("percentage", &json!(50.0)).await;
    cluster.restart().await;
    eventually("changes are taken again", || async { second.set(60.0).await.status() == 200 }).await;
    fleet.agree("percentage", &json!(60.0)).await;

    cluster.signal("STOP").await;
    assert_eq!(first.set(70.0).await.status(), 503);
    let rolled_back: Value = third.act("rollback", json!({})).await.json().await.unwrap();
    assert_eq!(rolled_back["saved"], false);
    assert_eq!(third.variant("alice").await, "sync", "the one that is cut off takes its canary out by itself");
    eventually("it is told", || async {
        third.admin_json("/ready").await["problems"].to_string().contains("the store fails")
    })
    .await;
    cluster.signal("CONT").await;
    fleet.agree("phase", &json!("rolled_back")).await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0, "no user noticed");
    eventually("all is well", || async { first.admin_json("/ready").await["problems"] == json!([]) }).await;
    assert_eq!(first.admin_json("/api/v1/events/verify").await["problems"], json!([]));
}
