//! The configuration, read again under a running gateway: all of it is put in force, or nothing.

use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, header, problem, stderr, stdout};
use crate::upstream::Upstream;

/// A configuration with these backends and more.
fn config(stable: &str, canary: &str, more: &str) -> String {
    format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[backends.sync]\nservers = [\"{stable}\"]\n\
         [backends.async]\nservers = [\"{canary}\"]\n{more}"
    )
}

const ROUTES: &str = "[[routes]]\npath = \"/api/v1/\"\nflag = \"async-database\"\n";

async fn results(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("tidegate_config_reloads_total{{result=\"{result}\"}}")).await
}

async fn status(gateway: &Gateway, path: &str) -> u16 {
    gateway.get(path, "carol").send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_needs_no_socket_is_put_in_force_and_requests_go_on() {
    let (stable, canary, third) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    site.write("tidegate.toml", &config(stable.address(), canary.address(), ROUTES));
    let gateway = site.start().await;
    let reload = async || stdout(&gateway.cli(&site, &["reload"]).await);
    assert_eq!(reload().await, "the configuration says what is in force\n");

    // A request that began before goes on with what it began with.
    let slow = tokio::spawn(gateway.get("/api/v1/slow", "carol").send());
    eventually("stable has it", || async { stable.requests() == 1 }).await;
    let third_route = format!(
        "[backends.third]\nservers = [\"{}\"]\n[[routes]]\npath = \"/x\"\nbackend = \"third\"\n",
        third.address()
    );
    let text = config(third.address(), canary.address(), &format!("{third_route}{ROUTES}[limits]\nbody = 10\n"));
    site.write("tidegate.toml", &text);
    assert_eq!(reload().await, "in force from now on: limits, routes, backends.sync, backends.third\n");
    assert_eq!(status(&gateway, "/x").await, 200);
    assert_eq!(status(&gateway, "/api/v1/x").await, 200);
    assert_eq!((third.requests(), stable.requests()), (2, 1));
    let long = gateway.client.post(format!("{}/x", gateway.http)).body("more than ten bytes");
    problem(long.send().await.unwrap(), 413, "content-too-large").await;
    stable.release_one();
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert_eq!(results(&gateway, "applied").await, 1.0);

    // It is in the audit trail, which stays whole.
    let events = gateway.admin_json("/api/v1/events").await;
    assert_eq!(events["events"][0]["action"], "reload");
    assert_eq!(events["events"][0]["actor"], "local:tester");
    assert_eq!(events["events"][0]["reason"], "limits, routes, backends.sync, backends.third");
    stdout(&gateway.cli(&site, &["history", "--verify"]).await);
    assert!(stdout(&gateway.cli(&site, &["history"]).await).contains("local:tester  -               reload"));

    // A backend that is gone is gone.
    site.write("tidegate.toml", &config(third.address(), canary.address(), ROUTES));
    assert_eq!(reload().await, "in force from now on: limits, routes, backends.third is gone\n");
    assert_eq!(status(&gateway, "/x").await, 404);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_where() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    let reload = async || stderr(&gateway.cli(&site, &["reload"]).await, 1);
    let good = config(stable.address(), canary.address(), ROUTES);
    let one_route = "[[routes]]\npath = \"/other/\"\nflag = \"async-database\"\n";

    site.write(
        "tidegate.toml",
        &config(stable.address(), canary.address(), "[limits]\nbody = 1\n[[routes]]\npth = \"/\"\n"),
    );
    let told = reload().await;
    assert!(told.contains("tidegate.toml:11:1: unknown key `routes.pth`; did you mean `path`?"), "{told}");
    let ready = gateway.admin_json("/ready").await;
    assert_eq!(ready["ready"], true);
    assert!(ready["problems"][0].as_str().unwrap().contains("tidegate.toml:10:1"), "{ready}");

    // Half of what this says could be put in force.
    let moved = config(stable.address(), canary.address(), one_route).replacen("127.0.0.1:0", "127.0.0.1:1", 1);
    site.write("tidegate.toml", &moved);
    let answer = gateway.client.post(format!("{}/api/v1/config/reload", gateway.admin)).send().await.unwrap();
    let detail = problem(answer, 409, "needs-restart").await;
    assert!(detail.starts_with("listen.http cannot be changed without a restart, so nothing was changed"), "{detail}");
    assert_eq!(status(&gateway, "/other/x").await, 200, "the default route of the start");

    // A flag file that does not go with it, told as always.
    let renamed = good.replace("backends.async", "backends.other");
    site.write("tidegate.toml", &renamed);
    let told = reload().await;
    assert!(told.contains("flags/async-database.toml:4:10: no backend is named `async`"), "{told}");
    assert_eq!(gateway.variant("alice").await, "async");
    assert_eq!((results(&gateway, "rejected").await, results(&gateway, "needs_restart").await), (2.0, 1.0));

    site.write("tidegate.toml", &good);
    stdout(&gateway.cli(&site, &["reload"]).await);
    assert_eq!(gateway.admin_json("/ready").await["problems"], json!([]));
    assert_eq!(status(&gateway, "/other/x").await, 404);
}

#[tokio::test]
async fn a_hangup_reloads_flags_identity_and_tokens_too() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    assert_eq!(gateway.variant("dave").await, "sync");
    site.write("others/async-database.toml", &flag_text(0.0).replace("bob", "dave"));
    let more = format!(
        "{ROUTES}[flags]\npath = \"others\"\n[identity]\nsources = [\"header:x-customer\"]\nanonymous = \"stable\"\n"
    );
    site.write("tidegate.toml", &config(stable.address(), canary.address(), &more));
    gateway.signal("HUP").await;
    eventually("it is applied", || async { results(&gateway, "applied").await == 1.0 }).await;
    let ask = async |name: &str| {
        let request = gateway.client.get(format!("{}/api/v1/x", gateway.http)).header(name, "dave");
        header(request.send().await.unwrap().headers(), "x-tidegate-variant").unwrap().to_owned()
    };
    assert_eq!((ask("x-customer").await.as_str(), ask("x-user-id").await.as_str()), ("async", "sync"));
    let events = gateway.admin_json("/api/v1/events").await;
    let hangup = events["events"].as_array().unwrap().iter().find(|event| event["action"] == "reload").unwrap().clone();
    assert_eq!(hangup["actor"], "local:SIGHUP");

    // The directory that is watched is the new one.
    site.write("flags/async-database.toml", &flag_text(77.0));
    site.write("others/async-database.toml", &flag_text(33.0));
    eventually("it is followed", || async { gateway.flag().await["percentage"] == 33.0 }).await;
    let list: Value = gateway.admin_json(&format!("/api/v1/flags/{FLAG}")).await;
    assert_eq!(list["file_percentage"], 33.0);
}

#[tokio::test]
async fn no_request_is_lost_while_backends_come_and_go() {
    let (stable, canary, third) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let askers: Vec<_> = (0..4)
        .map(|number| {
            let (client, url, stopped) =
                (gateway.client.clone(), format!("{}/api/v1/x", gateway.http), stopped.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !*stopped.borrow() {
                    let user = format!("user-{number}-{asked}");
                    let answer = client.get(&url).header("x-user-id", user).send().await.unwrap();
                    assert_eq!(answer.status(), 200, "request {asked}");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let flag = |canary: &str| {
        flag_text(50.0).replace("\"async\"", &format!("\"{canary}\"")).replace("= \"1\"", &format!("= \"{canary}\""))
    };
    for round in 0..6 {
        let (name, address) = if round % 2 == 0 { ("next", third.address()) } else { ("async", canary.address()) };
        site.write(
            "tidegate.toml",
            &config(stable.address(), address, ROUTES).replace("backends.async", &format!("backends.{name}")),
        );
        site.write(&format!("flags-{round}/async-database.toml"), &flag(name));
        site.configure(&format!("[flags]\npath = \"flags-{round}\"\n"));
        stdout(&gateway.cli(&site, &["reload"]).await);
        let seen = third.requests() + canary.requests();
        eventually("the canary of this round is asked", || async { third.requests() + canary.requests() > seen }).await;
    }
    stop.send_replace(true);
    for asker in askers {
        assert!(asker.await.unwrap() > 0);
    }
    assert_eq!(results(&gateway, "applied").await, 6.0);
}
