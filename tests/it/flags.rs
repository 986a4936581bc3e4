//! Who is served what, and what happens when the flag files change under load.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::harness::{FLAG, Gateway, Site, eventually, flag_text, pair, read_to_end, stderr};
use crate::upstream::Upstream;

/// How long the watcher waits for somebody who keeps writing a file.
const WRITER_WAITED_FOR: Duration = Duration::from_millis(500);

/// For how long nothing more may come of a list of users before it is read though it is not closed.
const LIST_WAITED_FOR: Duration = Duration::from_secs(5);

/// The variant of each of `users` users.
async fn variants(gateway: &Gateway, users: usize) -> BTreeMap<String, String> {
    let mut variants = BTreeMap::new();
    for number in 0..users {
        let user = format!("user-{number}");
        variants.insert(user.clone(), gateway.variant(&user).await);
    }
    variants
}

async fn at_percentage(gateway: &Gateway, percentage: f64) {
    eventually("the percentage is in force", || async { gateway.flag().await["percentage"] == percentage }).await;
}

#[tokio::test]
async fn users_stick_and_raising_the_percentage_only_adds() {
    let (_stable, _canary, site, gateway) = pair().await;
    let at_10 = variants(&gateway, 500).await;
    assert_eq!(at_10, variants(&gateway, 500).await, "the same user, the same variant");
    let share = at_10.values().filter(|variant| *variant == "async").count();
    // Five standard deviations of a binomial with 500 users at 10 %; the users are fixed, so it holds or it does not.
    assert!((17..=83).contains(&share), "{share} of 500 at 10 %");

    fs::write(site.flag_file(), flag_text(50.0)).unwrap();
    at_percentage(&gateway, 50.0).await;
    let at_50 = variants(&gateway, 500).await;
    assert!(at_10.iter().all(|(user, variant)| variant == "sync" || at_50[user] == "async"), "nobody leaves");
    let share = at_50.values().filter(|variant| *variant == "async").count();
    assert!((194..=306).contains(&share), "{share} of 500 at 50 %");
    for user in ["alice", "bob"] {
        assert_eq!(gateway.variant(user).await, "async");
    }
}

#[tokio::test]
async fn the_kill_switch_outranks_the_beta_list() {
    let (_stable, _canary, site, gateway) = pair().await;
    fs::write(site.flag_file(), flag_text(100.0).replace("enabled = true", "enabled = false")).unwrap();
    eventually("it is disabled", || async { gateway.flag().await["phase"] == "disabled" }).await;
    assert_eq!(gateway.variant("alice").await, "sync");
    assert_eq!(gateway.flag().await["percentage"], 0.0);
}

#[tokio::test]
async fn a_users_file_is_followed_too() {
    let (_stable, _canary, site, gateway) = pair().await;
    site.write("flags/list.txt", "dave\n");
    site.write("flags/async-database.toml", &format!("{}users_file = \"list.txt\"\n", flag_text(0.0)));
    eventually("dave is on the list", || async { gateway.variant("dave").await == "async" }).await;
    assert_eq!(gateway.flag().await["beta_users"], 3);
    site.write("flags/list.txt", "\n  erin  \r\n");
    eventually("erin is on the list", || async { gateway.variant("erin").await == "async" }).await;
    assert_eq!(gateway.variant("dave").await, "sync");
    let generation = gateway.flag().await["generation"].clone();
    assert_eq!(generation, 2, "who is on the list is no change of the rollout; the percentage was");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_file_is_rewritten() {
    let (_stable, _canary, site, gateway) = pair().await;
    let gateway = Arc::new(gateway);
    let done = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for worker in 0..4 {
        let (gateway, done, answers) = (Arc::clone(&gateway), Arc::clone(&done), Arc::clone(&answers));
        load.spawn(async move {
            let mut sent = 0_u32;
            while !done.load(Ordering::SeqCst) {
                let response = gateway.get("/api/v1/x", &format!("user-{worker}-{sent}")).send().await.unwrap();
                assert_eq!(response.status(), 200);
                sent += 1;
                answers.fetch_add(1, Ordering::SeqCst);
            }
            sent
        });
    }
    for number in 0..100 {
        let percentage = f64::from(number % 50);
        match number % 3 {
            0 => fs::write(site.flag_file(), flag_text(percentage)).unwrap(),
            1 => {
                site.write("flags/.new", &flag_text(percentage));
                fs::rename(site.path().join("flags/.new"), site.flag_file()).unwrap();
            }
            _ => {
                fs::remove_file(site.flag_file()).unwrap();
                fs::write(site.flag_file(), flag_text(percentage)).unwrap();
            }
        }
        // Some requests see each of the files.
        let answered = answers.load(Ordering::SeqCst);
        eventually("requests are answered", || async { answers.load(Ordering::SeqCst) >= answered + 4 }).await;
    }
    fs::write(site.flag_file(), flag_text(77.0)).unwrap();
    at_percentage(&gateway, 77.0).await;
    done.store(true, Ordering::SeqCst);
    let sent: u32 = load.join_all().await.into_iter().sum();
    assert!(sent >= 400);
    let counted = || async {
        gateway.outcomes("sync", "success").await + gateway.outcomes("async", "success").await == f64::from(sent)
    };
    eventually("each is charged once, through every generation", counted).await;
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_set_and_is_told_everywhere() {
    let (_stable, _canary, site, gateway) = pair().await;
    let good = flag_text(100.0);
    fs::write(site.flag_file(), &good).unwrap();
    at_percentage(&gateway, 100.0).await;

    fs::write(site.flag_file(), &good[..40]).unwrap();
    let message = "flags/async-database.toml:3:12: not TOML: ";
    eventually("ready tells of it", || async {
        gateway.admin_json("/ready").await["problems"][0].as_str().is_some_and(|problem| problem.contains(message))
    })
    .await;
    assert_eq!(gateway.admin_json("/ready").await["ready"], true, "traffic goes on");
    assert_eq!(gateway.variant("anyone").await, "async");
    assert!(site.log().contains(message));
    assert!(gateway.metric("tidegate_flag_reloads_total{result=\"rejected\"}").await >= 1.0);
    assert!(stderr(&site.run(&["check"]).await, 1).contains(message));

    // A second flag that is fine does not get in while the first is bad: all or nothing.
    site.write("flags/other.toml", &good);
    fs::write(site.flag_file(), good.replace("percentage = 100", "percentage = 1000")).unwrap();
    eventually("the new problem is told", || async { site.log().contains("from 0 to 100, not 1000") }).await;
    assert_eq!(gateway.admin("/api/v1/flags/other").await.status(), 404);

    fs::write(site.flag_file(), flag_text(20.0)).unwrap();
    at_percentage(&gateway, 20.0).await;
    assert_eq!(gateway.admin_json("/ready").await["problems"], serde_json::json!([]));
    assert_eq!(gateway.admin("/api/v1/flags/other").await.status(), 200);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_read() {
    let (_stable, _canary, site, gateway) = pair().await;
    // Its beginning is a whole file, which serves everyone the canary; only the end switches the flag off.
    let whole = flag_text(100.0).replace("enabled = true\n", "");
    let (begin, end) = (whole.split("[beta]").next().unwrap(), "enabled = false\n");
    fs::write(site.flag_file(), format!("{begin}{end}")).unwrap();
    eventually("it is switched off", || async { gateway.flag().await["phase"] == "disabled" }).await;
    let mut told = 0;
    for _ in 0..50 {
        let generation = gateway.flag().await["generation"].clone();
        let mut file = fs::File::create(site.flag_file()).unwrap();
        file.write_all(begin.as_bytes()).unwrap();
        let mut seen = Vec::new();
        for _ in 0..30 {
            seen.push(gateway.variant("alice").await);
        }
        // A writer is not waited for without end: on a machine that is too busy for that, a round says nothing.
        let in_time = file.metadata().unwrap().modified().unwrap().elapsed().unwrap() < WRITER_WAITED_FOR / 2;
        file.write_all(end.as_bytes()).unwrap();
        drop(file);
        if in_time {
            told += 1;
            assert!(seen.iter().all(|variant| variant == "sync"), "{seen:?}");
            assert_eq!(gateway.flag().await["generation"], generation, "the flag was never switched on");
        }
        eventually("it is switched off", || async { gateway.flag().await["phase"] == "disabled" }).await;
        if told == 5 {
            return;
        }
    }
    assert!(told > 0, "the machine was too busy in every round");
}

#[tokio::test]
async fn a_list_of_users_is_followed_when_it_is_whole() {
    let (_stable, _canary, site, gateway) = pair().await;
    let list = site.path().join("flags/list.txt");
    site.write("flags/list.txt", "dave\n");
    site.write("flags/async-database.toml", &format!("{}users_file = \"list.txt\"\n", flag_text(0.0)));
    eventually("dave is on the list", || async { gateway.variant("dave").await == "async" }).await;
    let mut told = 0;
    for percentage in 1..20 {
        let mut file = fs::File::create(&list).unwrap();
        site.write(
            "flags/async-database.toml",
            &format!("{}users_file = \"list.txt\"\n", flag_text(percentage.into())),
        );
        let mut flag = gateway.flag().await;
        let mut in_time = true;
        // Whoever writes on is not waited for: what else is edited is put in force meanwhile, with the list of before.
        while flag["percentage"] != f64::from(percentage) {
            in_time &= file.metadata().unwrap().modified().unwrap().elapsed().unwrap() < LIST_WAITED_FOR / 2;
            file.write_all(b"frank\n").unwrap();
            flag = gateway.flag().await;
        }
        if in_time {
            told += 1;
            assert_eq!(flag["beta_users"], 3, "alice, bob and dave");
            assert_eq!(gateway.variant("frank").await, "sync");
        }
        file.set_len(0).unwrap();
        drop(file);
        eventually("it is whole", || async { gateway.flag().await["beta_users"] == 2 }).await;
        site.write("flags/list.txt", "dave\n");
        eventually("dave is on it again", || async { gateway.flag().await["beta_users"] == 3 }).await;
        if told == 2 {
            return;
        }
    }
    assert!(told > 0, "the machine was too busy in every round");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let (_stable, _canary, site, gateway) = pair().await;
    let pipe = site.path().join("flags/pipe.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().await.unwrap().success());
    let problems = || async { gateway.admin_json("/ready").await["problems"].to_string() };
    eventually("it is told", || async { problems().await.contains("flags/pipe.toml: cannot read: it is no regular") })
        .await;
    fs::remove_file(&pipe).unwrap();
    fs::write(site.flag_file(), flag_text(20.0)).unwrap();
    at_percentage(&gateway, 20.0).await;
    assert_eq!(problems().await, "[]");
}

#[tokio::test]
async fn users_are_named_in_any_script() {
    let (_stable, _canary, site, gateway) = pair().await;
    site.write("flags/list.txt", "\u{feff}jörg\n");
    site.write("flags/async-database.toml", &format!("{}users_file = \"list.txt\"\n", flag_text(0.0)));
    eventually("jörg is on the list", || async { gateway.flag().await["beta_users"] == 3 }).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let request = "GET /api/v1/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-user-id: jörg\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("x-tidegate-variant: async"), "{answer}");
    let explained = gateway.admin_json("/api/v1/flags/async-database/explain?user=j%C3%B6rg").await;
    assert_eq!(explained["reason"], "BETA");
}

#[tokio::test]
async fn a_file_that_a_route_needs_cannot_vanish() {
    let (_stable, _canary, site, gateway) = pair().await;
    fs::write(site.flag_file(), flag_text(100.0)).unwrap();
    at_percentage(&gateway, 100.0).await;
    fs::remove_file(site.flag_file()).unwrap();
    eventually("its absence is told", || async {
        let problems = gateway.admin_json("/ready").await["problems"].to_string();
        problems.contains("a route names the flag `async-database`, but there is no such file")
    })
    .await;
    assert_eq!(gateway.variant("anyone").await, "async");
}

/// Lays `text` out as Kubernetes mounts a `ConfigMap`: files are links into `..data`, which links to a dated directory.
fn mount(directory: &Path, date: &str, text: &str) {
    let dated = directory.join(date);
    fs::create_dir_all(&dated).unwrap();
    fs::write(dated.join("async-database.toml"), text).unwrap();
    let swapped = directory.join("..data_tmp");
    symlink(date, &swapped).unwrap();
    fs::rename(swapped, directory.join("..data")).unwrap();
    let file = directory.join("async-database.toml");
    if !file.is_symlink() {
        symlink("..data/async-database.toml", file).unwrap();
    }
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let directory = site.path().join("flags");
    fs::remove_file(site.flag_file()).unwrap();
    mount(&directory, "..2026_01", &flag_text(0.0));
    let gateway = site.start().await;
    for (date, percentage) in [("..2026_02", 100.0), ("..2026_03", 0.0), ("..2026_04", 50.0)] {
        mount(&directory, date, &flag_text(percentage));
        at_percentage(&gateway, percentage).await;
    }
}

#[tokio::test]
async fn a_directory_that_is_replaced_as_a_whole_is_followed() {
    let (_stable, _canary, site, gateway) = pair().await;
    let directory = site.path().join("flags");
    for percentage in [33.0, 44.0] {
        fs::rename(&directory, site.path().join(format!("old-{percentage}"))).unwrap();
        site.write("flags/async-database.toml", &flag_text(percentage));
        at_percentage(&gateway, percentage).await;
    }
    // And then events work again in the new one.
    fs::write(site.flag_file(), flag_text(55.0)).unwrap();
    at_percentage(&gateway, 55.0).await;
}

#[tokio::test]
async fn rules_serve_by_the_marks_of_a_request() {
    let (_stable, _canary, site, gateway) = pair().await;
    let rules = "[[rules]]\nserve = \"stable\"\nwhen = [{ client = \"198.51.100.0/24\" }]\n\
                 [[rules]]\nserve = \"canary\"\nwhen = [\n  { header = \"x-app-version\", semver = \">=2.3.0\" },\n  \
                 { path = \"/api/v1/\", method = \"POST\", query = \"plan\", equals = \"a b\" },\n]\n";
    fs::write(site.flag_file(), format!("{}{rules}", flag_text(0.0))).unwrap();
    at_percentage(&gateway, 0.0).await;
    let post = |query: &str, version: &str, client: &str| {
        let url = format!("{}/api/v1/x{query}", gateway.http);
        let request = gateway.client.post(url).header("x-app-version", version).header("x-forwarded-for", client);
        async move { request.send().await.unwrap().headers()["x-tidegate-variant"].to_str().unwrap().to_owned() }
    };
    assert_eq!(post("?plan=a+b", "2.10.0", "192.0.2.1").await, "async", "without a user");
    assert_eq!(post("?plan=a%20c", "2.10.0", "192.0.2.1").await, "sync");
    assert_eq!(post("?plan=a+b", "2.2.9", "192.0.2.1").await, "sync");
    assert_eq!(post("?plan=a+b", "2.10.0", "198.51.100.7").await, "sync", "the first rule that matches");
    assert_eq!(gateway.variant("carol").await, "sync");

    // A rule that cannot be is told with its place, and the rules before it stay in force.
    fs::write(site.flag_file(), format!("{}{}", flag_text(0.0), rules.replace(">=2.3.0", ">=two"))).unwrap();
    eventually("the rule is refused", || async { site.log().contains("toml:14:40: `rules.when.semver`: ") }).await;
    assert_eq!(post("?plan=a+b", "2.10.0", "192.0.2.1").await, "async");
}

#[tokio::test]
async fn the_version_of_the_set_follows_the_files_and_nothing_else() {
    let (_stable, _canary, site, gateway) = pair().await;
    let version = async || gateway.admin_json("/ready").await["flag_set_version"].as_str().unwrap().to_owned();
    let first = version().await;
    assert_eq!(first.len(), 16);
    assert_eq!(gateway.set(50.0).await.status(), 200);
    assert_eq!(version().await, first, "a change of the rollout is none of the files");
    site.write("flags/list.txt", "dave\n");
    fs::write(site.flag_file(), format!("{}users_file = \"list.txt\"\n", flag_text(10.0))).unwrap();
    eventually("the file is in force", || async { version().await != first }).await;
    let second = version().await;
    site.write("flags/list.txt", "erin\n");
    eventually("the list is in force", || async { version().await != second }).await;
    let third = version().await;
    fs::write(site.flag_file(), "percentage = ").unwrap();
    eventually("the file is refused", || async { site.log().contains("bad flag file") }).await;
    assert_eq!(version().await, third);
    fs::write(site.flag_file(), flag_text(10.0)).unwrap();
    eventually("the first files are in force", || async { version().await == first }).await;
    assert_eq!(gateway.admin_json("/api/v1/flags").await["flag_set_version"], first);
}

#[tokio::test]
async fn every_decision_is_logged_with_the_version_of_the_files_that_made_it() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start_with(&["--log", "debug"]).await;
    let version = async || gateway.admin_json("/ready").await["flag_set_version"].as_str().unwrap().to_owned();
    let logged = || -> Vec<String> {
        let lines: Vec<serde_json::Value> =
            site.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let decisions = lines.iter().filter(|line| line["feature_flag.key"] == FLAG);
        decisions.filter_map(|line| line["feature_flag.version"].as_str().map(str::to_owned)).collect()
    };
    let first = version().await;
    gateway.variant("alice").await;
    gateway.variant("carol").await;
    eventually("both decisions are logged", || async { logged() == [first.clone(), first.clone()] }).await;
    fs::write(site.flag_file(), flag_text(50.0)).unwrap();
    at_percentage(&gateway, 50.0).await;
    let second = version().await;
    assert_ne!(first, second);
    gateway.variant("alice").await;
    eventually("the next one has another version", || async { logged().last() == Some(&second) }).await;
    assert!(!site.log().contains("alice"), "a targeting key is in no log line");
}

#[tokio::test]
async fn a_targeting_key_that_is_too_long_is_none_and_is_counted() {
    let (_stable, _canary, site, gateway) = pair().await;
    fs::write(site.flag_file(), flag_text(99.999)).unwrap();
    at_percentage(&gateway, 99.999).await;
    assert_eq!(gateway.variant(&"k".repeat(4096)).await, "async");
    assert_eq!(gateway.metric("tidegate_long_targeting_keys_total").await, 0.0);
    assert_eq!(gateway.variant(&"k".repeat(4097)).await, "sync", "NO_KEY");
    assert_eq!(gateway.metric("tidegate_long_targeting_keys_total").await, 1.0);
}
