//! Verdicts explain themselves.

use std::ops::Range;

use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, eventually, pair, stderr, stdout};

/// Has these users ask, one after the other.
async fn ask(gateway: &Gateway, users: Range<usize>) {
    for user in users {
        gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
    }
}

async fn why(gateway: &Gateway) -> Value {
    gateway.admin_json(&format!("/api/v1/flags/{FLAG}/why")).await
}

#[tokio::test]
async fn a_rollback_says_what_it_rests_on() {
    let (_stable, canary, site, mut gateway) = pair().await;
    assert_eq!(gateway.set(50.0).await.status(), 200);
    ask(&gateway, 0..60).await;
    eventually("they are judged", || async { why(&gateway).await["canary"]["requests"].as_u64() >= Some(10) }).await;
    let before = why(&gateway).await;
    assert_eq!((&before["verdict"], &before["cause"]), (&"inconclusive".into(), &Value::Null), "{before}");
    assert!(before["canary_requests_to_go"].as_u64() > Some(100), "{before}");
    let told = stdout(&gateway.cli(&site, &["why", FLAG]).await);
    assert!(told.contains("too little to tell; about ") && told.contains("the canary at 50 %"), "{told}");

    // What it rests on is known to whoever starts in its place.
    assert!(before["first"].is_string() && before["shares"] == json!([50.0]), "{before}");
    gateway.terminate().await;
    assert_eq!(gateway.ended().await, Some(0));
    let gateway = site.start().await;
    eventually("the judge has looked", || async { why(&gateway).await.is_object() }).await;
    let again = why(&gateway).await;
    assert_eq!((&again["first"], &again["shares"]), (&before["first"], &before["shares"]), "{again}");
    assert!(again["canary"]["requests"].as_u64() >= before["canary"]["requests"].as_u64(), "{again}");

    canary.answer_with(500);
    let mut next = 60;
    eventually("it is rolled back", || {
        next += 20;
        let from = next;
        let gateway = &gateway;
        async move {
            ask(gateway, from..from + 20).await;
            gateway.flag().await["phase"] == "rolled_back"
        }
    })
    .await;
    let rollback = gateway.flag().await["rollback"].clone();
    let after = rollback["why"].clone();
    assert_eq!((&after["verdict"], &after["cause"]), (&"worse".into(), &rollback["cause"]), "{rollback}");
    assert_eq!(after, why(&gateway).await, "as long as the latch holds");
    let (low, rate, high) = (&after["canary"]["low"], &after["canary"]["rate"], &after["canary"]["high"]);
    assert!(low.as_f64() < rate.as_f64() && rate.as_f64() < high.as_f64(), "{after}");
    assert!(after["difference"]["high"].as_f64() > Some(0.0) && after["evidence"].as_f64() >= after["limit"].as_f64());
    let samples = after["samples"].as_array().unwrap();
    assert!((3..=20).contains(&samples.len()) && samples[0].as_str().unwrap().len() == 36, "{after}");
    assert!(after["first"].as_str() < after["last"].as_str(), "{after}");

    let told = stdout(&gateway.cli(&site, &["why", FLAG]).await);
    assert!(
        told.starts_with(&format!("{FLAG} is rolled_back: the verdict on its canary is worse\nrolled back at ")),
        "{told}"
    );
    assert!(told.contains("The canary failed ") && told.contains(samples[0].as_str().unwrap()), "{told}");
    let json: Value = serde_json::from_str(&stdout(&gateway.cli(&site, &["why", FLAG, "--json"]).await)).unwrap();
    assert_eq!((&json["summary"], &json["samples"]), (&after["summary"], &after["samples"]));
    assert!(stderr(&gateway.cli(&site, &["why", "nope"]).await, 1).contains("nope"));
}
