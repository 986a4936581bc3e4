//! A canary that is too slow is taken out, and one that is as slow as stable is not.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, pair, stdout};

/// Longer than any test waits.
const NEVER_MS: u64 = 3_600_000;

/// Puts this guard in force, with the canary at `percentage`.
async fn guard(gateway: &Gateway, site: &Site, percentage: f64, guard: &str) {
    fs::write(site.flag_file(), format!("{}[guard]\n{guard}\n", flag_text(percentage))).unwrap();
    eventually("it is in force", || async { gateway.flag().await["percentage"] == percentage }).await;
}

/// Has forty users ask at once, and gives the requests.
fn ask_at_once(gateway: &Gateway, round: usize) -> JoinSet<reqwest::Result<reqwest::Response>> {
    (0..40).map(|user| gateway.get("/api/v1/x", &format!("user-{round}-{user}")).send()).collect()
}

async fn row(gateway: &Gateway, check: &str) -> Value {
    let flag = gateway.flag().await;
    let rows = flag["evidence"].as_array().unwrap();
    rows.iter().find(|row| row["check"] == check).cloned().unwrap_or_default()
}

/// So many milliseconds that no answer is taken for one that took so much longer, however slow this machine is: `least`, or
/// five times what stable's slow answers took.
async fn much_longer(gateway: &Gateway, least: u64) -> u64 {
    let slow = gateway.flag().await["arms"]["stable"]["p99_ms"].as_f64().unwrap();
    u64::try_from(Duration::from_secs_f64(slow * 5.0 / 1000.0).as_millis()).unwrap().max(least)
}

/// Has users ask until the judge has heard of `requests` of them.
async fn ask_until_compared(gateway: &Gateway, requests: u64) {
    let mut round = 0;
    eventually("they are compared", || {
        round += 1;
        async move {
            ask_at_once(gateway, round).join_all().await;
            row(gateway, "latency_p50").await["requests"].as_u64() >= Some(requests)
        }
    })
    .await;
}

#[tokio::test]
async fn a_canary_slower_than_stable_goes() {
    let (stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 50.0, "latency_tolerance = \"50%\"").await;
    stable.answer_after(20);
    canary.answer_after(20);
    ask_until_compared(&gateway, 40).await;
    let flag = gateway.flag().await;
    assert_eq!(flag["phase"], "manual", "{flag}");
    canary.answer_after(much_longer(&gateway, 400).await);
    let mut round = 1000;
    eventually("it is rolled back", || {
        round += 1;
        let gateway = &gateway;
        async move {
            ask_at_once(gateway, round).join_all().await;
            gateway.flag().await["phase"] == "rolled_back"
        }
    })
    .await;
    let rollback = gateway.flag().await["rollback"].clone();
    assert!(rollback["cause"].as_str().unwrap().starts_with("latency_p"), "{rollback}");
    assert_eq!(rollback["failures"], 0);
}

#[tokio::test]
async fn what_slows_both_down_is_nobodys_fault() {
    let (stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 50.0, "false_rollback = 1e-6").await;
    ask_until_compared(&gateway, 30).await;
    let before = row(&gateway, "latency_p50").await["requests"].as_u64().unwrap();
    let longer = much_longer(&gateway, 150).await;
    stable.answer_after(longer);
    canary.answer_after(longer);
    ask_until_compared(&gateway, before + 100).await;
    // Some of those are from before, and what is slow is said anew as stable slows down.
    let mut round = 1000;
    eventually("many of them are slow", || {
        round += 1;
        let gateway = &gateway;
        async move {
            ask_at_once(gateway, round).join_all().await;
            row(gateway, "latency_p50").await["failures"].as_u64() >= Some(60)
        }
    })
    .await;
    assert_eq!(gateway.flag().await["phase"], "manual");
}

#[tokio::test]
async fn a_stall_is_seen_before_any_answer_is_there() {
    let (stable, canary, _site, gateway) = pair().await;
    assert_eq!(gateway.set(50.0).await.status(), 200);
    stable.answer_after(10);
    canary.answer_after(10);
    ask_until_compared(&gateway, 20).await;
    canary.answer_after(NEVER_MS);
    // Until now every answer is there and counted.
    let counted = || async { gateway.outcomes("async", "success").await };
    let arrived = canary.requests() as f64;
    eventually("all are counted", || async { counted().await == arrived }).await;
    let mut waiting = Vec::new();
    eventually("it is rolled back", || {
        waiting.push(ask_at_once(&gateway, 10_000 + waiting.len()));
        async { gateway.flag().await["phase"] == "rolled_back" }
    })
    .await;
    let rollback = gateway.flag().await["rollback"].clone();
    assert!(rollback["cause"].as_str().unwrap().starts_with("latency_p"), "{rollback}");
    assert_eq!(counted().await, arrived, "nobody has had an answer yet");
}

#[tokio::test]
async fn the_limit_for_latencies_also_holds_where_nobody_is_left_to_compare_with() {
    let (_stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 100.0, "max_latency = \"100ms\"").await;
    ask_at_once(&gateway, 1).join_all().await;
    canary.answer_after(400);
    // Whoever has had an answer can be looked up; the others are known to be slow before they have one.
    for user in ["first", "second"] {
        gateway.get("/api/v1/x", user).send().await.unwrap();
    }
    let mut round = 1;
    eventually("it is rolled back", || {
        round += 1;
        let gateway = &gateway;
        async move {
            ask_at_once(gateway, round).join_all().await;
            gateway.flag().await["phase"] == "rolled_back"
        }
    })
    .await;
    let rollback = gateway.flag().await["rollback"].clone();
    assert_eq!(rollback["cause"], "max_latency");
    let row = rollback["evidence"].as_array().unwrap().iter().find(|row| row["check"] == "max_latency").unwrap();
    assert_eq!(row["verdict"], "worse");
    assert!(row["failures"].as_u64() >= Some(3), "{row}");
    // Who was slowed down can be looked up, and the words are about that.
    let samples = rollback["why"]["samples"].as_array().unwrap();
    assert!((1..=20).contains(&samples.len()), "{rollback}");
    let told = stdout(&gateway.cli(&site, &["why", FLAG]).await);
    assert!(told.contains("slow requests to look up: ") && !told.contains("above stable's"), "{told}");
    let status = stdout(&gateway.cli(&site, &["status"]).await);
    assert!(status.contains(" canary requests were slow"), "{status}");
}

#[tokio::test]
async fn quick_failures_are_not_quick_answers() {
    let (stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 50.0, "max_error_rate = \"100%\"\ntolerance = { points = \"99%\" }").await;
    stable.answer_after(10);
    canary.answer_after(10);
    ask_until_compared(&gateway, 20).await;
    canary.answer_after(0);
    canary.answer_with(500);
    let before = row(&gateway, "latency_p50").await["requests"].as_u64().unwrap();
    let failed = gateway.outcomes("async", "failure").await;
    for round in 0..10 {
        ask_at_once(&gateway, 20_000 + round).join_all().await;
    }
    eventually("they failed", || async { gateway.outcomes("async", "failure").await >= failed + 60.0 }).await;
    canary.answer_with(200);
    canary.answer_after(10);
    ask_at_once(&gateway, 30_000).join_all().await;
    let heard = || async { row(&gateway, "latency_p50").await["requests"].as_u64().unwrap() };
    eventually("the next answers are compared", || async { heard().await >= before + 10 }).await;
    // Answers from before may be heard of late, but never more than there were good ones.
    let (heard, good) = (heard().await, gateway.outcomes("async", "success").await);
    assert!(heard as f64 <= good, "{heard} of {good}");
}
