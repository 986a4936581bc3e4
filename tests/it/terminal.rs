//! The commands at a terminal: `script` lends them one.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Gateway, Site, eventually, pair, stdout};

/// Starts a command at a terminal of its own.
fn at_terminal(site: &Site, gateway: &Gateway, arguments: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new("script");
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_tidegate"));
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(site.path());
    command.env("TIDEGATE_ADMIN", &gateway.admin).env_remove("NO_COLOR").envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// What a command shows until `last` is seen, or until it ends.
async fn shown(terminal: &mut Child, last: &str) -> String {
    let mut stdout = terminal.stdout.take().unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let read = async {
        while !String::from_utf8_lossy(&text).contains(last) {
            match stdout.read(&mut buffer).await.unwrap() {
                0 => break,
                count => text.extend_from_slice(&buffer[..count]),
            }
        }
    };
    let in_time = timeout(DEADLINE, read).await.is_ok();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(in_time, "`{last}` was never shown:\n{text}");
    terminal.stdout = Some(stdout);
    text
}

/// Runs a command, types `answer` when it asks, and says whether it succeeded.
async fn answered(site: &Site, gateway: &Gateway, arguments: &str, answer: &str) -> (String, bool) {
    let mut terminal = at_terminal(site, gateway, arguments, &[]);
    let asked = shown(&mut terminal, "Go on? [y/N] ").await;
    terminal.stdin.as_mut().unwrap().write_all(answer.as_bytes()).await.unwrap();
    let said = shown(&mut terminal, "no such text").await;
    let ended = timeout(DEADLINE, terminal.wait()).await.unwrap().unwrap();
    (format!("{asked}{said}"), ended.success())
}

#[tokio::test]
async fn dangerous_verbs_ask_with_the_numbers() {
    let (_stable, _canary, site, gateway) = pair().await;
    for user in ["alice", "u0", "u1", "u2"] {
        gateway.get("/api/v1/x", user).send().await.unwrap();
    }
    let (said, done) = answered(&site, &gateway, &format!("promote {FLAG}"), "n\n").await;
    assert!(!done && said.contains("`promote` puts everyone on the canary: 10 % → 100 %."), "{said}");
    assert!(said.contains("requests") && said.contains("error_rate") && said.contains("nothing is changed"), "{said}");
    assert_eq!(gateway.flag().await["phase"], "manual");
    let (said, done) = answered(&site, &gateway, &format!("promote {FLAG} --reason sure"), "yes\n").await;
    assert!(done && said.contains("async-database is promoted, canary at 100 %"), "{said}");

    let (said, done) = answered(&site, &gateway, &format!("rollback {FLAG}"), "y\n").await;
    assert!(done && said.contains("100 % → 0 %"), "{said}");
    let (said, done) = answered(&site, &gateway, &format!("resume {FLAG} --percentage 5"), "y\n").await;
    assert!(done && said.contains("`resume` lifts the rollback") && said.contains("0 % → 5 %"), "{said}");
    let (said, done) = answered(&site, &gateway, &format!("set {FLAG} 15.001"), "\n").await;
    assert!(!done && said.contains("5 % → 15.001 %"), "{said}");

    // What is no danger is not asked, nor is whoever knows, nor is a script.
    let free = |arguments: &'static str| {
        let (site, gateway) = (&site, &gateway);
        async move {
            let mut terminal = at_terminal(site, gateway, arguments, &[]);
            let said = shown(&mut terminal, "no such text").await;
            assert!(timeout(DEADLINE, terminal.wait()).await.unwrap().unwrap().success(), "{said}");
            assert!(!said.contains("Go on?"), "{said}");
        }
    };
    free("set async-database 15").await;
    free("set async-database 1").await;
    free("set async-database 90 --yes").await;
    free("rollback -y async-database").await;
    stdout(&gateway.cli(&site, &["resume", FLAG]).await);
    stdout(&gateway.cli(&site, &["promote", FLAG]).await);
}

#[tokio::test]
async fn a_watched_table_is_drawn_in_place() {
    let (_stable, _canary, site, gateway) = pair().await;
    let ramp = "[ramp]\nsteps = [\"10% 1h\", \"50% 1h\", \"100%\"]\n";
    let file = std::fs::read_to_string(site.flag_file())
        .unwrap()
        .replace("percentage = 10\n", "percentage = 0\n")
        .replace("release = \"1\"", "release = \"2\"");
    site.write("flags/async-database.toml", &format!("{file}{ramp}"));
    eventually("it ramps", || async { gateway.flag().await["phase"] == "ramping" }).await;
    let mut terminal = at_terminal(&site, &gateway, "status --watch", &[]);
    let first = shown(&mut terminal, "this step").await;
    for told in
        ["\x1b[2J\x1b[H", "stable", "canary", "error rate", "errors of the last 3 minutes", "[10 %] → 50 % → 100 %"]
    {
        assert!(first.contains(told), "{told:?} is not in {first}");
    }
    for user in ["alice", "u0", "u1"] {
        gateway.get("/api/v1/x", user).send().await.unwrap();
    }
    assert_eq!(gateway.act("rollback", serde_json::json!({"reason": "to see it"})).await.status(), 200);
    let later = shown(&mut terminal, "goes back to 10 %").await;
    assert!(later.contains("\x1b[31mrolled_back") && later.contains("(to see it)"), "{later}");
    assert!(later.contains("\x1b[H") && !later.contains("\x1b[2J"), "it is drawn over what was there: {later}");
    terminal.kill().await.unwrap();

    let mut plain = at_terminal(&site, &gateway, "status", &[("NO_COLOR", "1")]);
    let text = shown(&mut plain, "no such text").await;
    assert!(text.contains("rolled_back") && !text.contains('\x1b'), "{text}");
}
