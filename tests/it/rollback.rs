//! The canary is taken out when it is worse, and stays out until somebody lifts the latch.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Gateway, eventually, flag_text, pair, problem};
use crate::upstream::Upstream;

/// Has the canary fail and sends it requests until it is rolled back.
async fn fail(gateway: &Gateway, canary: &Upstream) {
    canary.answer_with(500);
    eventually("the canary is rolled back", || async {
        gateway.get("/api/v1/x", "alice").send().await.unwrap();
        gateway.flag().await["phase"] == "rolled_back"
    })
    .await;
}

async fn last_event(gateway: &Gateway) -> Value {
    gateway.admin_json("/api/v1/events?flag=async-database&limit=1").await["events"][0].clone()
}

#[tokio::test]
async fn a_failing_canary_is_taken_out_with_its_evidence() {
    let (stable, canary, site, gateway) = pair().await;
    fail(&gateway, &canary).await;

    let flag = gateway.flag().await;
    assert_eq!((&flag["percentage"], &flag["resume_percentage"]), (&json!(0.0), &json!(10.0)));
    let rollback = &flag["rollback"];
    assert_eq!((&rollback["cause"], &rollback["by"]), (&json!("max_error_rate"), &json!("judge")));
    let evidence = &rollback["evidence"][1];
    assert_eq!((&evidence["check"], &evidence["verdict"]), (&json!("max_error_rate"), &json!("worse")));
    assert!(evidence["value"].as_f64() >= evidence["limit"].as_f64());
    assert_eq!(evidence["requests"], evidence["failures"]);

    let (before, served) = (canary.requests(), stable.requests());
    for _ in 0..20 {
        assert_eq!(gateway.get("/api/v1/x", "alice").send().await.unwrap().status(), 200);
    }
    assert_eq!((canary.requests(), stable.requests()), (before, served + 20), "not one more request");

    let labels = "flag=\"async-database\",cause=\"max_error_rate\"";
    assert_eq!(gateway.metric(&format!("tidegate_rollbacks_total{{{labels}}}")).await, 1.0);
    assert!(site.log().contains("canary rolled back"));
    eventually("it is in history", || async { last_event(&gateway).await["action"] == "rollback" }).await;
    let event = last_event(&gateway).await;
    assert_eq!((&event["actor"], &event["rollback"]), (&json!("judge"), rollback));
}

/// Sends a request of each of `users` users, and says how many of them the canary served.
async fn ask(gateway: &Gateway, path: &str, users: std::ops::Range<usize>) {
    for user in users {
        gateway.get(path, &format!("user-{user}")).send().await.unwrap();
    }
}

#[tokio::test]
async fn a_canary_that_is_no_worse_than_stable_stays() {
    let (stable, canary, _site, gateway) = pair().await;
    assert_eq!(gateway.set(50.0).await.status(), 200);
    for round in 0..10 {
        // Both arms fail one round in forty requests: more than nothing, and alike.
        let status = if round == 5 { 500 } else { 200 };
        stable.answer_with(status);
        canary.answer_with(status);
        ask(&gateway, "/api/v1/x", round * 40..round * 40 + 10).await;
        stable.answer_with(200);
        canary.answer_with(200);
        ask(&gateway, "/api/v1/x", round * 40 + 10..round * 40 + 40).await;
    }
    let heard = || async { gateway.flag().await["evidence"][0]["requests"].as_u64() >= Some(150) };
    eventually("they are judged", heard).await;
    let flag = gateway.flag().await;
    assert_eq!(flag["phase"], "manual");
    assert!(flag["arms"]["canary"]["failures"].as_u64() >= Some(1));
    assert_eq!(flag["evidence"][0]["verdict"], "inconclusive");
    assert!(flag["evidence"][0]["canary_requests_to_go"].as_u64() > Some(100), "{flag}");
    assert_eq!(
        flag["arms"]["canary"]["requests"].as_u64().unwrap() + flag["arms"]["stable"]["requests"].as_u64().unwrap(),
        400
    );
}

#[tokio::test]
async fn a_canary_that_is_worse_than_stable_goes_though_it_is_within_its_own_limit() {
    let (_stable, canary, site, gateway) = pair().await;
    let guard = "[guard]\nmax_error_rate = \"50%\"\n";
    fs::write(site.flag_file(), format!("{}{guard}", flag_text(50.0))).unwrap();
    eventually("half are on canary", || async { gateway.flag().await["percentage"] == 50.0 }).await;
    let mut round = 0;
    eventually("it is rolled back", || {
        let first = round * 40;
        round += 1;
        let (gateway, canary) = (&gateway, &canary);
        async move {
            canary.answer_with(500);
            ask(gateway, "/api/v1/x", first..first + 8).await;
            canary.answer_with(200);
            ask(gateway, "/api/v1/x", first + 8..first + 40).await;
            gateway.flag().await["phase"] == "rolled_back"
        }
    })
    .await;
    let rollback = gateway.flag().await["rollback"].clone();
    assert_eq!(rollback["cause"], "error_rate", "{rollback}");
}

#[tokio::test]
async fn evidence_survives_a_restart() {
    let (_stable, canary, site, mut gateway) = pair().await;
    assert_eq!(gateway.set(50.0).await.status(), 200);
    canary.answer_with(500);
    ask(&gateway, "/api/v1/x", 0..4).await;
    canary.answer_with(200);
    ask(&gateway, "/api/v1/x", 4..40).await;
    let evidence = async |gateway: &Gateway| gateway.flag().await["evidence"].clone();
    eventually("they are judged", || async { evidence(&gateway).await[1]["requests"].as_u64() >= Some(15) }).await;
    let counted = || async { gateway.outcomes("sync", "success").await + gateway.outcomes("async", "success").await };
    eventually("all of them", || async { counted().await + gateway.outcomes("async", "failure").await == 40.0 }).await;
    gateway.terminate().await;
    assert_eq!(gateway.ended().await, Some(0));

    let gateway = site.start().await;
    eventually("the judge has looked", || async { evidence(&gateway).await[1].is_object() }).await;
    let after = evidence(&gateway).await;
    assert!(after[1]["requests"].as_u64() >= Some(15), "{after}");
    assert!(after[1]["failures"].as_u64() >= Some(1), "{after}");
}

#[tokio::test]
async fn nothing_is_forgotten_when_the_percentage_moves() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let served = || async { [gateway.outcomes("sync", "success").await, gateway.outcomes("async", "success").await] };
    for round in 0..20 {
        assert_eq!(gateway.set(if round % 2 == 0 { 50.0 } else { 51.0 }).await.status(), 200);
        ask(&gateway, "/api/v1/x", round * 5..round * 5 + 5).await;
        let asked = f64::from(u32::try_from(round * 5 + 5).unwrap());
        eventually("all are counted", || async { served().await.iter().sum::<f64>() == asked }).await;
    }
    let [_, canary] = served().await;
    let heard = || async { gateway.flag().await["evidence"][1]["requests"].as_f64() == Some(canary) };
    eventually("the judge has heard every one of them", heard).await;
}

#[tokio::test]
async fn one_user_who_always_fails_rolls_nothing_back() {
    let (_stable, _canary, _site, gateway) = pair().await;
    assert_eq!(gateway.set(50.0).await.status(), 200);
    ask(&gateway, "/api/v1/x", 0..100).await;
    for _ in 0..500 {
        assert_eq!(gateway.get("/api/v1/fail", "alice").send().await.unwrap().status(), 500);
    }
    ask(&gateway, "/api/v1/x", 0..100).await;
    eventually("all are counted", || async { gateway.flag().await["arms"]["canary"]["failures"] == 500 }).await;
    let heard = || async { gateway.flag().await["evidence"][1]["requests"].as_u64() >= Some(60) };
    eventually("they are judged", heard).await;
    let flag = gateway.flag().await;
    assert_eq!(flag["phase"], "manual");
    assert!(flag["evidence"][1]["failures"].as_u64() <= Some(3), "{flag}");
}

#[tokio::test]
async fn failures_of_stable_are_not_the_canarys() {
    let (stable, _canary, _site, gateway) = pair().await;
    stable.answer_with(500);
    for number in 0..300 {
        gateway.get("/api/v1/x", &format!("user-{number}")).send().await.unwrap();
    }
    eventually("all are judged", || async {
        let flag = gateway.flag().await;
        flag["evidence"][0]["requests"].as_u64() >= Some(20) && flag["arms"]["stable"]["failures"].as_u64() >= Some(200)
    })
    .await;
    assert_eq!(gateway.flag().await["phase"], "manual");
}

#[tokio::test]
async fn the_latch_survives_kill_and_restart_and_every_edit_but_a_new_release() {
    let (_stable, canary, site, gateway) = pair().await;
    fail(&gateway, &canary).await;
    eventually("the latch is stored", || async { last_event(&gateway).await["action"] == "rollback" }).await;
    let rollback = gateway.flag().await["rollback"].clone();
    gateway.kill().await;
    canary.answer_with(200);

    let gateway = site.start().await;
    assert_eq!(gateway.variant("alice").await, "sync", "the very first request");
    assert_eq!(gateway.flag().await["rollback"], rollback);

    let same = fs::read_to_string(site.flag_file()).unwrap();
    fs::write(site.flag_file(), &same).unwrap();
    fs::write(site.flag_file(), flag_text(90.0)).unwrap();
    eventually("the edit is noted", || async { last_event(&gateway).await["action"] == "percentage_under_latch" })
        .await;
    assert_eq!(gateway.variant("alice").await, "sync");
    problem(gateway.set(50.0).await, 409, "refused").await;
    gateway.kill().await;

    let gateway = site.start().await;
    assert_eq!(gateway.flag().await["phase"], "rolled_back", "an edit under the latch does not lift it at a restart");
    fs::write(site.flag_file(), flag_text(20.0).replace("release = \"1\"", "release = \"2\"")).unwrap();
    eventually("a new release begins", || async { gateway.variant("alice").await == "async" }).await;
    let flag = gateway.flag().await;
    assert_eq!(
        (&flag["percentage"], &flag["rollback"], &flag["phase"]),
        (&json!(20.0), &Value::Null, &json!("manual"))
    );
}

#[tokio::test]
async fn resuming_goes_back_to_before_or_lower() {
    let (_stable, canary, _site, gateway) = pair().await;
    assert_eq!(gateway.set(40.0).await.status(), 200);
    fail(&gateway, &canary).await;
    canary.answer_with(200);
    problem(gateway.act("resume", json!({"percentage": 41})).await, 409, "refused").await;
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    assert_eq!(gateway.flag().await["percentage"], 40.0);
    assert_eq!(gateway.variant("alice").await, "async");

    let rolled_back = gateway.act("rollback", json!({"reason": "trying it"})).await;
    assert_eq!(rolled_back.json::<Value>().await.unwrap()["saved"], true);
    assert_eq!(gateway.variant("alice").await, "sync");
    assert_eq!(gateway.act("resume", json!({"percentage": 1})).await.status(), 200);
    assert_eq!(gateway.flag().await["percentage"], 1.0);
    assert_eq!(gateway.flag().await["arms"]["canary"]["requests"], 0, "old outcomes do not judge the new rollout");
}

#[tokio::test]
async fn outcomes_of_before_do_not_judge_what_comes_after() {
    let (_stable, canary, _site, gateway) = pair().await;
    canary.answer_with(500);
    let mut slow = JoinSet::new();
    for _ in 0..30 {
        let request = gateway.client.post(format!("{}/api/v1/slow", gateway.http));
        slow.spawn(request.header("x-user-id", "alice").send());
    }
    eventually("they are under way", || async { canary.requests() == 30 }).await;
    assert_eq!(gateway.set(20.0).await.status(), 200);
    for _ in 0..30 {
        canary.release_one();
    }
    while let Some(response) = slow.join_next().await {
        assert_eq!(response.unwrap().unwrap().status(), 500);
    }
    eventually("all are charged", || async { gateway.outcomes("async", "failure").await == 30.0 }).await;
    let flag = gateway.flag().await;
    assert_eq!((&flag["phase"], &flag["arms"]["canary"]["requests"]), (&json!("manual"), &json!(0)));
}

#[tokio::test]
async fn rolling_back_under_load_fails_nobody_afterwards() {
    let (_stable, canary, site, gateway) = pair().await;
    fs::write(site.flag_file(), flag_text(50.0)).unwrap();
    eventually("half are on canary", || async { gateway.flag().await["percentage"] == 50.0 }).await;
    let gateway = Arc::new(gateway);
    let rolled_back = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for worker in 0..8 {
        let (gateway, rolled_back, done) = (Arc::clone(&gateway), Arc::clone(&rolled_back), Arc::clone(&done));
        load.spawn(async move {
            let mut failed_after = 0;
            for number in 0.. {
                let after = rolled_back.load(Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let response = gateway.get("/api/v1/x", &format!("user-{worker}-{number}")).send().await.unwrap();
                failed_after += usize::from(after && response.status() != 200);
            }
            failed_after
        });
    }
    fail(&gateway, &canary).await;
    rolled_back.store(true, Ordering::SeqCst);
    let before = canary.requests();
    let stable_requests = || async { gateway.outcomes("sync", "success").await };
    let goal = stable_requests().await + 500.0;
    eventually("traffic goes on", || async { stable_requests().await >= goal }).await;
    done.store(true, Ordering::SeqCst);
    assert_eq!(load.join_all().await.into_iter().sum::<usize>(), 0);
    // Those that were decided before and still under way when the rollback was seen: at most one a worker.
    assert!(canary.requests() <= before + 8);
}
