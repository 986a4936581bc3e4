//! Several gateways that share a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, problem, stdout};
use crate::postgres::{Cluster, Database};
use crate::upstream::Upstream;

/// Gateways over one database, each with a directory of its own.
struct Fleet {
    backends: [Upstream; 2],
    sites: Vec<Site>,
    gateways: Vec<Gateway>,
}

impl Fleet {
    async fn start(count: usize, database: &Database) -> Self {
        Self::with_flag(count, database, &flag_text(10.0)).await
    }

    async fn with_flag(count: usize, database: &Database, flag: &str) -> Self {
        let backends = [Upstream::start().await, Upstream::start().await];
        let (mut sites, mut gateways) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let site = Site::with_servers(backends[0].address(), backends[1].address());
            site.configure(&format!("[store]\nurl = \"{}\"\n", database.url()));
            site.write("flags/async-database.toml", flag);
            gateways.push(site.start().await);
            sites.push(site);
        }
        Self { backends, sites, gateways }
    }

    /// Waits until every gateway has this to say of the flag.
    async fn agree(&self, field: &str, value: &Value) {
        for gateway in &self.gateways {
            eventually("all gateways agree", || async { gateway.flag().await[field] == *value }).await;
        }
    }
}

#[tokio::test]
async fn charts_show_the_whole_fleet_and_outlive_a_restart() {
    let mut fleet = Fleet::start(2, &Cluster::shared().database().await).await;
    let nothing = "Error rate, since 10 min ago. nothing yet";
    let page = async |gateway: &Gateway| gateway.admin(&format!("/flags/{FLAG}")).await.text().await.unwrap();
    assert!(page(&fleet.gateways[1]).await.contains(nothing));
    let seen = async || {
        for user in 0..20 {
            fleet.gateways[0].get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
        }
        fleet.gateways[0].get("/api/v1/x", "alice").send().await.unwrap();
        page(&fleet.gateways[1]).await.contains("Error rate, since 10 min ago. stable: last 0")
    };
    eventually("the other gateway's requests are in the charts", seen).await;
    let kept = async || {
        let url = format!("/api/v1/flags/{FLAG}/seconds");
        fleet.gateways[0].admin_json(&url).await["seconds"].as_array().unwrap().iter().any(|second| {
            let [stable, canary] = [0, 1].map(|arm| second["counts"]["arms"][arm][0].as_u64().unwrap());
            stable > 0 && canary > 0
        })
    };
    eventually("it is kept", kept).await;
    for gateway in fleet.gateways.drain(..) {
        gateway.kill().await;
    }
    let gateway = fleet.sites[0].start().await;
    eventually("what was before the start is in the charts", || async { !page(&gateway).await.contains(nothing) })
        .await;
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

#[tokio::test]
async fn status_counts_the_requests_of_all_gateways_those_included_that_are_gone() {
    let database = Cluster::shared().database().await;
    let mut fleet = Fleet::with_flag(2, &database, &patient_flag()).await;
    ask(&fleet.gateways[0], 0..20).await;
    ask(&fleet.gateways[1], 20..30).await;
    let counted = async |fleet: &Fleet, requests: u64, gateways: u64| {
        for gateway in &fleet.gateways {
            eventually("all requests are counted", || async {
                let flag = gateway.flag().await;
                flag["arms"]["canary"]["requests"] == requests && flag["gateways"] == gateways
            })
            .await;
        }
    };
    counted(&fleet, 30, 2).await;
    assert!(fleet.gateways[0].flag().await["arms"]["canary"]["p99_ms"].as_f64().unwrap() > 0.0);
    let status = stdout(&fleet.gateways[1].cli(&fleet.sites[1], &["status"]).await);
    assert!(status.contains("requests of 2 gateways"), "{status}");

    fleet.gateways.remove(0).kill().await;
    fleet.gateways.insert(0, fleet.sites[0].start().await);
    counted(&fleet, 30, 3).await;
    ask(&fleet.gateways[0], 30..35).await;
    counted(&fleet, 35, 3).await;
    // Another generation begins anew.
    assert_eq!(fleet.gateways[0].set(90.0).await.status(), 200);
    fleet.agree("generation", &json!(2)).await;
    counted(&fleet, 0, 2).await;
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
    let refused = problem(first.set(70.0).await, 503, "store").await;
    assert!(refused.starts_with("the change is not made"), "nothing was committed, and that is known: {refused}");
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

/// Everyone is on a canary that may fail as it likes until it has had 60 requests.
fn patient_flag() -> String {
    flag_text(100.0).replace("[beta]", "[guard]\nmin_requests = 60\nharm_budget = 1000000\n[beta]")
}

/// Sends `gateway` a request of each of these users.
async fn ask(gateway: &Gateway, users: std::ops::Range<usize>) {
    for user in users {
        gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
    }
}

/// How many requests the evidence rests on, on every gateway at last.
async fn rests_on(gateways: &[Gateway], requests: u64) {
    for gateway in gateways {
        eventually("the evidence is all gateways'", || async {
            let flag = gateway.flag().await;
            let checks = flag["evidence"].as_array().unwrap();
            let told = checks.iter().find(|check| check["check"] == "harm_budget");
            told.is_some_and(|told| told["requests"] == requests)
        })
        .await;
    }
}

#[tokio::test]
async fn evidence_is_judged_together_and_counted_once() {
    let database = Cluster::shared().database().await;
    let mut fleet = Fleet::with_flag(3, &database, &patient_flag()).await;
    fleet.backends[1].answer_with(500);
    ask(&fleet.gateways[0], 0..20).await;
    rests_on(&fleet.gateways, 20).await;
    ask(&fleet.gateways[1], 20..40).await;
    rests_on(&fleet.gateways, 40).await;
    fleet.agree("phase", &json!("manual")).await;

    // One is killed and comes back: what it told stays, and is told once.
    fleet.gateways.remove(0).kill().await;
    fleet.gateways.insert(0, fleet.sites[0].start().await);
    ask(&fleet.gateways[0], 40..50).await;
    rests_on(&fleet.gateways, 50).await;
    fleet.agree("phase", &json!("manual")).await;

    ask(&fleet.gateways[2], 50..70).await;
    fleet.agree("phase", &json!("rolled_back")).await;
    let flag = fleet.gateways[0].flag().await;
    assert_eq!((&flag["rollback"]["by"], &flag["rollback"]["cause"]), (&json!("judge"), &json!("max_error_rate")));
    assert!(flag["rollback"]["requests"].as_u64().unwrap() >= 60, "{flag}");
    let events = fleet.gateways[0].admin_json("/api/v1/events").await;
    let rollbacks = events["events"].as_array().unwrap().iter().filter(|event| event["action"] == "rollback");
    assert_eq!(rollbacks.count(), 1, "{events}");

    // Who lifts it has seen that evidence: it begins anew, also for whoever starts just then.
    assert_eq!(fleet.gateways[1].act("resume", json!({})).await.status(), 200);
    fleet.gateways.remove(0).kill().await;
    fleet.gateways.insert(0, fleet.sites[0].start().await);
    fleet.agree("phase", &json!("manual")).await;
    ask(&fleet.gateways[0], 70..75).await;
    ask(&fleet.gateways[2], 75..80).await;
    rests_on(&fleet.gateways, 10).await;
    fleet.agree("phase", &json!("manual")).await;
}

#[tokio::test]
async fn a_rollback_tells_of_all_requests_whoever_makes_it() {
    let cluster = Cluster::start();
    let mut fleet = Fleet::with_flag(2, &cluster.database().await, &patient_flag()).await;
    fleet.backends[1].answer_with(500);
    ask(&fleet.gateways[0], 0..40).await;
    rests_on(&fleet.gateways, 40).await;
    // It keeps the trial when it stops, and goes on from there; so far the other one heard nothing.
    fleet.gateways[0].terminate().await;
    assert_eq!(fleet.gateways.remove(0).ended().await, Some(0));
    fleet.gateways.insert(0, fleet.sites[0].start().await);
    ask(&fleet.gateways[0], 40..50).await;
    rests_on(&fleet.gateways, 50).await;

    // Those whom it tells nobody of count as well: it is cut off, and rolls back alone.
    cluster.signal("STOP").await;
    ask(&fleet.gateways[0], 50..70).await;
    eventually("it is rolled back", || async { fleet.gateways[0].flag().await["phase"] == "rolled_back" }).await;
    let told = async |gateway: &Gateway| gateway.flag().await["rollback"]["requests"].as_u64().unwrap();
    assert!(told(&fleet.gateways[0]).await >= 60, "{}", fleet.gateways[0].flag().await);
    cluster.signal("CONT").await;
    fleet.agree("phase", &json!("rolled_back")).await;
    assert!(told(&fleet.gateways[1]).await >= 60, "{}", fleet.gateways[1].flag().await);
}

#[tokio::test]
async fn a_gateway_that_is_cut_off_judges_by_itself_and_joins_up() {
    let cluster = Cluster::start();
    let fleet = Fleet::with_flag(2, &cluster.database().await, &flag_text(100.0)).await;
    ask(&fleet.gateways[0], 0..20).await;
    cluster.signal("STOP").await;
    fleet.backends[1].answer_with(500);
    let mut user = 20;
    while fleet.gateways[0].flag().await["phase"] != "rolled_back" {
        assert!(user < 50_000, "it was never rolled back");
        ask(&fleet.gateways[0], user..user + 10).await;
        user += 10;
    }
    assert_eq!(fleet.gateways[0].variant("alice").await, "sync");
    assert_eq!(fleet.gateways[1].flag().await["phase"], "manual", "it has heard of nothing");
    cluster.signal("CONT").await;
    fleet.agree("phase", &json!("rolled_back")).await;
}

#[tokio::test]
async fn a_gateway_that_starts_without_its_database_serves_stable_and_joins_later() {
    let database = Cluster::shared().database().await;
    let mut fleet = Fleet::start(2, &database).await;
    assert_eq!(fleet.gateways[0].set(100.0).await.status(), 200);
    fleet.gateways.pop().unwrap().kill().await;
    database.admit(false).await;
    let late = fleet.sites[1].start().await;
    assert_eq!(late.variant("alice").await, "sync", "nobody knows whether it was rolled back");
    assert_eq!(fleet.gateways[0].variant("alice").await, "async", "the other one knows");
    let flag = late.flag().await;
    assert_eq!((&flag["phase"], &flag["rollback"]["cause"]), (&json!("rolled_back"), &json!("store_unreached")));
    assert_eq!(flag["resume_percentage"], Value::Null);
    let status = stdout(&late.cli(&fleet.sites[1], &["status"]).await);
    assert!(status.contains("it goes on by itself once the store is read"), "{status}");
    assert!(!status.contains("drift") && !status.contains("goes back to"), "nothing is known of the rollout: {status}");
    let ready = late.admin("/ready").await;
    assert_eq!(ready.status(), 200);
    let told = ready.text().await.unwrap();
    assert!(
        told.contains("every flag serves stable until it can: ") && told.contains("not currently accepting"),
        "{told}"
    );
    let refused = problem(late.set(20.0).await, 503, "store").await;
    assert!(refused.contains("every flag serves stable here"), "{refused}");
    assert_eq!(late.act("resume", json!({})).await.status(), 503, "there is no rollback that it knows of");

    database.admit(true).await;
    eventually("it has joined", || async { late.variant("alice").await == "async" }).await;
    let flag = late.flag().await;
    assert_eq!((&flag["generation"], &flag["percentage"]), (&json!(2), &json!(100.0)));
    assert_eq!((&flag["phase"], &flag["rollback"]), (&json!("manual"), &Value::Null));
    eventually("all is well", || async { late.admin_json("/ready").await["problems"] == json!([]) }).await;

    // A latch is still one afterwards.
    assert_eq!(late.act("rollback", json!({"reason": "it looks bad"})).await.status(), 200);
    fleet.agree("generation", &json!(3)).await;
    late.kill().await;
    database.admit(false).await;
    let late = fleet.sites[1].start().await;
    database.admit(true).await;
    eventually("it has joined", || async { late.flag().await["rollback"]["reason"] == "it looks bad" }).await;
    assert_eq!((late.variant("alice").await.as_str(), &late.flag().await["generation"]), ("sync", &json!(3)));
    assert_eq!(late.act("resume", json!({})).await.status(), 200);
    fleet.agree("phase", &json!("manual")).await;
    let events = late.admin_json("/api/v1/events").await;
    assert_eq!(events["events"].as_array().unwrap().len(), 4, "the start itself changed nothing: {events}");
}

#[tokio::test]
async fn a_gateway_that_never_saw_its_database_begins_when_it_does() {
    let cluster = Cluster::start();
    let database = cluster.database().await;
    cluster.signal("STOP").await;
    let site = Site::with_servers("127.0.0.1:9", "127.0.0.1:9");
    site.configure(&format!("[store]\nurl = \"{}\"\n", database.url()));
    let gateway = site.start().await;
    assert_eq!(gateway.flag().await["percentage"], 0.0);
    site.write("flags/async-database.toml", &flag_text(25.0));
    eventually("the file is read", || async { gateway.flag().await["file_percentage"] == 25.0 }).await;
    cluster.signal("CONT").await;
    eventually("it has begun", || async { gateway.flag().await["percentage"] == 25.0 }).await;
    eventually("that is kept", || async {
        let events = gateway.admin_json("/api/v1/events").await;
        events["events"].as_array().is_some_and(|events| events.len() == 1)
    })
    .await;
    assert_eq!(gateway.flag().await["generation"], 1);
}
