//! Verdicts explain themselves.

use serde_json::Value;

use crate::harness::{FLAG, eventually, pair, stderr, stdout};

#[tokio::test]
async fn a_rollback_says_what_it_rests_on() {
    let (_stable, canary, site, gateway) = pair().await;
    assert_eq!(gateway.set(50.0).await.status(), 200);
    let ask = async |users: std::ops::Range<usize>| {
        for user in users {
            gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
        }
    };
    ask(0..60).await;
    let why = || async { gateway.admin_json(&format!("/api/v1/flags/{FLAG}/why")).await };
    eventually("they are judged", || async { why().await["canary"]["requests"].as_u64() >= Some(10) }).await;
    let before = why().await;
    assert_eq!((&before["verdict"], &before["cause"]), (&"inconclusive".into(), &Value::Null), "{before}");
    assert!(before["canary_requests_to_go"].as_u64() > Some(100), "{before}");
    let told = stdout(&gateway.cli(&site, &["why", FLAG]).await);
    assert!(told.contains("too little to tell; about ") && told.contains("the canary at 50 %"), "{told}");

    canary.answer_with(500);
    let mut next = 60;
    eventually("it is rolled back", || {
        next += 20;
        let from = next;
        let (ask, gateway) = (&ask, &gateway);
        async move {
            ask(from..from + 20).await;
            gateway.flag().await["phase"] == "rolled_back"
        }
    })
    .await;
    let rollback = gateway.flag().await["rollback"].clone();
    let after = rollback["why"].clone();
    assert_eq!((&after["verdict"], &after["cause"]), (&"worse".into(), &rollback["cause"]), "{rollback}");
    assert_eq!(after, why().await, "as long as the latch holds");
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
