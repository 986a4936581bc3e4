//! `tidegate simulate --replay`: a release that was, judged again.

use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, stderr, stdout};
use crate::upstream::Upstream;

async fn replay(gateway: &Gateway, site: &Site, more: &[&str]) -> Value {
    let arguments = [&["simulate", "--replay", FLAG, "--json"], more].concat();
    let output = gateway.cli(site, &arguments).await;
    if output.status.success() { serde_json::from_slice(&output.stdout).unwrap() } else { Value::Null }
}

#[tokio::test]
async fn a_rollback_is_replayed_under_its_guard_and_under_another() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    // The evidence is beyond doubt by then, whether it is gathered by the tick or by the second.
    site.write("flags/async-database.toml", &format!("{}[guard]\nmin_requests = 80\n", flag_text(10.0)));
    let gateway = site.start().await;
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
    let rollback = gateway.flag().await["rollback"].clone();

    // The seconds are kept later than the rollback, and its own last of all.
    eventually("all of it is recorded", || async {
        let replayed = replay(&gateway, &site, &[]).await;
        replayed["rolled_back"] == rollback["cause"]
            && replayed["canary_requests"].as_u64() >= rollback["requests"].as_u64()
    })
    .await;
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
