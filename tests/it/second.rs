//! What takes two operators: asked for by one, done once another has approved it.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, problem, stderr, stdout};
use crate::notify::{Hook, channel};
use crate::store::{Kind, Place};

const RULE: &str = "[admin]\ntoken_file = \"tokens.toml\"\nsecond_operator = { promote = true, above = \"25%\" }\n";

/// Has `site` ask for two operators, and gives the tokens of two and of somebody who looks.
async fn guard(site: &Site) -> [String; 3] {
    site.configure(RULE);
    let mut tokens = Vec::new();
    for (name, role) in [("ann", "operator"), ("bob", "operator"), ("vera", "viewer")] {
        tokens.push(stdout(&site.run(&["token", "new", name, "--role", role]).await).trim().to_owned());
    }
    tokens.try_into().unwrap()
}

async fn ask(gateway: &Gateway, token: &str, method: Method, path: &str, body: Value) -> Response {
    let url = format!("{}/api/v1/{path}", gateway.admin);
    gateway.client.request(method, url).bearer_auth(token).json(&body).send().await.unwrap()
}

async fn flag(gateway: &Gateway, token: &str) -> Value {
    ask(gateway, token, Method::GET, &format!("flags/{FLAG}"), json!({})).await.json().await.unwrap()
}

/// Asks for a change that has to wait, and gives its name.
async fn waits(gateway: &Gateway, token: &str, method: Method, path: &str, body: Value) -> String {
    let asked = ask(gateway, token, method, path, body).await;
    assert_eq!(asked.status(), 202);
    asked.json::<Value>().await.unwrap()["approval"]["id"].as_str().unwrap().to_owned()
}

on_both!(
    what_gives_many_users_to_the_canary_takes_another_operator,
    what_waits_outlives_a_restart_and_ends_with_any_change
);

async fn what_gives_many_users_to_the_canary_takes_another_operator(kind: Kind) {
    let place = Place::new(kind).await;
    let [ann, bob, vera] = guard(&place.site).await;
    let gateway = place.site.start().await;
    let one = format!("flags/{FLAG}");
    let within = ask(&gateway, &ann, Method::PATCH, &one, json!({"percentage": 25})).await;
    assert_eq!(within.status(), 200, "up to the limit one is enough");
    let asked = ask(&gateway, &ann, Method::PATCH, &one, json!({"percentage": 50, "reason": "quiet"})).await;
    assert_eq!(asked.status(), 202);
    let asked: Value = asked.json().await.unwrap();
    assert_eq!(asked["flag"]["percentage"], 25.0, "nothing is done yet");
    let approval = &asked["approval"];
    assert_eq!(
        (&approval["actor"], &approval["from_percentage"], &approval["percentage"]),
        (&json!("ann"), &json!(25.0), &json!(50.0))
    );
    let again = waits(&gateway, &ann, Method::PATCH, &one, json!({"percentage": 50, "reason": "quiet"})).await;
    assert_eq!(approval["id"], again, "asked for twice it waits once");
    assert_eq!(flag(&gateway, &vera).await["approvals"], json!([approval]));

    let path = format!("{one}/approvals/{again}");
    let own = problem(ask(&gateway, &ann, Method::POST, &path, json!({})).await, 403, "same-operator").await;
    assert!(own.contains("another operator has to approve it"), "{own}");
    problem(ask(&gateway, &vera, Method::POST, &path, json!({})).await, 403, "forbidden").await;
    problem(ask(&gateway, &bob, Method::POST, &format!("{one}/approvals/0"), json!({})).await, 404, "no-approval")
        .await;
    problem(ask(&gateway, &bob, Method::POST, &path, json!({"percentage": 60})).await, 400, "invalid").await;
    let approved: Value =
        ask(&gateway, &bob, Method::POST, &path, json!({"reason": "I looked"})).await.json().await.unwrap();
    assert_eq!((&approved["flag"]["percentage"], &approved["flag"]["approvals"]), (&json!(50.0), &json!([])));
    problem(ask(&gateway, &bob, Method::POST, &path, json!({})).await, 404, "no-approval").await;

    let events = format!("events?limit=2&flag={FLAG}");
    let events: Value = ask(&gateway, &vera, Method::GET, &events, json!({})).await.json().await.unwrap();
    let [done, wanted] = [&events["events"][0], &events["events"][1]];
    assert_eq!((&done["actor"], &done["reason"]), (&json!("ann, approved by bob"), &json!("quiet; bob: I looked")));
    assert_eq!((&wanted["action"], &wanted["actor"], &wanted["generation"]), (&json!("ask"), &json!("ann"), &json!(2)));
    let told = wanted["reason"].as_str().unwrap();
    assert!(
        told.starts_with("set, 25 % → 50 %, waits for a second operator as ") && told.ends_with(": quiet"),
        "{told}"
    );

    // What takes users away waits for nobody.
    let less = ask(&gateway, &ann, Method::PATCH, &one, json!({"percentage": 40})).await;
    assert_eq!(less.status(), 200);
    assert_eq!(ask(&gateway, &ann, Method::POST, &format!("{one}/pause"), json!({})).await.status(), 200);
    assert_eq!(ask(&gateway, &ann, Method::POST, &format!("{one}/resume"), json!({})).await.status(), 200);
    let promotion = waits(&gateway, &bob, Method::POST, &format!("{one}/promote"), json!({})).await;
    assert_eq!(ask(&gateway, &ann, Method::POST, &format!("{one}/rollback"), json!({})).await.status(), 200);
    let void = ask(&gateway, &ann, Method::POST, &format!("{one}/approvals/{promotion}"), json!({})).await;
    assert!(problem(void, 404, "no-approval").await.contains("the rollout has changed since"));
    let lifted = waits(&gateway, &ann, Method::POST, &format!("{one}/resume"), json!({})).await;
    let lower = ask(&gateway, &ann, Method::POST, &format!("{one}/resume"), json!({"percentage": 1})).await;
    assert_eq!(lower.status(), 200);
    problem(
        ask(&gateway, &bob, Method::POST, &format!("{one}/approvals/{lifted}"), json!({})).await,
        404,
        "no-approval",
    )
    .await;
}

async fn what_waits_outlives_a_restart_and_ends_with_any_change(kind: Kind) {
    let place = Place::new(kind).await;
    let [ann, bob, _] = guard(&place.site).await;
    let gateway = place.site.start().await;
    let one = format!("flags/{FLAG}");
    let first = waits(&gateway, &ann, Method::POST, &format!("{one}/promote"), json!({})).await;
    let second = waits(&gateway, &ann, Method::PATCH, &one, json!({"percentage": 30})).await;
    gateway.kill().await;
    let gateway = place.site.start().await;
    let listed: Value = ask(&gateway, &bob, Method::GET, "approvals", json!({})).await.json().await.unwrap();
    assert_eq!(listed["approvals"].as_array().unwrap().len(), 2);
    let withdrawn = ask(&gateway, &bob, Method::DELETE, &format!("{one}/approvals/{second}"), json!({})).await;
    assert_eq!(withdrawn.status(), 204);
    if place.database.is_some() {
        // Any gateway that shares the store can be told.
        let other = place.site.start().await;
        assert_eq!(ask(&other, &bob, Method::POST, &format!("{one}/approvals/{first}"), json!({})).await.status(), 200);
        eventually("all know", || async { flag(&gateway, &bob).await["phase"] == "promoted" }).await;
    } else {
        let approved = ask(&gateway, &bob, Method::POST, &format!("{one}/approvals/{first}"), json!({})).await;
        assert_eq!(approved.json::<Value>().await.unwrap()["flag"]["phase"], "promoted");
    }
    let listed: Value =
        ask(&gateway, &bob, Method::GET, &format!("approvals?flag={FLAG}"), json!({})).await.json().await.unwrap();
    assert_eq!(listed["approvals"], json!([]));
    let whole = ask(&gateway, &bob, Method::GET, "events/verify", json!({})).await.json::<Value>().await.unwrap();
    assert_eq!(whole["problems"], json!([]));
}

#[tokio::test]
async fn the_commands_and_the_dashboard_show_what_waits() {
    let site = Site::builtin();
    let [ann, bob, _] = guard(&site).await;
    let gateway = site.start().await;
    let run = async |token: &str, arguments: &[&str]| {
        let mut command = site.command(arguments);
        command.env("TIDEGATE_ADMIN", &gateway.admin).env("TIDEGATE_TOKEN", token).output().await.unwrap()
    };
    let told = stderr(&run(&ann, &["set", FLAG, "50"]).await, 1);
    let id = told.trim().rsplit(' ').next().unwrap().trim_end_matches('`').to_owned();
    assert!(told.contains(&format!("who says `tidegate approve {FLAG} {id}`")), "{told}");
    assert!(
        stdout(&run(&bob, &["status"]).await)
            .contains(&format!("ann wants to set, 10 % → 50 %: another operator says `tidegate approve {FLAG} {id}`"))
    );
    assert!(stdout(&run(&bob, &["approvals"]).await).contains(&id));
    let page = async |token: &str| {
        let cookie = format!("tidegate_session={}.{token}", "0".repeat(32));
        let page = gateway.client.get(format!("{}/", gateway.admin)).header("cookie", cookie).send().await.unwrap();
        page.text().await.unwrap()
    };
    let form = format!("action=\"/flags/{FLAG}/approvals/{id}/approve\"");
    let seen = page(&bob).await;
    assert!(seen.contains(&form), "{seen}");
    assert!(!page(&ann).await.contains(&form), "whoever asked cannot approve it");
    let proof = seen.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let post = |proof: String| {
        gateway
            .client
            .post(format!("{}/flags/{FLAG}/approvals/{id}/approve", gateway.admin))
            .header("cookie", format!("tidegate_session={}.{bob}", "0".repeat(32)))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("csrf={proof}"))
            .send()
    };
    assert_eq!(post("x".to_owned()).await.unwrap().status(), 403);
    post(proof).await.unwrap();
    assert_eq!(flag(&gateway, &bob).await["percentage"], 50.0);
    let told = stderr(&run(&ann, &["promote", FLAG]).await, 1);
    let id = told.trim().rsplit(' ').next().unwrap().trim_end_matches('`').to_owned();
    assert!(stdout(&run(&ann, &["withdraw", FLAG, &id]).await).contains("is withdrawn"));
    let history = stdout(&run(&ann, &["history", FLAG]).await);
    for told in [format!("waits for a second operator as {id}"), format!("promote, which ann asked for as {id}")] {
        assert!(history.contains(&told), "{told}: {history}");
    }
    stderr(&run(&bob, &["approve", FLAG, &id]).await, 1);
}

#[tokio::test]
async fn webhooks_are_told_what_waits() {
    let (hook, site) = (Hook::start().await, Site::builtin());
    let [ann, ..] = guard(&site).await;
    site.configure(&channel(&hook.address));
    let gateway = site.start().await;
    let open = async || {
        let metrics = ask(&gateway, &ann, Method::GET, "../../metrics", json!({})).await.text().await.unwrap();
        metrics.contains("tidegate_notifications_waiting{channel=\"ops\"} 0")
    };
    eventually("the channel is open", open).await;
    let id = waits(&gateway, &ann, Method::POST, &format!("flags/{FLAG}/promote"), json!({"reason": "quiet"})).await;
    eventually("it is told", || async { !hook.told("/t").is_empty() }).await;
    let (_, body) = hook.told("/t").remove(0);
    assert_eq!((&body["event"], &body["by"], &body["flag"]), (&json!("approval"), &json!("ann"), &json!(FLAG)));
    let summary = body["summary"].as_str().unwrap();
    let told = format!(
        "ann wants to promote {FLAG}, 10 % → 100 %: quiet; another operator says `tidegate approve {FLAG} {id}`"
    );
    assert!(summary.starts_with(&told), "{summary}");
}

#[tokio::test]
async fn the_rule_needs_two_operators_and_a_meaning() {
    let site = Site::builtin();
    site.configure(RULE);
    stdout(&site.run(&["token", "new", "ann", "--role", "operator"]).await);
    stdout(&site.run(&["token", "new", "vera", "--role", "viewer"]).await);
    for command in ["check", "serve"] {
        let error = stderr(&site.run(&[command]).await, 1);
        assert!(error.contains("tidegate.toml:") && error.contains("two operators are needed"), "{error}");
    }
    stdout(&site.run(&["token", "new", "bob", "--role", "operator"]).await);
    stdout(&site.run(&["check"]).await);
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    for (rule, told) in [
        ("{}", "asks for no second operator"),
        ("{ above = \"100%\" }", "asks for no second operator"),
        ("{ above = 25 }", "wants a percentage"),
        ("{ above = \"250%\" }", "`admin.second_operator.above`"),
        ("{ promote = true, expires = \"0s\" }", "too short"),
        ("{ promot = true }", "did you mean `promote`"),
    ] {
        site.write("tidegate.toml", &config.replace("{ promote = true, above = \"25%\" }", rule));
        let error = stderr(&site.run(&["check"]).await, 1);
        assert!(error.contains(told), "{rule}: {error}");
    }
}
