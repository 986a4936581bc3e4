//! `tidegate simulate --replay`: a release that was, judged again.

use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, pair, stderr, stdout};

async fn replay(gateway: &Gateway, site: &Site, more: &[&str]) -> Value {
    let arguments = [&["simulate", "--replay", FLAG, "--json"], more].concat();
    let output = gateway.cli(site, &arguments).await;
    if output.status.success() { serde_json::from_slice(&output.stdout).unwrap() } else { Value::Null }
}

#[tokio::test]
async fn a_rollback_is_replayed_under_its_guard_and_under_another() {
    let (_stable, canary, site, gateway) = pair().await;
    let told = stderr(&gateway.cli(&site, &["simulate", "--replay", FLAG]).await, 1);
    assert!(told.contains("nothing is recorded of async-database"), "{told}");

    assert_eq!(gateway.set(50.0).await.status(), 200);
    let mut users = 0..;
    let mut ask = async |requests: usize| {
        for user in users.by_ref().take(requests) {
            gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
        }
    };
    ask(60).await;
    canary.answer_with(500);
    let rolled_back = || async { gateway.flag().await["phase"] == "rolled_back" };
    while !rolled_back().await {
        ask(10).await;
    }
    let cause = gateway.flag().await["rollback"]["cause"].clone();

    eventually("it is recorded", || async { replay(&gateway, &site, &[]).await["rolled_back"] == cause }).await;
    let replayed = replay(&gateway, &site, &[]).await;
    let [requests, failures] = ["canary_requests", "failures"].map(|key| replayed[key].as_u64().unwrap());
    assert!(requests > 30 && failures < requests, "{replayed}");
    // It looks once a second and asks for no number of users, so it may stop a second apart and by another check.
    let judged = &replayed["methods"][0];
    assert_eq!(judged["method"], "flags/async-database.toml");
    assert!(judged["at"].is_string() && judged["cause"].is_string(), "{replayed}");
    let methods: Vec<_> =
        replayed["methods"].as_array().unwrap().iter().map(|method| method["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["flags/async-database.toml", "5 % / 30 s", "z-test 1/s", "label test"]);

    let lenient = "[guard]\nmax_error_rate = \"100%\"\ntolerance = { points = \"99%\" }\n";
    site.write("lenient.toml", &format!("{}{lenient}", flag_text(10.0)));
    let other = replay(&gateway, &site, &["--guard", "lenient.toml"]).await;
    assert_eq!((&other["methods"][1]["method"], &other["methods"][1]["at"]), (&json!("lenient.toml"), &Value::Null));
    assert_eq!(other["methods"][1]["canary_requests"], requests);

    gateway.kill().await;
    let gateway = site.start().await;
    assert_eq!(replay(&gateway, &site, &[]).await, replayed, "a restart forgets nothing");
    let text = stdout(&gateway.cli(&site, &["simulate", "--replay", FLAG]).await);
    assert!(text.starts_with("async-database, release 1: ") && text.contains("stops at"), "{text}");
    assert_eq!(replay(&gateway, &site, &["--release", "none"]).await, Value::Null);
    stderr(&gateway.cli(&site, &["simulate", "--canary-errors", "5%", "--json"]).await, 1);
}
