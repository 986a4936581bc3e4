//! Who may use the admin API, and as whom.

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, header, problem, stderr, stdout};

/// A site that asks for tokens, and a token of each role.
async fn guarded() -> (Site, [String; 3]) {
    let site = Site::builtin();
    site.configure("[admin]\ntoken_file = \"tokens.toml\"\n");
    let mut tokens = Vec::new();
    for (name, role) in [("vera", "viewer"), ("tim", "tester"), ("olga", "operator")] {
        tokens.push(stdout(&site.run(&["token", "new", name, "--role", role]).await).trim().to_owned());
    }
    (site, tokens.try_into().unwrap())
}

fn with(gateway: &Gateway, method: Method, path: &str, token: &str) -> RequestBuilder {
    gateway.client.request(method, format!("{}{path}", gateway.admin)).header(AUTHORIZATION, format!("Bearer {token}"))
}

#[tokio::test]
async fn each_role_may_do_its_own() {
    let (site, [viewer, tester, operator]) = guarded().await;
    let gateway = site.start().await;
    let (flag, rollback) = (format!("/api/v1/flags/{FLAG}"), format!("/api/v1/flags/{FLAG}/rollback"));
    for (token, name) in [(&viewer, "vera"), (&tester, "tim")] {
        assert_eq!(with(&gateway, Method::GET, &flag, token).send().await.unwrap().status(), 200);
        assert_eq!(with(&gateway, Method::GET, "/metrics", token).send().await.unwrap().status(), 200);
        let refused = with(&gateway, Method::POST, &rollback, token).send().await.unwrap();
        assert!(problem(refused, 403, "forbidden").await.starts_with(&format!("`{name}` is a ")));
    }
    let changed =
        with(&gateway, Method::PATCH, &flag, &operator).json(&json!({"percentage": 20})).send().await.unwrap();
    assert_eq!(changed.status(), 200);
    let events: Value =
        with(&gateway, Method::GET, "/api/v1/events", &viewer).send().await.unwrap().json().await.unwrap();
    assert_eq!(events["events"][0]["actor"], "olga");
}

#[tokio::test]
async fn without_a_token_there_is_only_what_balancers_ask() {
    let (site, [viewer, ..]) = guarded().await;
    let gateway = site.start().await;
    for path in ["/health", "/ready"] {
        assert_eq!(gateway.admin(path).await.status(), 200, "{path}");
    }
    for path in ["/metrics", "/api/v1/flags", "/api/v1/events", "/nothing"] {
        let refused = gateway.admin(path).await;
        assert_eq!(header(refused.headers(), WWW_AUTHENTICATE.as_str()), Some("Bearer realm=\"tidegate\""));
        problem(refused, 401, "unauthorized").await;
    }
    problem(gateway.set(50.0).await, 401, "unauthorized").await;
    site.write("flags/async-database.toml", "percentage = 101\n");
    let shown = async |token: Option<&str>| -> String {
        let request = gateway.client.get(format!("{}/ready", gateway.admin));
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.unwrap().json::<Value>().await.unwrap()["problems"].to_string()
    };
    eventually("the bad file is noticed", || async { shown(Some(&viewer)).await.contains("async-database.toml") })
        .await;
    assert!(shown(None).await.contains("problems; ask with a token to read them"), "no path is told to strangers");
}

#[tokio::test]
async fn trying_tokens_is_slowed_and_told() {
    let (site, [viewer, ..]) = guarded().await;
    let gateway = site.start().await;
    let mut slowed = None;
    for number in 0..100 {
        let refused = with(&gateway, Method::GET, "/api/v1/flags", &format!("tidegate_{number}")).send().await.unwrap();
        if refused.status() == 429 {
            slowed = Some(refused);
            break;
        }
        problem(refused, 401, "unauthorized").await;
    }
    let slowed = slowed.expect("somebody who tries a hundred is slowed");
    assert!(header(slowed.headers(), "retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    problem(slowed, 429, "too-many-attempts").await;
    assert!(site.log().contains("an unknown token was shown"));
    assert!(!site.log().contains("tidegate_1"), "what was shown is not logged");
    eventually("whoever has a token gets in again", || async {
        with(&gateway, Method::GET, "/api/v1/flags", &viewer).send().await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test]
async fn tokens_come_and_go_while_the_gateway_runs() {
    let (site, [_, _, operator]) = guarded().await;
    let gateway = site.start().await;
    let status = async |token: &str| {
        let mut command = site.command(&["status"]);
        command.env("TIDEGATE_ADMIN", &gateway.admin).env("TIDEGATE_TOKEN", token).output().await.unwrap()
    };
    assert!(stdout(&status(&operator).await).starts_with(FLAG));
    let list = stdout(&site.run(&["token", "list"]).await);
    assert_eq!(list, "name  role\nvera  viewer\ntim   tester\nolga  operator\n");
    let taken = stderr(&site.run(&["token", "new", "olga", "--role", "viewer"]).await, 1);
    assert!(taken.contains("holds a token named `olga`"), "{taken}");

    stdout(&site.run(&["token", "revoke", "olga"]).await);
    eventually("it is revoked", || async { !status(&operator).await.status.success() }).await;
    let refused = stderr(&status(&operator).await, 1);
    assert_eq!(refused, "tidegate: there is no such token; it may have been revoked\n");
    let new = stdout(&site.run(&["token", "new", "olga", "--role", "operator"]).await);
    eventually("the new one is in force", || async { status(new.trim()).await.status.success() }).await;
    let file = std::fs::read_to_string(site.path().join("tokens.toml")).unwrap();
    assert!(!file.contains(new.trim()), "only its hash is kept");
    site.write("tokens.toml", "[tokens.eve]\nrole = \"king\"\n");
    eventually("a bad file is told", || async { stdout(&status(new.trim()).await).contains("bad file of tokens") })
        .await;
}

#[tokio::test]
async fn a_bad_file_of_tokens_is_refused_at_the_start() {
    let site = Site::builtin();
    site.configure("[admin]\ntoken_file = \"tokens.toml\"\n");
    for command in ["serve", "check"] {
        let error = stderr(&site.run(&[command]).await, 1);
        assert!(error.contains("tokens.toml: cannot read"), "{error}");
    }
    site.write("tokens.toml", "[tokens.olga]\nrole = \"operator\"\nhash = \"hunter2\"\n");
    for command in ["serve", "check"] {
        let error = stderr(&site.run(&[command]).await, 1);
        assert!(error.contains("tokens.toml:3:8: `tokens.olga.hash`: a hash is `sha256:`"), "{error}");
    }
}
