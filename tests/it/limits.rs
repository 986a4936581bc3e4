//! What clients may take of the gateway, and what they are told beyond it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Gateway, Site, eventually, header, problem, read_to_end};
use crate::upstream::Upstream;

async fn limited(limits: &str) -> (Upstream, Site, Gateway) {
    let upstream = Upstream::start().await;
    let site = Site::with_servers(upstream.address(), upstream.address());
    site.configure(limits);
    let gateway = site.start().await;
    (upstream, site, gateway)
}

/// A connection that is known to be served, and stays.
async fn served(gateway: &Gateway) -> TcpStream {
    let (stream, answer) = asked(gateway).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream
}

/// A connection, and what came first when one request was sent on it.
async fn asked(gateway: &Gateway) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    // It may have been closed meanwhile; then nothing is read.
    let _ = stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut answer = [0; 4096];
    let length = timeout(DEADLINE, stream.read(&mut answer)).await.unwrap().unwrap_or(0);
    (stream, String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// What a client is told who only connects.
async fn turned_away(gateway: &Gateway) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn connections_are_limited_and_given_back() {
    let (_upstream, _site, gateway) = limited("[limits]\nconnections = 2\n").await;
    let (first, _second) = (served(&gateway).await, served(&gateway).await);
    let told = turned_away(&gateway).await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("retry-after: 1\r\n"), "{told}");
    assert!(told.contains("urn:tidegate:problem:overloaded"), "{told}");
    drop(first);
    eventually("there is room again", || async {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        read_to_end(&mut stream).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn an_address_has_only_so_many_connections_unless_it_is_a_proxys() {
    let one = "[limits]\nconnections_per_address = 1\n";
    let (_upstream, _site, gateway) = limited(&format!("{one}[identity]\ntrusted_proxies = []\n")).await;
    let _first = served(&gateway).await;
    let told = turned_away(&gateway).await;
    assert!(told.starts_with("HTTP/1.1 429") && told.contains("retry-after: 1\r\n"), "{told}");

    let (_upstream, _site, gateway) = limited(one).await;
    let _first = served(&gateway).await;
    served(&gateway).await;
}

#[tokio::test]
async fn a_route_has_only_so_many_requests_under_way() {
    let routes = "[[routes]]\npath = \"/narrow\"\nbackend = \"sync\"\nin_flight = 1\n[[routes]]\npath = \"/\"\nbackend = \"sync\"\n";
    let (upstream, _site, gateway) = limited(routes).await;
    let first = tokio::spawn(gateway.get("/narrow/slow", "alice").send());
    eventually("the first is under way", || async { upstream.requests() == 1 }).await;
    let second = gateway.get("/narrow/x", "alice").send().await.unwrap();
    assert_eq!(header(second.headers(), "retry-after"), Some("1"));
    problem(second, 503, "overloaded").await;
    // By whatever name.
    problem(gateway.get("//n%61rrow/x", "alice").send().await.unwrap(), 503, "overloaded").await;
    assert_eq!(gateway.get("/wide", "alice").send().await.unwrap().status(), 200);
    upstream.release_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    eventually("there is room again", || async {
        gateway.get("/narrow/x", "alice").send().await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test]
async fn who_sends_a_header_too_slowly_is_told_so() {
    let (upstream, _site, gateway) = limited("[limits]\nheader_timeout = \"100ms\"\nidle = \"1h\"\n").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    let told = read_to_end(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 408") && told.contains("urn:tidegate:problem:request-timeout"), "{told}");
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn who_only_connects_is_let_go() {
    let (_upstream, _site, gateway) = limited("[limits]\nidle = \"100ms\"\n").await;
    assert_eq!(turned_away(&gateway).await, "");
    // On a slow machine the first request may come too late.
    let served = async {
        loop {
            let (stream, answer) = asked(&gateway).await;
            if answer.starts_with("HTTP/1.1 200") {
                return stream;
            }
        }
    };
    let mut kept = timeout(DEADLINE, served).await.unwrap();
    assert_eq!(read_to_end(&mut kept).await, "", "also between two requests");
}

#[tokio::test]
async fn who_sends_a_body_too_slowly_is_told_so_and_the_backend_is_not_to_blame() {
    let (_upstream, _site, gateway) = limited("[limits]\nbody_timeout = \"1s\"\nmin_rate = 1000\n").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let request = "POST /api/v1/slow HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    // One byte now and then is not enough to be let go on.
    let drip = tokio::spawn(async move {
        let mut now_and_then = tokio::time::interval(Duration::from_millis(50));
        loop {
            now_and_then.tick().await;
            if writer.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let mut told = Vec::new();
    let _ = timeout(DEADLINE, reader.read_to_end(&mut told)).await.unwrap();
    drip.abort();
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    eventually("it is charged to nobody", || async { gateway.outcomes("async", "not_counted").await == 1.0 }).await;
    assert_eq!(gateway.outcomes("async", "failure").await, 0.0);
}

#[tokio::test]
async fn who_takes_no_answer_is_let_go() {
    let (_upstream, _site, gateway) = limited("[limits]\nwrite_timeout = \"300ms\"\n").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let length = 50_000_000;
    let request = format!("POST /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // The upstream sends back what it gets. Nobody reads it here, until writing fails.
    let part = vec![b'x'; 100_000];
    let written = timeout(DEADLINE, async { while stream.write_all(&part).await.is_ok() {} }).await;
    assert!(written.is_ok(), "the connection is closed");
    eventually("it is charged to nobody", || async { gateway.outcomes("async", "not_counted").await == 1.0 }).await;
    assert_eq!(gateway.outcomes("async", "failure").await, 0.0);
}

#[tokio::test]
async fn a_body_may_be_only_so_long() {
    let (upstream, _site, gateway) = limited("[limits]\nbody = 10\n").await;
    let url = format!("{}/api/v1/x", gateway.http);
    let post = |body: reqwest::Body| gateway.client.post(&url).header("x-user-id", "alice").body(body).send();
    problem(post("hello world".into()).await.unwrap(), 413, "content-too-large").await;
    assert_eq!(upstream.requests(), 0, "by its length it is refused before anyone hears of it");
    assert_eq!(post("hello worl".into()).await.unwrap().text().await.unwrap(), "hello worl");

    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = "POST /x/slow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}6\r\nhello \r\n").as_bytes()).await.unwrap();
    eventually("it is under way", || async { upstream.requests() == 2 }).await;
    stream.write_all(b"5\r\nworld\r\n0\r\n\r\n").await.unwrap();
    let told = read_to_end(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("longer than `limits.body`"), "{told}");
}

#[tokio::test]
async fn http2_is_held_to_the_same() {
    let (upstream, _site, gateway) = limited("[limits]\nbody = 10\n").await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/api/v1/x", gateway.http);
    let post = |body: &'static str| client.post(&url).header("x-user-id", "alice").body(body).send();
    let answer = post("hello").await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(header(answer.headers(), "x-tidegate-variant"), Some("async"));
    assert_eq!(answer.text().await.unwrap(), "hello");
    problem(post("hello world").await.unwrap(), 413, "content-too-large").await;
    problem(client.get(format!("{}/a%2f..%2fb", gateway.http)).send().await.unwrap(), 400, "bad-request").await;
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_told() {
    let site = Site::builtin();
    site.configure("[limits]\nbody = \"many\"\nheader = 1\nconnections = 0\nuri = \"64KiB\"\nidle = \"0s\"\n");
    let output = site.run(&["check", "--config", "tidegate.toml"]).await;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for problem in [
        "`limits.body`: \"many\" is no size",
        "`limits.header`: 1 bytes are out of range: 256 to 1000000",
        "`limits.connections`: 0 is out of range: 1 to",
        "`limits.uri`: 65536 bytes are out of range",
        "`limits.idle`: no time at all is too short",
    ] {
        assert!(told.contains(problem), "{problem}: {told}");
    }
}
