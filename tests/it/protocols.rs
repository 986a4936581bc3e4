//! What HTTP can do beside a plain request and its answer, passed on as it is: gRPC, upgrades, 1xx, HEAD, ranges, large headers.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::framing::Recorder;
use crate::harness::{DEADLINE, Gateway, Site, eventually, read_to_end};
use crate::upstream::Upstream;

/// Reads until what was read ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end.as_bytes()) {
            read.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(DEADLINE, reading).await.unwrap();
    String::from_utf8(read).unwrap()
}

/// A server that reads a head, answers `first`, and then sends back what it gets.
async fn scripted(first: &str) -> String {
    let first: Arc<str> = first.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let first = Arc::clone(&first);
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(first.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

async fn before(address: &str) -> (Site, Gateway) {
    let site = Site::with_servers(address, address);
    let gateway = site.start().await;
    (site, gateway)
}

#[tokio::test]
async fn grpc_keeps_its_trailers_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Sends back the message, and says in trailers how it went.
            let answer = service_fn(async |request: http::Request<Incoming>| {
                assert_eq!(request.headers()["te"], "trailers");
                let variant = request.headers()["x-tidegate-variant"].clone();
                let message = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("variant", variant);
                let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
                let body = StreamBody::new(stream::iter(frames));
                let response = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(response.body(body).unwrap())
            });
            let serving =
                server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(async move { drop(serving.await) });
        }
    });
    let site = Site::with_servers(&address, &address);
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    let config = config.replace("timeouts =", "protocol = \"h2\"\ntimeouts =");
    site.write("tidegate.toml", &config);
    let gateway = site.start().await;
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    for (user, variant) in [("alice", "async"), ("carol", "sync")] {
        let request =
            http::Request::post("http://a.test/api/v1/Say").header("te", "trailers").header("x-user-id", user);
        let request = request.header("content-type", "application/grpc").body(Full::new(message.clone())).unwrap();
        let response = timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["variant"]),
            (&"0".parse().unwrap(), &variant.parse().unwrap())
        );
        assert_eq!(collected.to_bytes(), message);
    }
    eventually("it is counted", || async { gateway.outcomes("async", "success").await == 1.0 }).await;
}

#[tokio::test]
async fn an_upgrade_is_decided_counted_and_then_left_alone() {
    for (protocol, more) in [
        ("websocket", "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        ("tcp", "x: y\r\n"),
        ("SPDY/3.1", ""),
    ] {
        let switch = format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
        let address = scripted(&switch).await;
        let (_site, gateway) = before(&address).await;
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        let request = format!(
            "GET /api/v1/socket HTTP/1.1\r\nhost: a.test\r\nx-user-id: alice\r\n\
             connection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n{more}\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(&format!("upgrade: {protocol}\r\n")), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("x-tidegate-variant: async\r\n") && head.contains("x-request-id: "), "{head}");
        for said in ["\0first\n", "GET / not HTTP\r\n\r\n", "last"] {
            client.write_all(said.as_bytes()).await.unwrap();
            assert_eq!(read_until(&mut client, said).await, said);
        }
        drop(client);
        eventually("it is counted", || async { gateway.outcomes("async", "success").await == 1.0 }).await;
    }
}

/// Over an upgraded connection requests would come past every route.
#[tokio::test]
async fn no_upgrade_to_another_http_is_asked_of_a_backend() {
    let upstream = Recorder::start().await;
    let site = Site::with_servers(&upstream.address, &upstream.address);
    let gateway = site.start().await;
    for wish in [
        "connection: upgrade\r\nupgrade: h2c",
        "connection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nupgrade: H2C",
        "connection: upgrade\r\nupgrade: tcp, h2c",
        "connection: upgrade\r\nupgrade: tcp\r\nupgrade: h2c",
        "connection: upgrade\r\nupgrade: HTTP/2.0",
        "connection: upgrade\r\nupgrade: TLS/1.2",
        "connection: upgrade\r\nupgrade: h2c-14",
        "connection: upgrade\r\nupgrade: h2c, \u{e9}",
        "connection: upgrade\r\nupgrade: h2c;q=1",
        "connection: upgrade\r\nupgrade:",
        "upgrade: tcp",
    ] {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        let request = format!("GET /x HTTP/1.1\r\nhost: a.test\r\n{wish}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{wish}: {head}");
    }
    let heard = upstream.text().to_ascii_lowercase();
    assert!(heard.contains("get /x ") && !heard.contains("upgrade") && !heard.contains("h2c"), "{heard}");
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_is_an_ordinary_answer() {
    let (_upstream, _site, gateway) = {
        let upstream = Upstream::start().await;
        let (site, gateway) = before(upstream.address()).await;
        (upstream, site, gateway)
    };
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    let request =
        "GET /api/v1/socket HTTP/1.1\r\nhost: a.test\r\nx-user-id: alice\r\nconnection: upgrade\r\nupgrade: h3\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("x-tidegate-variant: async\r\n"), "{head}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let upstream = Upstream::start().await;
    let (_site, gateway) = before(upstream.address()).await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    let head =
        "POST /late HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let told = read_until(&mut client, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    client.write_all(b"hello").await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn hints_head_ranges_and_large_headers_pass() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (_site, gateway) = before(&scripted(hints).await).await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(b"GET /x HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut client).await;
    let (first, second) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        first.starts_with("HTTP/1.1 103 ") && first.to_ascii_lowercase().contains("link: </style.css>"),
        "{answer}"
    );
    assert!(second.starts_with("HTTP/1.1 200 ") && second.ends_with("\r\n\r\nok"), "{answer}");

    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1234\r\n\r\n";
    let (_site, gateway) = before(&scripted(head).await).await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    for _ in 0..2 {
        client.write_all(b"HEAD /x HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("content-length: 1234\r\n"), "{answer}");
    }

    let part = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-1/9\r\ncontent-length: 2\r\n\r\nab";
    let (_site, gateway) = before(&scripted(part).await).await;
    let response = gateway.get("/x", "carol").header("range", "bytes=0-1").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-range"]),
        (206, &"bytes 0-1/9".parse().unwrap())
    );
    assert_eq!(response.text().await.unwrap(), "ab");

    let upstream = Upstream::start().await;
    let (_site, gateway) = before(upstream.address()).await;
    let large = "l".repeat(50_000);
    let response =
        gateway.get("/x", "carol").header("x-large", &large).header("range", "bytes=0-1").send().await.unwrap();
    assert_eq!(response.headers()["got-x-large"], large.as_str());
    assert_eq!(response.headers()["got-range"], "bytes=0-1");
}
