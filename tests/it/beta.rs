//! Beta users who are added and removed while the gateway runs.

use std::fs;

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, pair, problem, stderr, stdout};
use crate::store::{Kind, Place};

impl Gateway {
    async fn patch(&self, body: Value, generation: Option<u64>) -> Response {
        let request = self.client.patch(format!("{}/api/v1/flags/{FLAG}", self.admin)).json(&body);
        let request = match generation {
            Some(generation) => request.header("if-match", format!("\"{generation}\"")),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn reason(&self, user: &str) -> (String, String) {
        let explained = self.admin_json(&format!("/api/v1/flags/{FLAG}/explain?user={user}")).await;
        let beta = explained["steps"].as_array().unwrap().iter().find(|step| step["layer"] == "beta").cloned();
        let detail = beta.map_or(Value::Null, |step| step["detail"].clone());
        (explained["reason"].as_str().unwrap().to_owned(), detail.as_str().unwrap_or_default().to_owned())
    }
}

on_both!(users_are_added_and_removed_over_the_file_and_survive_a_kill);

async fn users_are_added_and_removed_over_the_file_and_survive_a_kill(kind: Kind) {
    let place = Place::new(kind).await;
    let site = &place.site;
    let gateway = site.start().await;
    fs::write(site.flag_file(), flag_text(0.0)).unwrap();
    eventually("nobody but the beta users is on canary", || async { gateway.flag().await["percentage"] == 0.0 }).await;
    let before = gateway.flag().await["generation"].as_u64().unwrap();
    assert_eq!((gateway.variant("carol").await, gateway.variant("bob").await), ("sync".to_owned(), "async".to_owned()));

    let added = stdout(&gateway.cli(site, &["beta", "add", FLAG, "carol", "alice", "--reason", "they asked"]).await);
    assert!(added.contains("3 beta users, 1 added and 0 removed at runtime"), "{added}");
    stdout(&gateway.cli(site, &["beta", "remove", FLAG, "bob", "nobody"]).await);
    assert_eq!((gateway.variant("carol").await, gateway.variant("bob").await), ("async".to_owned(), "sync".to_owned()));
    let flag = gateway.flag().await;
    assert_eq!((&flag["beta_users"], &flag["beta_added"], &flag["beta_removed"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(flag["generation"], before + 2);

    let (reason, detail) = gateway.reason("carol").await;
    assert_eq!(reason, "BETA");
    assert!(detail.starts_with("`carol` is on the beta list: added by local:tester at 2"), "{detail}");
    let (reason, detail) = gateway.reason("bob").await;
    assert_eq!(reason, "PERCENTAGE");
    assert!(detail.starts_with("`bob` is not on the beta list: removed by local:tester at 2"), "{detail}");

    let events = gateway.admin_json(&format!("/api/v1/events?flag={FLAG}&limit=2")).await["events"].clone();
    assert_eq!((&events[1]["action"], &events[1]["reason"]), (&json!("beta"), &json!("they asked")));
    let beta = json!({"added": 1, "removed": 0, "users_added": ["carol"], "users_removed": []});
    assert_eq!(events[1]["new"]["beta"], beta);
    assert_eq!(events[0]["new"]["beta"]["users_removed"], json!(["bob"]));

    gateway.kill().await;
    let gateway = site.start().await;
    assert_eq!((gateway.variant("carol").await, gateway.variant("bob").await), ("async".to_owned(), "sync".to_owned()));

    // What was asked for at runtime holds whatever the file comes to say, and in a new release too.
    fs::write(
        site.flag_file(),
        flag_text(0.0).replace("\"alice\", ", "").replace("release = \"1\"", "release = \"2\""),
    )
    .unwrap();
    eventually("alice is off the list", || async { gateway.variant("alice").await == "sync" }).await;
    assert_eq!((gateway.variant("carol").await, gateway.variant("bob").await), ("async".to_owned(), "sync".to_owned()));
    stdout(&gateway.cli(site, &["beta", "add", FLAG, "bob"]).await);
    stdout(&gateway.cli(site, &["beta", "remove", FLAG, "carol"]).await);
    assert_eq!((gateway.variant("carol").await, gateway.variant("bob").await), ("sync".to_owned(), "async".to_owned()));
    assert_eq!(gateway.flag().await["beta_added"], 0);
    assert_eq!(gateway.flag().await["beta_removed"], 0);
}

#[tokio::test]
async fn a_change_of_the_list_respects_what_was_looked_at() {
    let (_stable, _canary, site, gateway) = pair().await;
    let generation = gateway.flag().await["generation"].as_u64().unwrap();
    let nothing = gateway.patch(json!({"beta": {"add": ["alice"]}}), Some(generation)).await;
    assert_eq!(nothing.json::<Value>().await.unwrap()["flag"]["generation"], generation, "alice is on it already");
    let both =
        gateway.patch(json!({"percentage": 20, "beta": {"add": ["x"], "remove": ["alice"]}}), Some(generation)).await;
    assert_eq!(both.status(), 200);
    let flag = gateway.flag().await;
    assert_eq!((&flag["percentage"], &flag["beta_users"]), (&json!(20.0), &json!(2)));
    problem(gateway.patch(json!({"beta": {"add": ["y"]}}), Some(generation)).await, 412, "stale").await;
    for wrong in [
        json!({"beta": {}}),
        json!({"beta": {"add": [""]}}),
        json!({"beta": {"add": ["k".repeat(4097)]}}),
        json!({"beta": {"add": ["a\nb"]}}),
        json!({"beta": {"add": ["a"], "remove": ["a"]}}),
        json!({"beta": {"ad": ["a"]}}),
        json!({}),
    ] {
        problem(gateway.patch(wrong, None).await, 400, "invalid").await;
    }
    // Two are changed already.
    let many: Vec<_> = (0..9_999).map(|number| number.to_string()).collect();
    assert_eq!(gateway.patch(json!({"beta": {"add": many[..5_000]}}), None).await.status(), 200);
    let told = problem(gateway.patch(json!({"beta": {"add": many[5_000..]}}), None).await, 409, "refused").await;
    assert!(told.contains("users_file"), "{told}");
    // The latch holds with its rollback, whoever is put on the list meanwhile.
    gateway.act("rollback", json!({})).await;
    assert_eq!(gateway.patch(json!({"beta": {"add": ["late"]}}), None).await.status(), 200);
    let flag = gateway.flag().await;
    assert_eq!((&flag["phase"], flag["rollback"].is_object()), (&json!("rolled_back"), true));
    assert_eq!(gateway.variant("late").await, "sync");
    drop(site);
}

#[tokio::test]
async fn a_list_is_shown_by_the_page() {
    let site = Site::builtin();
    site.write("flags/list.txt", "# testers\ndave\nerin\nfrank\n");
    site.write("flags/async-database.toml", &format!("{}users_file = \"list.txt\"\n", flag_text(0.0)));
    let gateway = site.start().await;
    stdout(&gateway.cli(&site, &["beta", "add", FLAG, "carol"]).await);
    stdout(&gateway.cli(&site, &["beta", "remove", FLAG, "erin"]).await);
    let whole = stdout(&gateway.cli(&site, &["beta", "list", FLAG, "--all", "--limit", "2"]).await);
    let users: Vec<_> =
        whole.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(users, ["carol added", "erin removed", "alice flag", "bob flag", "dave users", "frank users"]);
    let page = gateway.admin_json(&format!("/api/v1/flags/{FLAG}/beta?limit=5")).await;
    assert_eq!(page["beta_users"], 5);
    let first = stdout(&gateway.cli(&site, &["beta", "list", FLAG, "--limit", "5"]).await);
    let cursor = page["next"].as_str().unwrap();
    assert!(first.contains(cursor), "{first}");
    let last = stdout(&gateway.cli(&site, &["beta", "list", FLAG, "--cursor", cursor]).await);
    assert_eq!(last, "frank  users file\n");
    site.write("flags/list.txt", "grace\n");
    eventually("grace is on the list", || async { gateway.flag().await["beta_users"] == 4 }).await;
    let told = stderr(&gateway.cli(&site, &["beta", "list", FLAG, "--cursor", cursor]).await, 1);
    assert!(told.contains("begin again"), "{told}");
    stderr(&gateway.cli(&site, &["beta", "add", FLAG]).await, 2);
    stderr(&gateway.cli(&site, &["beta", "list", "nothing"]).await, 1);
}
