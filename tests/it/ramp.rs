//! The ramp moves the percentage by itself: up with time and evidence, never without, and under every rollback.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use tidegate::clock;

use crate::harness::{FLAG, Gateway, Site, eventually, problem, stderr, stdout};
use crate::store::{Kind, Place};
use crate::upstream::Upstream;

/// A guard that sees much in few requests, so that a test needs few.
const GUARD: &str = "[guard]\nmax_error_rate = \"50%\"\nfalse_rollback = 0.1\ntolerance = { points = \"20%\" }\n";

fn ramp_text(release: &str, ramp: &str) -> String {
    format!(
        "release = \"{release}\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 0\n{GUARD}[ramp]\nmin_requests = 5\n{ramp}\n"
    )
}

/// A gateway with well-behaved upstreams and a ramp.
async fn ramping(ramp: &str) -> (Upstream, Upstream, Site, Gateway) {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    fs::write(site.flag_file(), ramp_text("1", ramp)).unwrap();
    let gateway = site.start().await;
    (stable, canary, site, gateway)
}

/// Sends some requests, each of another user.
async fn traffic(gateway: &Gateway) {
    static USER: AtomicUsize = AtomicUsize::new(0);
    for _ in 0..40 {
        let user = USER.fetch_add(1, Ordering::Relaxed);
        gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
    }
}

/// Sends traffic until the flag is as `wanted` says.
async fn drive(gateway: &Gateway, what: &str, wanted: impl Fn(&Value) -> bool) {
    eventually(what, || async {
        traffic(gateway).await;
        wanted(&gateway.flag().await)
    })
    .await;
}

/// Waits, without traffic, until the flag is as `wanted` says.
async fn wait(gateway: &Gateway, what: &str, wanted: impl Fn(&Value) -> bool) {
    eventually(what, || async { wanted(&gateway.flag().await) }).await;
}

async fn events(gateway: &Gateway) -> Vec<(String, String, f64)> {
    let events = gateway.admin_json("/api/v1/events?limit=1000").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let event =
        |event: &Value| (text(&event["actor"]), text(&event["action"]), event["new"]["percentage"].as_f64().unwrap());
    events["events"].as_array().unwrap().iter().rev().map(event).collect()
}

fn at(percentage: f64) -> impl Fn(&Value) -> bool {
    move |flag| flag["percentage"] == percentage
}

fn in_phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |flag| flag["phase"] == phase
}

#[tokio::test]
async fn a_good_canary_goes_all_the_way_up() {
    let (_stable, canary, site, gateway) =
        ramping("steps = [\"10% 200ms\", \"30% 300ms\", \"60%\", \"100% 200ms\"]").await;
    let flag = gateway.flag().await;
    assert_eq!(
        (&flag["phase"], &flag["percentage"], &flag["file_percentage"]),
        (&json!("ramping"), &json!(10.0), &json!(0.0))
    );
    assert_eq!((&flag["ramp"]["step"], &flag["ramp"]["active"]), (&json!(1), &json!(true)));
    assert_eq!(flag["ramp"]["steps"][1], json!({"percentage": 30.0, "hold_s": 0.3, "approve": false}));
    assert_eq!(gateway.metric("tidegate_flag_phase{flag=\"async-database\",phase=\"ramping\"}").await, 1.0);

    drive(&gateway, "it is promoted", in_phase("promoted")).await;
    let seen: Vec<_> = events(&gateway).await;
    let expected = [
        ("file", "release", 10.0),
        ("ramp", "step", 30.0),
        ("ramp", "step", 60.0),
        ("ramp", "step", 100.0),
        ("ramp", "promote", 100.0),
    ];
    let expected: Vec<_> = expected.map(|(who, what, at)| (who.to_owned(), what.to_owned(), at)).into();
    assert_eq!(seen, expected);
    assert!(site.log().contains("rollout changed"));

    let before = canary.requests();
    traffic(&gateway).await;
    assert_eq!(canary.requests(), before + 40, "everyone is on canary");
    let flag = gateway.flag().await;
    assert_eq!((&flag["ramp"]["active"], &flag["ramp"]["waits_for"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn without_traffic_it_stays_and_then_pauses_as_inconclusive() {
    let steps = "steps = [\"50% 100ms\", \"100%\"]\n";
    let (_stable, _canary, site, gateway) = ramping(&format!("{steps}max_hold = \"1h\"")).await;
    wait(&gateway, "its time is over", |flag| flag["ramp"]["waits_for"] == "requests").await;
    let flag = gateway.flag().await;
    assert_eq!((&flag["phase"], &flag["percentage"]), (&json!("ramping"), &json!(50.0)));

    fs::write(site.flag_file(), ramp_text("1", &format!("{steps}max_hold = \"1500ms\""))).unwrap();
    wait(&gateway, "it pauses", in_phase("paused")).await;
    let flag = gateway.flag().await;
    assert_eq!((&flag["percentage"], &flag["ramp"]["inconclusive"]), (&json!(50.0), &json!(true)));
    assert_eq!((&flag["ramp"]["waits_for"], &flag["rollback"]), (&json!("resume"), &Value::Null));
    let last = gateway.admin_json("/api/v1/events?limit=1").await["events"][0].clone();
    assert_eq!((&last["actor"], &last["action"]), (&json!("ramp"), &json!("pause")));
    assert!(last["reason"].as_str().unwrap().starts_with("inconclusive: step 1 of 2 held "), "{last}");
    let text = stdout(&gateway.cli(&site, &["status", "async-database"]).await);
    assert!(text.contains("ramp: [50 %] → 100 %  step 1 of 2") && text.contains("paused as inconclusive"), "{text}");

    let asked = clock::now();
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    let held = gateway.flag().await["ramp"]["held_s"].as_f64().unwrap();
    assert!(held <= clock::now().duration_since(asked).as_secs_f64() + 0.01, "the step is held anew, not for {held} s");
    eventually("with traffic it goes on", || async {
        traffic(&gateway).await;
        // On a slow machine the evidence may come too late again.
        gateway.act("resume", json!({})).await;
        in_phase("promoted")(&gateway.flag().await)
    })
    .await;
}

#[tokio::test]
async fn a_gate_waits_for_a_person() {
    let (_stable, _canary, site, gateway) = ramping("steps = [\"10% approve\", \"30% 1h\", \"100%\"]").await;
    traffic(&gateway).await;
    wait(&gateway, "it waits at the gate", |flag| flag["ramp"]["waits_for"] == "approval").await;
    let text = stdout(&gateway.cli(&site, &["status"]).await);
    assert!(text.contains("waits for `approve`"), "{text}");
    let told = stdout(&gateway.cli(&site, &["approve", "async-database", "--reason", "looks good"]).await);
    assert!(told.starts_with("async-database is ramping, canary at 30 %"), "{told}");
    let last = gateway.admin_json("/api/v1/events?limit=1").await["events"][0].clone();
    assert_eq!(
        (&last["action"], &last["actor"], &last["reason"]),
        (&json!("approve"), &json!("local:tester"), &json!("looks good"))
    );
    let told = problem(gateway.act("approve", json!({})).await, 409, "refused").await;
    assert!(told.contains("waits for no approval"), "{told}");
    let told = stderr(&gateway.cli(&site, &["approve", "async-database"]).await, 1);
    assert!(told.contains("`skip` goes on"), "{told}");
    problem(gateway.act("approve", json!({"percentage": 5})).await, 400, "invalid").await;
}

#[tokio::test]
async fn a_gate_after_a_hold_waits_for_both() {
    let (_stable, _canary, _site, gateway) = ramping("steps = [\"20% 100ms approve\", \"50% 1h\", \"100%\"]").await;
    wait(&gateway, "its time is over", |flag| flag["ramp"]["waits_for"] == "requests").await;
    problem(gateway.act("approve", json!({})).await, 409, "refused").await;
    drive(&gateway, "the evidence is there", |flag| flag["ramp"]["waits_for"] == "approval").await;
    assert_eq!(gateway.flag().await["percentage"], 20.0);
    assert_eq!(gateway.act("approve", json!({})).await.status(), 200);
    assert_eq!(gateway.flag().await["percentage"], 50.0);
}

#[tokio::test]
async fn people_skip_pause_take_over_and_give_back() {
    let (_stable, _canary, _site, gateway) = ramping("steps = [\"1% 1h\", \"5% 1h\", \"25% 1h\", \"100%\"]").await;
    assert_eq!(gateway.act("skip", json!({})).await.status(), 200);
    assert_eq!(gateway.flag().await["percentage"], 5.0);
    wait(&gateway, "the step is held", |flag| flag["ramp"]["held_s"].as_f64() > Some(0.3)).await;
    assert_eq!(gateway.act("pause", json!({})).await.status(), 200);
    let paused = gateway.flag().await;
    let held = paused["ramp"]["held_s"].as_f64().unwrap();
    assert!(held > 0.3 && paused["phase"] == "paused" && paused["percentage"] == 5.0, "{paused}");
    traffic(&gateway).await;
    assert_eq!(gateway.flag().await["ramp"]["held_s"].as_f64(), Some(held), "a pause is no time");
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    let resumed = gateway.flag().await;
    assert!(resumed["phase"] == "ramping" && resumed["ramp"]["held_s"].as_f64() >= Some(held), "{resumed}");

    assert_eq!(gateway.set(10.0).await.status(), 200);
    let taken = gateway.flag().await;
    assert_eq!((&taken["phase"], &taken["ramp"]["active"]), (&json!("manual"), &json!(false)));
    problem(gateway.act("skip", json!({})).await, 409, "refused").await;
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    let back = gateway.flag().await;
    assert_eq!(
        (&back["phase"], &back["percentage"], &back["ramp"]["step"]),
        (&json!("ramping"), &json!(10.0), &json!(2))
    );
    for percentage in [25.0, 100.0] {
        assert_eq!(gateway.act("skip", json!({})).await.status(), 200);
        assert_eq!(gateway.flag().await["percentage"], percentage);
    }
    assert_eq!(gateway.flag().await["phase"], "promoted");
}

on_both!(a_killed_gateway_goes_on_where_it_was);

async fn a_killed_gateway_goes_on_where_it_was(kind: Kind) {
    let place = Place::new(kind).await;
    let site = &place.site;
    fs::write(site.flag_file(), ramp_text("1", "steps = [\"10% 100ms\", \"40% 1h\", \"100%\"]")).unwrap();
    let gateway = site.start().await;
    drive(&gateway, "it is on the second step", at(40.0)).await;
    // Kept every two seconds: what has been held since is what a kill costs.
    wait(&gateway, "the step is held", |flag| flag["ramp"]["held_s"].as_f64() > Some(2.5)).await;
    let path = format!("/api/v1/flags/{FLAG}/seconds");
    let recorded = async |gateway: &Gateway| gateway.admin_json(&path).await["seconds"].as_array().unwrap().len();
    let count = || async { recorded(&gateway).await > 0 };
    eventually("what was counted is recorded", count).await;
    gateway.kill().await;
    let gateway = site.start().await;
    let flag = gateway.flag().await;
    assert_eq!(
        (&flag["phase"], &flag["percentage"], &flag["ramp"]["step"]),
        (&json!("ramping"), &json!(40.0), &json!(2))
    );
    assert!(flag["ramp"]["held_s"].as_f64() > Some(0.0) && recorded(&gateway).await > 0, "{flag}");
    wait(&gateway, "its time goes on", |after| after["ramp"]["held_s"].as_f64() > flag["ramp"]["held_s"].as_f64())
        .await;
}

/// Has the canary fail until it is rolled back, and then no more.
async fn fail(gateway: &Gateway, canary: &Upstream) {
    canary.answer_with(500);
    drive(gateway, "it is rolled back", in_phase("rolled_back")).await;
    canary.answer_with(200);
}

#[tokio::test]
async fn a_bad_canary_is_taken_out_during_a_hold_a_gate_and_a_pause() {
    let (_stable, canary, site, gateway) = ramping("steps = [\"50% 1h\", \"60% approve\", \"100%\"]").await;
    fail(&gateway, &canary).await;
    problem(gateway.act("skip", json!({})).await, 409, "refused").await;
    problem(gateway.act("approve", json!({})).await, 409, "refused").await;
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    let flag = gateway.flag().await;
    assert_eq!(
        (&flag["phase"], &flag["percentage"], &flag["ramp"]["step"]),
        (&json!("ramping"), &json!(50.0), &json!(1))
    );

    assert_eq!(gateway.act("skip", json!({})).await.status(), 200);
    assert_eq!(gateway.flag().await["ramp"]["waits_for"], "approval");
    fail(&gateway, &canary).await;
    assert_eq!(gateway.act("resume", json!({"percentage": 55})).await.status(), 200);
    let flag = gateway.flag().await;
    assert_eq!((&flag["percentage"], &flag["ramp"]["step"]), (&json!(55.0), &json!(1)));

    assert_eq!(gateway.act("pause", json!({})).await.status(), 200);
    fail(&gateway, &canary).await;

    fs::write(site.flag_file(), ramp_text("2", "steps = [\"5% 1h\", \"60% approve\", \"100%\"]")).unwrap();
    wait(&gateway, "a new release begins on the first step", at(5.0)).await;
    let flag = gateway.flag().await;
    assert_eq!((&flag["phase"], &flag["release"], &flag["ramp"]["step"]), (&json!("ramping"), &json!("2"), &json!(1)));
}

/// What stands against the canary in the comparison of failures.
fn evidence(flag: &Value) -> f64 {
    let checks = flag["evidence"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == "error_rate").unwrap()["value"].as_f64().unwrap()
}

#[tokio::test]
async fn evidence_against_the_canary_goes_along_to_the_next_step() {
    let (_stable, canary, _site, gateway) = ramping("steps = [\"50% 1h\", \"60% 1h\", \"100%\"]").await;
    drive(&gateway, "a healthy canary loses the bets against it", |flag| evidence(flag) < 0.5).await;
    let before = gateway.flag().await;
    assert_eq!(gateway.act("skip", json!({})).await.status(), 200);
    let after = gateway.flag().await;
    assert_eq!(after["percentage"], 60.0);
    assert!(evidence(&after) < 0.6 && after["arms"]["canary"]["requests"] == 0, "{before} {after}");
    canary.answer_with(500);
    drive(&gateway, "it is rolled back in the second step", in_phase("rolled_back")).await;
    assert_eq!(gateway.flag().await["ramp"]["step"], 2);
}

#[tokio::test]
async fn a_person_may_promote_in_the_middle() {
    let (_stable, canary, _site, gateway) = ramping("steps = [\"5% 1h\", \"60% approve\", \"100%\"]").await;
    assert_eq!(gateway.act("promote", json!({"reason": "all is well"})).await.status(), 200);
    let flag = gateway.flag().await;
    assert_eq!((&flag["phase"], &flag["percentage"]), (&json!("promoted"), &json!(100.0)));
    let before = canary.requests();
    traffic(&gateway).await;
    assert_eq!(canary.requests(), before + 40, "everyone is on canary");
    problem(gateway.act("skip", json!({})).await, 409, "refused").await;
    problem(gateway.act("approve", json!({})).await, 409, "refused").await;
    assert_eq!(gateway.flag().await["phase"], "promoted");
}

#[tokio::test]
async fn edits_of_the_ramp_move_nobody() {
    let (_stable, _canary, site, gateway) = ramping("steps = [\"1% 1h\", \"10% 1h\", \"100%\"]").await;
    assert_eq!(gateway.act("skip", json!({})).await.status(), 200);
    wait(&gateway, "the step is held", |flag| flag["ramp"]["held_s"].as_f64() > Some(0.2)).await;
    let before = gateway.flag().await;
    fs::write(site.flag_file(), ramp_text("1", "steps = [\"2% 1h\", \"8% 2h\", \"20% 1h\", \"100%\"]")).unwrap();
    wait(&gateway, "the steps are taken up", |flag| flag["ramp"]["steps"][1]["percentage"] == 8.0).await;
    let after = gateway.flag().await;
    assert_eq!((&after["percentage"], &after["generation"]), (&json!(10.0), &before["generation"]));
    assert_eq!((&after["ramp"]["step"], &after["ramp"]["next_percentage"]), (&json!(2), &json!(20.0)));
    assert!(after["ramp"]["held_s"].as_f64() >= before["ramp"]["held_s"].as_f64(), "its time counts on");

    let without = ramp_text("1", "").replace("[ramp]\nmin_requests = 5\n", "");
    fs::write(site.flag_file(), without).unwrap();
    wait(&gateway, "people move it again", in_phase("manual")).await;
    assert_eq!((&gateway.flag().await["percentage"], &gateway.flag().await["ramp"]), (&json!(10.0), &Value::Null));
    fs::write(site.flag_file(), ramp_text("1", "steps = [\"1% 1h\", \"100%\"]")).unwrap();
    wait(&gateway, "a ramp that is added takes over", in_phase("ramping")).await;
    assert_eq!(gateway.flag().await["percentage"], 10.0);
    fs::write(
        site.flag_file(),
        ramp_text("1", "steps = [\"1% 1h\", \"100%\"]").replace("percentage = 0", "percentage = 3"),
    )
    .unwrap();
    wait(&gateway, "an edit of the percentage is a person's", in_phase("manual")).await;
    assert_eq!(gateway.flag().await["percentage"], 3.0);
}

#[tokio::test]
async fn a_ramp_that_is_none_is_told_with_its_place() {
    let site = Site::builtin();
    for (ramp, line, wrong) in [
        ("steps = [\"5% 1m\", \"5% 1m\", \"100%\"]", "13:19", "each step is above the one before it"),
        ("steps = [\"5% 1m\", \"50% 1m\"]", "13:19", "the last step is 100%"),
        ("steps = [\"5% 25h\", \"100%\"]", "13:10", "held longer than `max_hold`"),
        ("steps = [\"5 1m\", \"100%\"]", "13:10", "a step is a percentage and then what it waits for"),
        ("steps = [\"5% soon\", \"100%\"]", "13:10", "no duration"),
        ("step = [\"100%\"]", "13:1", "unknown key `ramp.step`; did you mean `steps`?"),
    ] {
        fs::write(site.flag_file(), ramp_text("1", ramp).replace(GUARD, "[guard]\n\n\n\n\n\n")).unwrap();
        let output = site.run(&["check"]).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{ramp}");
        assert!(told.contains(&format!("async-database.toml:{line}: ")) && told.contains(wrong), "{ramp}: {told}");
    }
}
