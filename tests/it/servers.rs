//! Backends of several servers: who gets a request, who is left out, and what a canary without servers does.

use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{Gateway, Site, eventually, header, pair, stderr};
use crate::upstream::{Upstream, nobody};

/// A site whose canary is described by `backend`, with a short interval of health checks where it has any.
fn site(stable: &str, backend: &str) -> Site {
    let site = Site::with_servers(stable, "127.0.0.1:1");
    site.write(
        "tidegate.toml",
        &format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[backends.sync]\nservers = [\"{stable}\"]\n\
             timeouts = {{ connect = \"5s\" }}\n[backends.async]\n{backend}\n"
        ),
    );
    site
}

async fn variant(gateway: &Gateway) -> (String, u16) {
    let response = gateway.get("/api/v1/x", "alice").send().await.unwrap();
    (header(response.headers(), "x-tidegate-variant").unwrap().to_owned(), response.status().as_u16())
}

#[tokio::test]
async fn servers_take_turns_and_one_that_is_gone_is_passed_over() {
    let (stable, one, two) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let (gone, _socket) = nobody();
    let servers = format!("servers = [\"{}\", \"{gone}\", \"http://{}\"]", one.address(), two.address());
    let place = site(stable.address(), &servers);
    let gateway = place.start().await;
    for _ in 0..12 {
        assert_eq!(variant(&gateway).await, ("async".to_owned(), 200), "another server of the same backend serves");
    }
    assert_eq!((one.requests() + two.requests(), stable.requests()), (12, 0));
    assert!(one.requests() >= 4 && two.requests() >= 4, "{} and {}", one.requests(), two.requests());
    eventually("they are charged", || async { gateway.outcomes("async", "success").await == 12.0 }).await;
    assert_eq!(gateway.outcomes("async", "failure").await, 0.0, "nobody's request failed");
    let retries = "tidegate_upstream_retries_total{backend=\"async\"}";
    eventually("it is told", || async { gateway.metric(retries).await >= 1.0 }).await;
}

#[tokio::test]
async fn a_server_that_fails_again_and_again_is_set_aside() {
    let (stable, good) = (Upstream::start().await, Upstream::start().await);
    let (gone, _socket) = nobody();
    let servers = format!("servers = [\"{}\", \"{gone}\"]\nejection = {{ after = 2, time = \"5m\" }}", good.address());
    let place = site(stable.address(), &servers);
    let gateway = place.start().await;
    let retries = "tidegate_upstream_retries_total{backend=\"async\"}";
    let healthy = format!("tidegate_server_healthy{{backend=\"async\",server=\"{gone}\"}}");
    eventually("it is set aside", || async {
        assert_eq!(variant(&gateway).await.1, 200);
        gateway.metric("tidegate_server_ejections_total{backend=\"async\"}").await == 1.0
    })
    .await;
    assert_eq!((gateway.metric(&healthy).await, gateway.metric(retries).await), (0.0, 2.0));
    for _ in 0..10 {
        assert_eq!(variant(&gateway).await, ("async".to_owned(), 200));
    }
    assert_eq!(gateway.metric(retries).await, 2.0, "it was asked no more");
    assert_eq!(gateway.flag().await["arms"]["canary"]["servers"][1]["ejected"], true);
}

#[tokio::test]
async fn a_backend_is_never_emptied_by_setting_aside() {
    let stable = Upstream::start().await;
    let (gone, socket) = nobody();
    let backend = format!("servers = [\"{gone}\"]\nrescue = false\nejection = {{ after = 1, time = \"5m\" }}");
    let place = site(stable.address(), &backend);
    let gateway = place.start().await;
    assert_eq!(variant(&gateway).await.1, 502);
    // It comes back before its time is over, and is asked, since there is no other.
    let listener = socket.listen(16).unwrap();
    let back = Upstream::on(listener);
    eventually("it serves", || async { variant(&gateway).await == ("async".to_owned(), 200) }).await;
    assert!(back.requests() >= 1);
}

#[tokio::test]
async fn a_users_requests_stay_on_one_server_if_asked_to() {
    let (stable, one, two) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let backend = format!("servers = [\"{}\", \"{}\"]\nbalance = \"hash\"", one.address(), two.address());
    let place = site(stable.address(), &backend);
    let gateway = place.start().await;
    assert_eq!(gateway.set(100.0).await.status(), 200);
    for user in 0..16 {
        let before = (one.requests(), two.requests());
        for _ in 0..3 {
            gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
        }
        let now = (one.requests() - before.0, two.requests() - before.1);
        assert!(now == (3, 0) || now == (0, 3), "{now:?}");
    }
    assert!(one.requests() > 0 && two.requests() > 0, "{} and {}", one.requests(), two.requests());
}

#[tokio::test]
async fn a_canary_without_a_server_gets_no_requests_and_goes() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let check = "health_check = { path = \"/health\", interval = \"100ms\", timeout = \"10s\", unhealthy_after = 1, healthy_after = 1 }";
    let backend = format!("servers = [\"{}\"]\n{check}", canary.address());
    let site = site(stable.address(), &backend);
    let gateway = site.start().await;
    assert_eq!(variant(&gateway).await, ("async".to_owned(), 200));

    canary.answer_with(503);
    let canary_arm = || async { gateway.flag().await["arms"]["canary"].clone() };
    eventually("it is unavailable", || async { canary_arm().await["available"] == false }).await;
    let served = stable.requests();
    for _ in 0..5 {
        assert_eq!(variant(&gateway).await, ("sync".to_owned(), 200));
    }
    assert_eq!(stable.requests(), served + 5, "straight to stable");
    assert_eq!(canary_arm().await["servers"][0]["healthy"], false);
    assert_eq!(gateway.metric("tidegate_backend_available{backend=\"async\"}").await, 0.0);
    eventually("they are stable's", || async { gateway.outcomes("sync", "success").await == 5.0 }).await;
    assert_eq!(gateway.outcomes("async", "failure").await, 0.0, "what it never saw is not charged to it");
    let status = gateway.cli(&site, &["status", "async-database"]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("canary unavailable"), "{status:?}");
    let explained = gateway.cli(&site, &["explain", "async-database", "--user", "alice"]).await;
    assert!(String::from_utf8_lossy(&explained.stdout).contains("canary unavailable"), "{explained:?}");

    canary.answer_with(200);
    eventually("it is back", || async { variant(&gateway).await == ("async".to_owned(), 200) }).await;
    assert_eq!(gateway.flag().await["phase"], "manual");

    let text = std::fs::read_to_string(site.flag_file()).unwrap();
    std::fs::write(site.flag_file(), format!("{text}[guard]\nmax_unavailable = \"1s\"\n")).unwrap();
    canary.answer_with(503);
    eventually("it is taken out", || async { gateway.flag().await["phase"] == "rolled_back" }).await;
    let rollback = gateway.flag().await["rollback"].clone();
    assert_eq!(rollback["cause"], json!("canary_unavailable"));
    assert!(
        rollback["why"]["summary"].as_str().unwrap().starts_with("For 1 s no server of the canary's could"),
        "{rollback}"
    );
}

#[tokio::test]
async fn names_are_resolved() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let port = canary.address().rsplit_once(':').unwrap().1;
    let place = site(stable.address(), &format!("servers = [\"localhost:{port}\"]"));
    let gateway = place.start().await;
    assert_eq!(variant(&gateway).await, ("async".to_owned(), 200));

    // A name that nobody knows is no reason not to start: stable serves.
    let backend = "servers = [\"http://nobody.invalid\"]";
    let place = site(stable.address(), backend);
    let gateway = place.start().await;
    assert_eq!(variant(&gateway).await, ("sync".to_owned(), 200));
    assert_eq!(gateway.flag().await["arms"]["canary"]["available"], false);
}

#[tokio::test]
async fn what_means_nothing_is_refused_with_its_place() {
    let (_stable, _canary, site, _gateway) = pair().await;
    site.write(
        "tidegate.toml",
        "[backends.sync]\nservers = [\"a:1\", \"a:1\", \"ftp://b\"]\nbalance = \"random\"\nprotocol = \"h3\"\n\
         retry_buffer = \"65KiB\"\nrescue_budget = { share = \"120%\" }\ntls = { ca = \"none.pem\" }\n\
         health_check = { path = \"health\", interval = \"1ms\", unhealthy_after = 0 }\n\
         timeouts = { total = \"0s\", all = \"1s\" }\n[[routes]]\npath = \"/\"\nbackend = \"sync\"\n",
    );
    let told = stderr(&site.run(&["check"]).await, 1);
    for problem in [
        "tidegate.toml:2:19: `servers`: \"a:1\" is there twice",
        "tidegate.toml:2:26: `servers`: \"ftp://b\" is no address of a server",
        "tidegate.toml:3:11: `backends.sync.balance`: \"random\": there are `round-robin`, `least-loaded` and `hash`",
        "tidegate.toml:4:12: `backends.sync.protocol`: \"h3\": there are `h1`, `h2` and `auto`",
        "tidegate.toml:5:16: `backends.sync.retry_buffer`: 66560 bytes are too many",
        "tidegate.toml:6:27: `backends.sync.rescue_budget.share`: \"120%\" is no share",
        "tidegate.toml:7:14: `backends.sync.tls.ca`: cannot read none.pem",
        "tidegate.toml:8:25: `backends.sync.health_check.path`: \"health\" is no path",
        "tidegate.toml:8:46: `backends.sync.health_check.interval`: at least 100 ms",
        "tidegate.toml:8:71: `backends.sync.health_check.unhealthy_after`: wants at least 1",
        "tidegate.toml:9:22: `backends.sync.timeouts.total`: no time at all is too short",
        "tidegate.toml:9:28: unknown key `backends.sync.timeouts.all`",
    ] {
        assert!(told.contains(problem), "{problem}\n{told}");
    }
}

#[tokio::test]
async fn an_exchange_has_an_end_if_it_has_a_total() {
    let stable = Upstream::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let drips = listener.local_addr().unwrap().to_string();
    let dripping = tokio::spawn(crate::upstream::drip(listener));
    let backend = format!("servers = [\"{drips}\"]\nrescue = false\ntimeouts = {{ connect = \"5s\", total = \"1s\" }}");
    let place = site(stable.address(), &backend).without_judge();
    let gateway = place.start().await;
    let mut asked = 0.0;
    eventually("it is cut off, and seen to be", || {
        asked += 1.0;
        async {
            let Ok(response) = gateway.get("/api/v1/x", "alice").send().await else { return true };
            // On a slow machine the time may be over before the answer begins.
            let status = response.status();
            let is_cut_off = response.bytes().await.is_err();
            assert!(is_cut_off || status == 504, "{status}");
            is_cut_off
        }
    })
    .await;
    eventually("it is charged", || async { gateway.outcomes("async", "failure").await == asked }).await;
    dripping.abort();
}
