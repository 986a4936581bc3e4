//! What the guard of a flag file asks of the canary alone.

use std::fs;

use crate::harness::{Gateway, Site, eventually, flag_text, pair};

/// Puts this guard in force, with the canary at `percentage`.
async fn guard(gateway: &Gateway, site: &Site, percentage: f64, guard: &str) {
    fs::write(site.flag_file(), format!("{}[guard]\n{guard}\n", flag_text(percentage))).unwrap();
    let in_force = || async { gateway.flag().await["percentage"] == percentage };
    eventually("the guard is in force", in_force).await;
}

/// Sends requests of users from `from` on until the canary has had `wanted` more; says how many were sent.
async fn ask(gateway: &Gateway, path: &str, users: std::ops::Range<usize>) {
    for user in users {
        gateway.get(path, &format!("user-{user}")).send().await.unwrap();
    }
}

async fn cause(gateway: &Gateway) -> String {
    eventually("it is rolled back", || async { gateway.flag().await["phase"] == "rolled_back" }).await;
    gateway.flag().await["rollback"]["cause"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_harm_budget_counts_the_failures_of_beta_users_too() {
    let (_stable, _canary, site, gateway) = pair().await;
    // Statistics are to have no say: the one user who fails is left out of them, and they wait for a million requests.
    guard(&gateway, &site, 1.0, "harm_budget = 12\nmin_requests = 1000000").await;
    for _ in 0..11 {
        assert_eq!(gateway.get("/api/v1/fail", "alice").send().await.unwrap().status(), 500);
    }
    let harm = || async {
        let evidence = gateway.flag().await["evidence"].clone();
        evidence.as_array().unwrap().iter().find(|row| row["check"] == "harm_budget").cloned()
    };
    let counted = || async { harm().await.is_some_and(|row| row["value"] == 11.0 && row["limit"] == 12.0) };
    eventually("eleven are counted", counted).await;
    assert_eq!(
        (gateway.flag().await["phase"].as_str(), harm().await.unwrap()["verdict"].as_str()),
        (Some("manual"), Some("healthy"))
    );
    gateway.get("/api/v1/fail", "bob").send().await.unwrap();
    assert_eq!(cause(&gateway).await, "harm_budget");
}

#[tokio::test]
async fn statistics_wait_for_enough_requests() {
    let (_stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 50.0, "min_requests = 200").await;
    canary.answer_with(500);
    ask(&gateway, "/api/v1/x", 0..200).await;
    let judged = || async {
        let evidence = gateway.flag().await["evidence"][0].clone();
        evidence["value"].as_f64() > evidence["limit"].as_f64()
    };
    eventually("there is evidence enough", judged).await;
    let flag = gateway.flag().await;
    assert_eq!(
        (flag["phase"].as_str(), flag["evidence"][0]["verdict"].as_str()),
        (Some("manual"), Some("inconclusive"))
    );
    ask(&gateway, "/api/v1/x", 200..600).await;
    assert_ne!(cause(&gateway).await, "harm_budget");
    assert!(gateway.flag().await["rollback"]["requests"].as_u64() >= Some(200));
}

#[tokio::test]
async fn the_flag_file_says_what_a_failure_is() {
    let (stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 50.0, "failure = [\"429\", \"502-504\"]").await;
    stable.answer_with(500);
    canary.answer_with(500);
    ask(&gateway, "/api/v1/x", 0..40).await;
    let answered = || async { gateway.outcomes("async", "success").await + gateway.outcomes("sync", "success").await };
    eventually("a 500 is no failure", || async { answered().await == 40.0 }).await;
    stable.answer_with(200);
    canary.answer_with(429);
    ask(&gateway, "/api/v1/x", 40..200).await;
    cause(&gateway).await;
    assert!(gateway.outcomes("async", "failure").await >= 3.0);

    let refused = site.run(&["check"]).await;
    assert!(refused.status.success(), "{refused:?}");
    fs::write(site.flag_file(), format!("{}[guard]\nfailure = [\"5xx\", \"teapot\"]\n", flag_text(50.0))).unwrap();
    let refused = site.run(&["check"]).await;
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("async-database.toml:9:19: `guard.failure`: \"teapot\" is no kind of failure"), "{told}");
}

#[tokio::test]
async fn what_no_guard_counts_is_nobodys_failure() {
    let (_stable, canary, site, gateway) = pair().await;
    guard(&gateway, &site, 100.0, "failure = \"5xx\"").await;
    drop(canary);
    for user in 0..20 {
        let answer = gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "stable serves it");
    }
    eventually("none counts", || async { gateway.outcomes("async", "not_counted").await == 20.0 }).await;
    assert_eq!(gateway.flag().await["phase"], "manual");
}
