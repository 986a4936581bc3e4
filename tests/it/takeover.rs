//! A new process takes the place of a running gateway, with its sockets, its rollouts and their evidence.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixDatagram, UnixStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Gateway, Site, eventually, flag_text, header, problem, read_to_end, stderr};
use crate::store::{Kind, Place};
use crate::upstream::Upstream;

/// Where the gateways here can be asked.
const SOCKET: &str = "handover.sock";

/// Adds the socket to the configuration of `site`.
fn open_to_takeover(site: &Site) {
    let config = fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    site.write("tidegate.toml", &config.replace("[listen]\n", &format!("[listen]\nhandover = \"{SOCKET}\"\n")));
}

async fn pair() -> (Upstream, Upstream, Site, Gateway) {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    open_to_takeover(&site);
    let gateway = site.start().await;
    (stable, canary, site, gateway)
}

/// Starts a process that takes over, and waits until it has.
async fn upgrade(site: &Site, old: &Gateway) -> Gateway {
    let new = site.start_with(&["--upgrade"]).await;
    assert_eq!((&new.http, &new.admin, &new.https), (&old.http, &old.admin, &old.https), "the same sockets");
    new
}

/// What is asked over and over.
#[derive(Clone, Copy)]
struct Question {
    head: &'static str,
    body: &'static str,
    /// How the answer ends.
    end: &'static str,
}

const OF_A_USER: Question =
    Question { head: "POST /api/v1/x HTTP/1.1\r\nx-user-id: alice\r\ncontent-length: 2\r\n", body: "hi", end: "hi" };

const OF_AN_OPERATOR: Question = Question { head: "GET /health HTTP/1.1\r\n", body: "", end: "{\"status\":\"ok\"}" };

/// Asks over and over, on a connection as long as it lasts, and then on the next; or on a new one each time. Says how often.
async fn keep_asking(
    address: String,
    question: Question,
    reuse: bool,
    asked: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) {
    let close = if reuse { "" } else { "connection: close\r\n" };
    let request = format!("{}host: localhost\r\n{close}\r\n{}", question.head, question.body);
    while !*stop.borrow() {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        loop {
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(question.end.as_bytes()) {
                let length = timeout(DEADLINE, stream.read_buf(&mut answer)).await.unwrap().unwrap();
                assert_ne!(length, 0, "closed in the middle of {:?}", String::from_utf8_lossy(&answer));
            }
            let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
            assert!(answer.starts_with("http/1.1 200"), "{answer:?}");
            asked.fetch_add(1, Ordering::SeqCst);
            if answer.contains("connection: close") || *stop.borrow() {
                break;
            }
        }
    }
}

/// The same over HTTP/2.
async fn keep_asking_http2(url: String, asked: Arc<AtomicUsize>, stop: watch::Receiver<bool>) {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    while !*stop.borrow() {
        let answer = client.post(&url).header("x-user-id", "alice").body("hi").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        asked.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_one_takes_over_from_another_and_a_third_from_that() {
    let (stable, _canary, site, mut first) = pair().await;
    let (stop, stopping) = watch::channel(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..12 {
        let (asked, stopping) = (Arc::clone(&asked), stopping.clone());
        clients.spawn(keep_asking(first.address().to_owned(), OF_A_USER, number % 3 > 0, asked, stopping));
    }
    let admin = first.admin.strip_prefix("http://").unwrap();
    for reuse in [false, true] {
        let (asked, stopping) = (Arc::clone(&asked), stopping.clone());
        clients.spawn(keep_asking(admin.to_owned(), OF_AN_OPERATOR, reuse, asked, stopping));
    }
    for _ in 0..2 {
        clients.spawn(keep_asking_http2(format!("{}/api/v1/x", first.http), Arc::clone(&asked), stopping.clone()));
    }
    let more = async || {
        let before = asked.load(Ordering::SeqCst);
        eventually("everyone is busy", || async { asked.load(Ordering::SeqCst) > before + 100 }).await;
    };
    // One that takes longer than any takeover.
    let mut slow = TcpStream::connect(first.address()).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    more().await;

    assert_eq!(first.set(12.5).await.status(), 200);
    let mut second = upgrade(&site, &first).await;
    assert_eq!(second.flag().await["percentage"], 12.5);
    more().await;
    assert_eq!(second.set(13.5).await.status(), 200, "it has the right to change rollouts");
    let third = upgrade(&site, &second).await;
    more().await;
    assert_eq!(second.ended().await, Some(0), "while the first still has a request under way");
    assert_eq!(third.flag().await["percentage"], 13.5);

    stable.release_one();
    let answer = read_to_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(first.ended().await, Some(0));
    more().await;
    stop.send_replace(true);
    clients.join_all().await;
    let kind = fs::symlink_metadata(site.path().join(SOCKET)).unwrap();
    assert!(kind.file_type().is_socket(), "the third's");
    assert_eq!(kind.permissions().mode() & 0o777, 0o600);
    assert!(!site.log().contains("\"level\":\"ERROR\""), "{}", site.log());
}

on_both!(evidence_latch_and_changes_go_along);

async fn evidence_latch_and_changes_go_along(kind: Kind) {
    let place = Place::new(kind).await;
    open_to_takeover(&place.site);
    let mut first = place.site.start().await;
    assert_eq!(first.set(50.0).await.status(), 200);
    for user in 0..40 {
        first.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
    }
    let requests = async |gateway: &Gateway| gateway.flag().await["evidence"][1]["requests"].as_u64();
    let counted = async || first.outcomes("async", "success").await;
    eventually("all of them are counted", || async {
        counted().await + first.outcomes("sync", "success").await == 40.0
    })
    .await;
    let of_canary = counted().await;
    eventually("all of them are judged", || async { requests(&first).await.map(|n| n as f64) == Some(of_canary) })
        .await;
    let second = upgrade(&place.site, &first).await;
    eventually("the judge has looked", || async { requests(&second).await.is_some() }).await;
    assert_eq!(requests(&second).await.map(|n| n as f64), Some(of_canary), "evidence goes on where it was");
    assert_eq!(second.flag().await["percentage"], 50.0);
    assert_eq!(first.ended().await, Some(0));

    let rolled_back: Value = second.act("rollback", json!({"reason": "trying it"})).await.json().await.unwrap();
    assert_eq!(rolled_back["saved"], true);
    let third = upgrade(&place.site, &second).await;
    assert_eq!(third.variant("alice").await, "sync", "the very first request");
    assert_eq!(third.flag().await["rollback"], rolled_back["flag"]["rollback"]);
    // The audit trail is one, whoever wrote it.
    let verified = third.admin_json("/api/v1/events/verify").await;
    assert_eq!(verified["problems"], json!([]), "{verified}");
}

#[tokio::test]
async fn the_new_one_has_a_configuration_of_its_own() {
    let (_stable, _canary, site, mut first) = pair().await;
    assert_eq!(first.variant("dave").await, "sync");
    site.write("others/async-database.toml", &flag_text(0.0).replace("bob", "dave"));
    site.configure("[flags]\npath = \"others\"\n[limits]\nbody = 10\n");
    let second = upgrade(&site, &first).await;
    assert_eq!(first.ended().await, Some(0));
    assert_eq!(second.variant("dave").await, "async");
    let long = second.client.post(format!("{}/x", second.http)).body("more than ten bytes");
    problem(long.send().await.unwrap(), 413, "content-too-large").await;
}

#[tokio::test]
async fn builtin_backends_of_the_old_one_serve_what_it_still_has() {
    let site = Site::builtin();
    open_to_takeover(&site);
    let mut first = site.start().await;
    let (stop, stopping) = watch::channel(false);
    let address = first.address().to_owned();
    let asking = tokio::spawn(async move {
        let body = "{\"role\":\"backend engineer\",\"jobDescription\":\"Rust\"}";
        let client = reqwest::Client::new();
        while !*stopping.borrow() {
            let request = client.post(format!("http://{address}/api/v1/parse-jd"));
            let request = request.header("content-type", "application/json").header("x-user-id", "alice").body(body);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        }
    });
    let _second = upgrade(&site, &first).await;
    assert_eq!(first.ended().await, Some(0));
    stop.send_replace(true);
    asking.await.unwrap();
}

/// Asserts that `gateway` is as it was: it serves, judges and changes.
async fn goes_on(gateway: &Gateway, percentage: f64) {
    assert_eq!(gateway.set(percentage).await.status(), 200);
    assert_eq!(gateway.flag().await["percentage"], percentage);
    assert_eq!(gateway.variant("alice").await, "async");
    assert_eq!(gateway.admin("/ready").await.status(), 200);
}

#[tokio::test]
async fn one_that_cannot_start_leaves_the_old_one_as_it_was() {
    let (_stable, _canary, site, gateway) = pair().await;
    let good = fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    let refused = async || stderr(&site.run(&["serve", "--upgrade"]).await, 1);

    site.write("flags/async-database.toml", &flag_text(10.0).replace("percentage", "percentge"));
    assert!(refused().await.contains("flags/async-database.toml:5:1: unknown key `percentge`"));
    site.write("flags/async-database.toml", &flag_text(10.0));
    goes_on(&gateway, 21.0).await;

    site.write("tidegate.toml", &good.replace("[listen]", "[listen]\nhtp = 1"));
    assert!(refused().await.contains("unknown key `listen.htp`"));
    goes_on(&gateway, 22.0).await;

    // After the old one has given up its store.
    site.write("tidegate.toml", &format!("{good}[store]\nurl = \"sqlite:///nonexistent/tidegate.db\"\n"));
    assert!(refused().await.contains("cannot open the store sqlite:///nonexistent/tidegate.db"));
    goes_on(&gateway, 23.0).await;
    assert!(site.log().contains("a takeover came to nothing; this gateway goes on"));

    // Others are not let in as if nobody were there.
    site.write("tidegate.toml", &good);
    let error = stderr(&site.run(&["serve"]).await, 1);
    assert!(error.contains("a gateway listens at handover.sock (`listen.handover`) already; `--upgrade`"), "{error}");
    let second = upgrade(&site, &gateway).await;
    goes_on(&second, 24.0).await;
}

#[tokio::test]
async fn a_change_in_between_is_made_or_refused_and_never_lost() {
    let (_stable, _canary, site, gateway) = pair().await;
    let gateway = Arc::new(gateway);
    // As far as a process comes that then dies.
    let prepare = async || {
        let mut line = BufReader::new(UnixStream::connect(site.path().join(SOCKET)).await.unwrap());
        for (said, heard) in [("takeover 1\n", "sockets "), ("prepared\n", "store")] {
            line.write_all(said.as_bytes()).await.unwrap();
            let mut answer = String::new();
            timeout(DEADLINE, line.read_line(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with(heard), "{answer}");
        }
        line
    };
    let line = prepare().await;
    let changing = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { gateway.set(31.0).await }
    });
    assert_eq!(gateway.variant("alice").await, "async", "traffic goes on");
    drop(line);
    // On a slow machine it may have been told to come again first.
    if changing.await.unwrap().status() == 503 {
        eventually("it can be changed again", || async { gateway.set(31.0).await.status() == 200 }).await;
    }
    assert_eq!(gateway.flag().await["percentage"], 31.0);

    let line = prepare().await;
    for refused in [gateway.set(32.0).await, gateway.act("rollback", json!({})).await] {
        assert_eq!(header(refused.headers(), "retry-after"), Some("1"));
        let detail = problem(refused, 503, "taking-over").await;
        assert!(detail.starts_with("the change is not made, since another process is taking over"), "{detail}");
    }
    assert_eq!(gateway.flag().await["percentage"], 31.0);
    drop(line);
    eventually("it can be changed again", || async { gateway.set(33.0).await.status() == 200 }).await;
    let events = gateway.admin_json(&format!("/api/v1/events?flag={FLAG}")).await;
    let set: Vec<_> = events["events"].as_array().unwrap().iter().filter(|event| event["action"] == "set").collect();
    assert_eq!(set.len(), 2, "{events}");
}

/// Asks to take over, is given the store, says what means nothing and stays.
const CONFUSED: &str = r#"
use IO::Socket::UNIX;
my $line = IO::Socket::UNIX->new(Peer => "handover.sock") or die "no gateway: $!";
for my $said ("takeover 1", "prepared") { print $line "$said\n"; $line->flush; <$line>; }
print $line "steady\n";
$line->flush;
sleep 3600;
"#;

#[tokio::test]
async fn one_that_goes_wrong_with_the_store_in_hand_is_ended_and_the_old_one_goes_on() {
    let (_stable, _canary, site, gateway) = pair().await;
    assert_eq!(gateway.set(31.0).await.status(), 200);
    let mut command = Command::new("perl");
    command.args(["-e", CONFUSED]).current_dir(site.path()).kill_on_drop(true);
    let mut confused = command.spawn().unwrap();
    let ended = timeout(DEADLINE, confused.wait()).await.unwrap().unwrap();
    assert_eq!(ended.signal(), Some(9), "it might write at any moment");
    eventually("it can be changed again", || async { gateway.set(32.0).await.status() == 200 }).await;
    goes_on(&gateway, 33.0).await;
    assert!(site.log().contains("the process that was to take over does not; it is ended"), "{}", site.log());
    let second = upgrade(&site, &gateway).await;
    goes_on(&second, 34.0).await;
    assert_eq!(second.admin_json("/api/v1/events/verify").await["problems"], json!([]));
}

/// A process that was not started here. It ends with the test.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").args(["-KILL", &self.0.to_string()]).status();
    }
}

#[tokio::test]
async fn on_a_signal_the_gateway_starts_its_successor_and_the_service_manager_is_told() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    open_to_takeover(&site);
    let manager = UnixDatagram::bind(site.path().join("notify")).unwrap();
    let main_process = async || -> u32 {
        let mut told = [0; 100];
        let length = timeout(DEADLINE, manager.recv(&mut told)).await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&told[..length]).into_owned();
        told.strip_prefix("READY=1\nMAINPID=").unwrap().trim().parse().unwrap()
    };
    let mut command = site.command(&["serve"]);
    let log = fs::File::create(site.path().join("log")).unwrap();
    command.env("NOTIFY_SOCKET", site.path().join("notify")).stderr(log);
    let mut gateway = site.spawn(command).await;
    assert_eq!(main_process().await, gateway.id());

    site.write("flags/async-database.toml", "nothing of use");
    gateway.signal("USR2").await;
    let failed = "the process that was started to take over has ended";
    eventually("it cannot start", || async { site.log().contains(failed) }).await;
    assert_eq!(gateway.variant("alice").await, "async");

    site.write("flags/async-database.toml", &flag_text(10.0));
    gateway.signal("USR2").await;
    let successor = Stray(main_process().await);
    assert_ne!(successor.0, gateway.id());
    assert_eq!(gateway.ended().await, Some(0));
    assert_eq!(gateway.variant("alice").await, "async", "at the same address");
}

#[tokio::test]
async fn the_socket_is_there_as_long_as_its_gateway() {
    let (stable, canary, site, mut gateway) = pair().await;
    let path = site.path().join(SOCKET);
    assert!(path.exists());
    gateway.terminate().await;
    assert_eq!(gateway.ended().await, Some(0));
    assert!(!path.exists());
    let error = stderr(&site.run(&["serve", "--upgrade"]).await, 1);
    assert!(error.contains("no gateway listens at handover.sock (`listen.handover`); without `--upgrade`"), "{error}");

    // One that was killed leaves a file that is in nobody's way.
    site.start().await.kill().await;
    assert!(path.exists());
    let gateway = site.start().await;
    drop(upgrade(&site, &gateway).await);

    let site = Site::with_servers(stable.address(), canary.address());
    let error = stderr(&site.run(&["serve", "--upgrade"]).await, 1);
    assert!(error.contains("`listen.handover`, which is not set"), "{error}");
}
