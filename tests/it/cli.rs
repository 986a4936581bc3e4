//! The commands, as people type them.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Site, eventually, stderr, stdout};

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
    let version = gateway.admin_json("/ready").await["flag_set_version"].as_str().unwrap().to_owned();
    assert!(status.ends_with(&format!("\n\nflag files {version}\n")), "{status}");
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
    assert_eq!(cli(&["history", "nothing"]).await, "no events of `nothing`\n");
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
        "tidegate: nothing to resume: the rollout is neither paused nor rolled back, nor was it taken out of a ramp\n"
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
    assert!(cli(&["status", "--admin", "localhost:8081"], 2).await.contains("write it like http://127.0.0.1:8081"));
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
    let mut by_command = json(&["explain", FLAG, "--user", "a&b=c d", "--json"]).await;
    let mut by_api = gateway.admin_json(&format!("/api/v1/flags/{FLAG}/explain?user=a%26b%3Dc%20d")).await;
    assert!(by_command["at"].take().is_string() && by_api["at"].take().is_string());
    assert_eq!(by_command, by_api);
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
    stderr(&site.run(&["check", "./tidegate.toml"]).await, 1);
    let output = site.run(&["check", "--json", "flags/second.toml"]).await;
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["ok"], told["problems"].as_array().unwrap().len()), (&Value::Bool(false), 4));
    let missing = stderr(&site.run(&["check", "--config", "nowhere.toml"]).await, 1);
    assert!(missing.starts_with("nowhere.toml: cannot read: "), "{missing}");
}

#[tokio::test]
async fn a_backend_runs_on_its_own_and_misbehaves_on_purpose() {
    let site = Site::builtin();
    let arguments = ["backend", "async", "--listen", "127.0.0.1:0", "--fault", "error=100%"];
    let mut backend = site.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(backend.stdout.take().unwrap()).lines();
    let greeting = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = greeting.strip_prefix("the async backend listens on ").unwrap();
    let healthy = reqwest::get(format!("{address}/health")).await.unwrap();
    assert_eq!(healthy.status(), 200);
    let faulty = reqwest::get(format!("{address}/api/v1/services")).await.unwrap();
    assert_eq!(faulty.status(), 500);

    let id = backend.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    assert_eq!(timeout(DEADLINE, backend.wait()).await.unwrap().unwrap().code(), Some(0));
    assert!(stderr(&site.run(&["backend", "async", "--fault", "error=lots"]).await, 2).contains("error=lots"));
}

#[tokio::test]
async fn help_teaches() {
    let site = Site::builtin();
    let mut help = stdout(&site.run(&["--help"]).await);
    for command in [
        "serve",
        "backend",
        "check",
        "schema",
        "explain",
        "status",
        "set",
        "pause",
        "resume",
        "promote",
        "rollback",
        "history",
        "token",
        "notify",
        "completions",
        "man",
        "simulate",
    ] {
        help.push_str(&format!("\n--- {command}\n{}", stdout(&site.run(&[command, "--help"]).await)));
    }
    insta::assert_snapshot!(help);
}

#[tokio::test]
async fn explain_tells_which_condition_failed_on_what() {
    let site = Site::builtin();
    let file = std::fs::read_to_string(site.flag_file()).unwrap();
    let rules = "[[rules]]\nserve = \"stable\"\nwhen = [{ client = \"198.51.100.0/24\" }]\n\
                 [[rules]]\nserve = \"canary\"\nwhen = [\n  { header = \"x-app-version\", semver = \">=2.3.0\" },\n  \
                 { not = { cookie = \"plan\", equals = \"free\" } },\n]\n";
    site.write("flags/async-database.toml", &format!("{file}{rules}"));
    let gateway = site.start().await;
    let cli = async |arguments: &[&str]| stdout(&gateway.cli(&site, arguments).await);
    let expected = "a request without a targeting key is served by async (canary): RULE\n    \
                    enabled   the flag is switched on\n    \
                    rollback  no rollback is latched\n    \
                    beta      nobody to look for on the beta list\n \
                    →  rules     rule 2 matches, which serves canary (flags/async-database.toml:11)\n\
                    rule 1 on line 8, which serves stable, does not match\n  \
                    ✗ client in 198.51.100.0/24: it is missing (line 10)\n\
                    rule 2 on line 11, which serves canary, matches\n  \
                    ✓ header `x-app-version` semver `>=2.3.0`: it is `2.3.1` (line 14)\n  \
                    ✓ not (line 15)\n    \
                    ✗ cookie `plan` equals `free`: it is `gold` (line 15)\n\
                    flag async-database, release 1, manual, canary at 10 %, generation 1\n";
    let by_hand = ["explain", FLAG, "--header", "X-App-Version=2.3.1", "--header", "cookie=plan=gold"];
    assert_eq!(cli(&by_hand).await, expected);
    site.write("head.txt", "GET /api/v1/x HTTP/1.1\r\nX-App-Version: 2.3.1\r\nCookie: plan=gold\r\n\r\n");
    assert_eq!(cli(&["explain", FLAG, "--request", "head.txt"]).await, expected);
    let elsewhere = cli(&["explain", FLAG, "--request", "head.txt", "--client", "198.51.100.7"]).await;
    assert!(elsewhere.contains("✓ client in 198.51.100.0/24: it is `198.51.100.7`"), "{elsewhere}");
    let json: Value = serde_json::from_str(&cli(&[&by_hand[..], &["--json"]].concat()).await).unwrap();
    assert_eq!(json["rules"][1]["conditions"][1]["parts"][0]["value"], "gold");
    assert_eq!(
        (&json["steps"][3]["file"], &json["steps"][3]["line"]),
        (&"flags/async-database.toml".into(), &11.into())
    );

    // A rollout that was moved is not decided by the file, and its percentage is the rollout's.
    cli(&["set", FLAG, "100"]).await;
    let moved = cli(&["explain", FLAG, "--user", "carol"]).await;
    assert!(moved.contains("which canary has at 100 %; the rollout was moved there, the file says 10 %\n"), "{moved}");
    gateway.kill().await;
    let offline = stdout(&site.run(&["explain", FLAG, "--user", "carol", "--offline"]).await);
    assert!(offline.contains("which canary has at 10 % (flags/async-database.toml:5)\n"), "{offline}");
    assert!(offline.ends_with("a gateway may have moved it, paused it or rolled it back\n"), "{offline}");
    assert_eq!(
        stdout(&site.run(&["explain", FLAG, "--offline", "--flags", "flags", "--user", "carol"]).await),
        offline
    );
    let none = stderr(&site.run(&["explain", "other", "--offline"]).await, 1);
    assert_eq!(none, "tidegate: there is no flag `other`: no file in flags has it\n");
    site.write("flags/async-database.toml", "percentage = 200\n");
    let bad = stderr(&site.run(&["explain", FLAG, "--offline"]).await, 1);
    assert!(bad.contains("flags/async-database.toml:1:14: `percentage`"), "{bad}");
}

#[tokio::test]
async fn explain_finds_the_user_where_the_gateway_does() {
    let site = Site::builtin();
    site.configure(
        "[identity]\nsources = [\"header:x-user-id\", \"cookie:uid\"]\ntrusted_proxies = [\"127.0.0.0/8\"]\n",
    );
    let gateway = site.start().await;
    let users = async |arguments: &[&str]| {
        let mut found = Vec::new();
        for mode in [&["--json"][..], &["--json", "--offline"]] {
            let output = gateway.cli(&site, &[&["explain", FLAG], arguments, mode].concat()).await;
            let explanation: Value = serde_json::from_str(&stdout(&output)).unwrap();
            found.push(explanation["user"].as_str().unwrap_or("nobody").to_owned());
        }
        assert_eq!(found[0], found[1], "with a gateway and without: {arguments:?}");
        found.remove(0)
    };
    site.write("head.txt", "GET / HTTP/1.1\r\nHost: a.test\r\nX-User-Id: alice\r\nCookie: uid=bob\r\n\r\n");
    assert_eq!(users(&["--request", "head.txt"]).await, "alice");
    assert_eq!(users(&["--request", "head.txt", "--client", "127.0.0.1"]).await, "alice");
    assert_eq!(
        users(&["--request", "head.txt", "--client", "192.0.2.1"]).await,
        "bob",
        "only trusted proxies name users"
    );
    assert_eq!(users(&["--request", "head.txt", "--user", "carol"]).await, "carol");
    assert_eq!(users(&["--header", "cookie=uid=dave"]).await, "dave");
    assert_eq!(users(&[]).await, "nobody");
    let wrong = stderr(&gateway.cli(&site, &["explain", FLAG, "--header", "nonsense"]).await, 2);
    assert!(wrong.contains("write it like x-app-version=2.3.1"), "{wrong}");
}

#[tokio::test]
async fn shells_and_manuals_know_the_commands() {
    let site = Site::builtin();
    for (shell, told) in
        [("bash", "complete -F _tidegate"), ("zsh", "#compdef tidegate"), ("fish", "complete -c tidegate")]
    {
        let script = stdout(&site.run(&["completions", shell]).await);
        assert!(script.contains(told) && script.contains("rollback"), "{script}");
    }
    let page = stdout(&site.run(&["man"]).await);
    assert!(page.contains(".TH tidegate") && page.contains("rollback"), "{page}");
    assert!(stdout(&site.run(&["man", "status"]).await).contains("exit\\-code"));
    assert!(stderr(&site.run(&["man", "stauts"]).await, 1).contains("there is no command `stauts`"));
}

#[tokio::test]
async fn a_pipeline_asks_by_exit_code() {
    let site = Site::builtin();
    let gateway = site.start().await;
    let ask = ["status", FLAG, "--exit-code"];
    assert!(stdout(&gateway.cli(&site, &ask).await).starts_with(FLAG));
    stdout(&gateway.cli(&site, &["rollback", FLAG]).await);
    let held = gateway.cli(&site, &ask).await;
    assert_eq!(stderr(&held, 1), "tidegate: not all is well: async-database is rolled back\n");
    assert!(String::from_utf8(held.stdout).unwrap().contains("rolled back at"), "the status is printed all the same");
    stdout(&gateway.cli(&site, &["resume", FLAG]).await);
    site.write("flags/async-database.toml", "percentage = 101\n");
    eventually("the bad file is noticed", || async { !gateway.cli(&site, &ask).await.status.success() }).await;
}
