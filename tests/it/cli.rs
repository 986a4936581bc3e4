//! The commands, as people type them.

use serde_json::Value;

use crate::harness::{FLAG, Site, eventually, stderr, stdout};

#[tokio::test]
async fn the_first_steps_of_a_newcomer() {
    let site = Site::builtin();
    let gateway = site.start().await;
    let asked = gateway
        .client
        .post(format!("{}/api/v1/parse-jd", gateway.http))
        .header("x-user-id", "alice")
        .json(&serde_json::json!({"role": "backend engineer", "jobDescription": "Rust, PostgreSQL, async services"}))
        .send()
        .await
        .unwrap();
    assert_eq!(asked.headers()["x-tidegate-variant"], "async");
    let answer: Value = asked.json().await.unwrap();
    assert_eq!(answer["questions"].as_array().unwrap().len(), 5);

    let cli = async |arguments: &[&str]| stdout(&gateway.cli(&site, arguments).await);
    let explained = cli(&["explain", FLAG, "--user", "alice"]).await;
    assert!(explained.starts_with("`alice` is served by async (canary): BETA\n"), "{explained}");
    let status = cli(&["status"]).await;
    assert!(status.starts_with("async-database  manual  canary at 10 %  release 1  generation 1"), "{status}");
    assert_eq!(cli(&["set", FLAG, "25"]).await, "async-database is manual, canary at 25 %, generation 2\n");
    assert!(cli(&["status", FLAG]).await.contains("drift: the file says 10 %, the rollout 25 %"));
    let rolled_back = cli(&["rollback", FLAG, "--reason", "trying it"]).await;
    assert_eq!(rolled_back, "async-database is rolled_back, canary at 0 %, generation 3\n");
    assert!(cli(&["status"]).await.contains("`tidegate resume async-database` goes back to 25 %"));
    assert_eq!(cli(&["resume", FLAG]).await, "async-database is manual, canary at 25 %, generation 4\n");
    assert_eq!(cli(&["pause", FLAG]).await, "async-database is paused, canary at 25 %, generation 5\n");
    assert_eq!(
        cli(&["resume", FLAG, "--percentage", "1.5%"]).await,
        "async-database is manual, canary at 1.5 %, generation 6\n"
    );
    assert_eq!(cli(&["promote", FLAG]).await, "async-database is promoted, canary at 100 %, generation 7\n");
    let history = cli(&["history", FLAG]).await;
    let mut lines = history.lines();
    assert!(lines.next().unwrap().starts_with("when "));
    let told: Vec<_> = lines.map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(
        told,
        [
            "local:tester  async-database  promote   1.5 % manual → 100 % promoted",
            "local:tester  async-database  resume    25 % paused → 1.5 % manual",
            "local:tester  async-database  pause     25 % manual → 25 % paused",
            "local:tester  async-database  resume    0 % rolled_back → 25 % manual",
            "local:tester  async-database  rollback  25 % manual → 0 % rolled_back  trying it",
            "local:tester  async-database  set       10 % manual → 25 % manual",
            "file          async-database  release   10 % manual                    flags/async-database.toml",
        ]
    );
}

#[tokio::test]
async fn what_is_refused_says_why_and_what_to_do() {
    let site = Site::builtin();
    let gateway = site.start().await;
    let cli = async |arguments: &[&str], code| stderr(&gateway.cli(&site, arguments).await, code);
    assert_eq!(
        cli(&["explain", "no-such-flag", "--user", "a"], 1).await,
        "tidegate: there is no flag `no-such-flag`\n"
    );
    assert_eq!(
        cli(&["resume", FLAG], 1).await,
        "tidegate: nothing to resume: the rollout is neither paused nor rolled back\n"
    );
    stdout(&gateway.cli(&site, &["rollback", FLAG]).await);
    assert_eq!(
        cli(&["set", FLAG, "20"], 1).await,
        "tidegate: the canary is rolled back; resume it first, or name a new release in its file\n"
    );
    assert_eq!(
        cli(&["resume", FLAG, "--percentage", "11"], 1).await,
        "tidegate: a rollout resumes at 10 % or below; resume it, then set the higher percentage\n"
    );
    assert!(cli(&["set", FLAG, "101"], 2).await.contains("a percentage is a number from 0 to 100"));
    assert!(cli(&["set", FLAG, "0.0001"], 2).await.contains("steps of 0.001"));
    assert!(cli(&["set", "Not_A_Key", "1"], 2).await.contains("a name is 1 to 63 of a-z, 0-9 and `-`"));
    assert!(cli(&["stauts"], 2).await.contains("status"));

    gateway.kill().await;
    let unreachable = stderr(&site.run(&["status", "--admin", "http://127.0.0.1:9"]).await, 1);
    assert!(
        unreachable.starts_with("tidegate: no gateway answers at http://127.0.0.1:9; is `tidegate serve` running? "),
        "{unreachable}"
    );
    assert_eq!(unreachable.lines().count(), 1);
}

#[tokio::test]
async fn json_is_what_the_admin_api_says() {
    let site = Site::builtin();
    let gateway = site.start().await;
    eventually("it has been judged", || async { !gateway.flag().await["evidence"].as_array().unwrap().is_empty() })
        .await;
    let json = async |arguments: &[&str]| -> Value {
        serde_json::from_str(&stdout(&gateway.cli(&site, arguments).await)).unwrap()
    };
    assert_eq!(json(&["status", FLAG, "--json"]).await, gateway.flag().await);
    assert_eq!(json(&["status", "--json"]).await, gateway.admin_json("/api/v1/flags").await);
    assert_eq!(
        json(&["explain", FLAG, "--user", "a&b=c d", "--json"]).await,
        gateway.admin_json(&format!("/api/v1/flags/{FLAG}/explain?user=a%26b%3Dc%20d")).await
    );
    assert_eq!(json(&["set", FLAG, "12.345", "--json"]).await["flag"]["percentage"], 12.345);
    assert_eq!(json(&["history", "--json"]).await, gateway.admin_json("/api/v1/events").await);
}

#[tokio::test]
async fn check_tells_all_problems_or_none() {
    let site = Site::builtin();
    assert_eq!(
        stdout(&site.run(&["check"]).await),
        "flags/async-database.toml: sync, and async for 10 %\nall is well\n"
    );
    site.write("flags/second.toml", "percentage = -1\n");
    let error = stderr(&site.run(&["check"]).await, 1);
    for told in [
        "flags/second.toml:1:1: `release` is missing; add `release = \"2026-11-21.1\"`\n",
        "flags/second.toml:1:14: `percentage`: a percentage is a number from 0 to 100, not -1\n",
        "tidegate: 4 problems; until mended, `serve` would not start and a reload would be refused\n",
    ] {
        assert!(error.contains(told), "{told} is not in:\n{error}");
    }
    stdout(&site.run(&["check", "flags/async-database.toml"]).await);
    stderr(&site.run(&["check", "flags"]).await, 1);
    let output = site.run(&["check", "--json", "flags/second.toml"]).await;
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["ok"], told["problems"].as_array().unwrap().len()), (&Value::Bool(false), 4));
    let missing = stderr(&site.run(&["check", "--config", "nowhere.toml"]).await, 1);
    assert!(missing.starts_with("nowhere.toml: cannot read: "), "{missing}");
}

#[tokio::test]
async fn help_teaches() {
    let site = Site::builtin();
    let mut help = stdout(&site.run(&["--help"]).await);
    for command in [
        "serve", "backend", "check", "explain", "status", "set", "pause", "resume", "promote", "rollback", "history",
        "simulate",
    ] {
        help.push_str(&format!("\n--- {command}\n{}", stdout(&site.run(&[command, "--help"]).await)));
    }
    insta::assert_snapshot!(help);
}
