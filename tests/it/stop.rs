//! Starting and stopping.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Site, eventually, flag_text, pair, read_to_end, stderr};
use crate::upstream::Upstream;

#[tokio::test]
async fn a_stop_lets_requests_finish_and_takes_no_more() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let mut gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually("the request is under way", || async { stable.requests() == 1 }).await;

    gateway.terminate().await;
    eventually("no more connections are taken", || async { TcpStream::connect(gateway.address()).await.is_err() })
        .await;
    let ready = gateway.admin("/ready").await;
    assert_eq!(ready.status(), 503);
    stable.release_one();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(gateway.ended().await, Some(0));
    assert!(site.log().contains("\"message\":\"stopped\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_no_connection_under_a_request() {
    let (_stable, _canary, _site, mut gateway) = pair().await;
    let mut clients = JoinSet::new();
    let (sent, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..16 {
        let (address, sent, served) = (gateway.address().to_owned(), Arc::clone(&sent), Arc::clone(&served));
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut is_first = true;
            loop {
                stream.write_all(b"POST /api/v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                let mut answer = [0; 2048];
                let length = timeout(DEADLINE, stream.read(&mut answer)).await.unwrap().unwrap();
                let answer = String::from_utf8_lossy(&answer[..length]).to_ascii_lowercase();
                assert!(answer.starts_with("http/1.1 200"), "{answer:?}");
                sent.fetch_add(1, Ordering::SeqCst);
                served.fetch_add(usize::from(std::mem::take(&mut is_first)), Ordering::SeqCst);
                if answer.contains("connection: close") {
                    return;
                }
            }
        });
    }
    eventually("everyone is busy", || async {
        served.load(Ordering::SeqCst) == 16 && sent.load(Ordering::SeqCst) > 200
    })
    .await;
    gateway.terminate().await;
    clients.join_all().await;
    assert_eq!(gateway.ended().await, Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    site.configure(
        "[[routes]]\npath = \"/broken\"\nbackend = \"broken\"\n[[routes]]\npath = \"/\"\nbackend = \"sync\"\n",
    );
    site.configure("[backends.broken]\nservers = [\"unix:/nonexistent/app.sock\"]\n");
    let mut command = site.command(&["serve", "--log", "debug"]);
    // A pipe holds 64 KiB; nobody reads this one.
    command.stderr(Stdio::piped());
    let gateway = site.spawn(command).await;
    for _ in 0..600 {
        assert_eq!(gateway.get("/broken", "alice").send().await.unwrap().status(), 502);
    }
    assert_eq!(gateway.get("/x", "alice").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    site.write("tidegate.toml", &config.replace("[listen]\n", "[listen]\ndrain = \"50ms\"\n"));
    let mut gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually("the request is under way", || async { stable.requests() == 1 }).await;
    gateway.terminate().await;
    assert_eq!(gateway.ended().await, Some(0));
    assert!(site.log().contains("are broken off"));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let site = Site::builtin();
    site.write("flags/async-database.toml", &flag_text(10.0).replace("percentage", "percentge"));
    let error = stderr(&site.run(&["serve"]).await, 1);
    assert!(
        error.contains(
            "flags/async-database.toml:5:1: unknown key `percentge`; did you mean `percentage`?\n   |\n \
             5 | percentge = 10\n   | ^^^^^^^^^\n"
        ),
        "{error}"
    );
    assert!(error.contains("--tolerate-bad-flags"), "{error}");

    site.write("flags/async-database.toml", &flag_text(10.0));
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    site.write("tidegate.toml", &format!("[listen]\nhttp = \"{address}\"\nadmin = \"127.0.0.1:0\"\n"));
    let error = stderr(&site.run(&["serve"]).await, 1);
    assert!(error.contains(&format!("cannot listen on {address} (`listen.http`): ")), "{error}");

    site.write("tidegate.toml", "[store]\nurl = \"sqlite:///nonexistent/tidegate.db\"\n");
    let error = stderr(&site.run(&["serve"]).await, 1);
    assert!(error.contains("cannot open the store"), "{error}");
}

#[tokio::test]
async fn bad_flags_can_be_tolerated_at_the_start() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    site.write("flags/async-database.toml", "nothing of use");
    let gateway = site.start_with(&["--tolerate-bad-flags"]).await;
    assert_eq!(gateway.get("/api/v1/x", "alice").send().await.unwrap().status(), 200);
    assert_eq!((stable.requests(), canary.requests()), (1, 0));
    assert!(gateway.admin_json("/ready").await["problems"][0].as_str().unwrap().contains("async-database.toml:1:"));
    site.write("flags/async-database.toml", &flag_text(10.0));
    eventually("the flag is taken up", || async {
        gateway.get("/api/v1/x", "alice").send().await.unwrap();
        canary.requests() > 0
    })
    .await;
}
