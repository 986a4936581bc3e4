//! Plain requests, which the gateway proxies by itself, beside those that it has pingora proxy: nobody can tell which is which.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, interval, timeout};

use crate::faults::BY_PINGORA;
use crate::harness::{DEADLINE, Site, eventually, pair, read_to_end};
use crate::upstream::{RawUpstream, Upstream};

/// Sends `bytes` and hears what comes until the connection ends.
async fn say(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn plain_and_other_requests_take_turns_on_one_connection() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let turns = [
        ("GET /x HTTP/1.1\r\nhost: a\r\nx-turn: 0\r\n\r\n", ""),
        ("GET /x HTTP/1.1\r\nhost: a\r\nx-turn: 1\r\nte: trailers\r\n\r\n", ""),
        ("POST /x HTTP/1.1\r\nhost: a\r\nx-turn: 2\r\ncontent-length: 3\r\n\r\ntwo", "two"),
        (
            "POST /x HTTP/1.1\r\nhost: a\r\nx-turn: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n",
            "three",
        ),
        ("GET http://a/x HTTP/1.1\r\nhost: a\r\nx-turn: 4\r\n\r\n", ""),
        ("GET /x HTTP/1.1\r\nhost: a\r\nx-turn: 5\r\nconnection: keep-alive\r\n\r\n", ""),
        ("POST /x HTTP/1.1\r\nhost: a\r\nx-turn: 6\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nsix", "six"),
        ("POST /x HTTP/1.1\r\nhost: a\r\nx-turn: 7\r\ncontent-length: 5\r\nconnection: close\r\n\r\nseven", "seven"),
    ];
    let all: String = turns.iter().map(|(request, _)| *request).collect();
    let answers = say(gateway.address(), &all).await;
    let mut rest = answers.as_str();
    for (turn, (request, body)) in turns.iter().enumerate() {
        let found = rest.find(&format!("got-x-turn: {turn}\r\n"));
        let place = found.unwrap_or_else(|| panic!("no answer in its turn to {request:?}: {answers}"));
        rest = &rest[place..];
        let next = rest.find("HTTP/1.1 200").unwrap_or(rest.len());
        assert!(rest[..next].contains(body), "{request:?}: {rest}");
    }
}

#[tokio::test]
async fn streams_of_http2_are_answered_either_way() {
    let (stable, _canary, _site, gateway) = pair().await;
    let client = http2();
    let url = format!("{}/x", gateway.http);
    let long = vec![b'x'; 200_000];
    for te in ["", "trailers"] {
        for body in [&b""[..], b"some", &long[..60_000], &long] {
            let mut request = client.post(&url).header("cookie", "a=1").header("cookie", "b=2").body(body.to_vec());
            if body == b"some" {
                request = request.header("proxy-authorization", "Basic c2VjcmV0").header("http2-settings", "x");
            }
            if !te.is_empty() {
                request = request.header("te", te);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let got = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(got("got-cookie").as_deref(), Some("a=1; b=2"), "a server of HTTP/1.1 reads one header");
            assert_eq!(got("got-host").as_deref(), Some(gateway.address()));
            assert!(got("got-proxy-authorization").is_none() && got("got-http2-settings").is_none());
            assert!(got("x-request-id").is_some() && got("connection").is_none() && got("transfer-encoding").is_none());
            assert!(answer.bytes().await.unwrap() == body, "{te} {}", body.len());
        }
        let head = client.head(&url).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0));
    }
    assert_eq!(stable.requests(), 10);
    for (twice, body) in [("4", "four"), ("4", "")] {
        let request = client.post(&url).header("content-length", "4").header("content-length", twice).body(body);
        // Refused, or reset by the library of either side.
        let answer = request.send().await;
        assert!(answer.is_err() || answer.unwrap().status() == 400, "two lengths");
    }
    assert_eq!(stable.requests(), 10);
    let nowhere = client.get(format!("{}/x", gateway.http)).header("host", "b").send().await;
    assert!(nowhere.is_err() || nowhere.unwrap().status() == 400, "one host, not two");
}

/// Asks over HTTP/2 for a body to come back, by windows of 1,000 bytes, and says how much of it came; `None` if it broke off.
/// Each window is given back `pause` after it came, or never.
async fn echoed(address: &str, size: usize, pause: Option<Duration>) -> Option<usize> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(1000).handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/x")).header("content-length", size);
    let (answer, mut body) = client.ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(vec![b'x'; size].into(), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    let mut got = 0;
    let heard = async {
        while let Some(part) = answer.data().await {
            let part = part.ok()?;
            got += part.len();
            if let Some(pause) = pause {
                let mut ticks = interval(pause);
                ticks.tick().await;
                ticks.tick().await;
                answer.flow_control().release_capacity(part.len()).unwrap();
            }
        }
        Some(got)
    };
    let heard = timeout(DEADLINE, heard).await.unwrap();
    connection.abort();
    heard
}

#[tokio::test]
async fn who_takes_a_stream_slowly_gets_it_and_who_takes_nothing_is_let_go() {
    let stable = Upstream::start().await;
    let site = Site::with_servers(stable.address(), stable.address());
    site.configure("[limits]\nwrite_timeout = \"3s\"\n");
    let gateway = site.start().await;
    // Longer than the limit in all, and never as long between two parts.
    let slowly = Some(Duration::from_millis(400));
    let (slow, nothing) =
        tokio::join!(echoed(gateway.address(), 12_000, slowly), echoed(gateway.address(), 12_000, None));
    assert_eq!((slow, nothing), (Some(12_000), None));
}

#[tokio::test]
async fn a_small_body_may_come_after_its_head() {
    let (stable, _canary, _site, gateway) = pair().await;
    // Soon enough to be waited for, and not.
    for pause in [1, 100] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut ticks = interval(Duration::from_millis(pause));
        for part in
            ["POST /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 9\r\n\r\n", "bit", "by", "bit."]
        {
            ticks.tick().await;
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("bitbybit."), "{pause} ms: {answer}");
    }
    assert_eq!(stable.requests(), 2);
}

/// A server that answers the first request of its first connection, and closes it when the second comes.
async fn closing() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut head = [0; 4096];
        for requests in [2, usize::MAX] {
            let (mut stream, _) = listener.accept().await.unwrap();
            for request in 0..requests {
                if stream.read(&mut head).await.unwrap_or(0) == 0 || request == 1 && requests == 2 {
                    break;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await.unwrap();
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_connection_that_a_server_gives_up_costs_only_what_may_not_be_repeated() {
    for (method, headers, second) in
        [("GET", "", 200), ("GET", BY_PINGORA, 200), ("POST", "", 502), ("POST", BY_PINGORA, 502)]
    {
        let (stable, (address, task)) = (Upstream::start().await, closing().await);
        let site = Site::with_servers(stable.address(), &address).without_rescue();
        let gateway = site.start().await;
        for status in [200, second, 200] {
            let request = format!(
                "{method} /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\n{headers}content-length: 0\r\n\
                 connection: close\r\n\r\n"
            );
            let answer = say(gateway.address(), &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {headers}: {answer}");
        }
        let failures = if second == 200 { 0.0 } else { 1.0 };
        eventually("all are charged", || async {
            gateway.outcomes("async", "success").await == 3.0 - failures
                && gateway.outcomes("async", "failure").await == failures
        })
        .await;
        task.abort();
    }
}

/// A server that answers, and hangs up on `/poison`; how often it was asked that.
async fn fragile() -> (String, Arc<AtomicUsize>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let poisoned = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&poisoned);
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut head).await {
                    if head[..length].windows(7).any(|part| part == b"/poison") {
                        counted.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await.unwrap();
                }
            });
        }
    });
    (address, poisoned, task)
}

#[tokio::test]
async fn a_request_that_kills_a_server_is_not_tried_on_all_of_it() {
    let ((stable, by_stable, first), (canary, by_canary, second)) = (fragile().await, fragile().await);
    let site = Site::with_servers(&stable, &canary).without_judge();
    let gateway = site.start().await;
    let ask = async |path: &str, user: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-user-id: {user}\r\nconnection: close\r\n\r\n");
        say(gateway.address(), &request).await
    };
    // Many connections are kept by then.
    join_all((0..40).map(async |turn| ask("/api/v1/x", if turn % 2 == 0 { "alice" } else { "carol" }).await)).await;
    let answer = ask("/api/v1/poison", "alice").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    // Once on a connection that was kept, and once on a new one.
    let tries = (by_canary.load(Ordering::SeqCst), by_stable.load(Ordering::SeqCst));
    assert!(matches!(tries, (1..=2, 1..=2)), "the canary and stable were asked {tries:?} times");
    first.abort();
    second.abort();
}

/// What a client gets of a server's answer to a request by `method`: this, and not that.
async fn check(method: &str, answer: &'static str, there: &[&str], gone: &[&str]) {
    let upstream = RawUpstream::start(Some(answer.as_bytes())).await;
    let site = Site::with_servers(upstream.address(), upstream.address());
    let gateway = site.start().await;
    for headers in ["", BY_PINGORA] {
        let request = format!("{method} /x HTTP/1.1\r\nhost: a\r\n{headers}connection: close\r\n\r\n");
        let heard = say(gateway.address(), &request).await;
        let lower = heard.to_ascii_lowercase();
        for part in there {
            assert!(lower.contains(part), "{headers:?} {answer:?}: no {part:?} in {heard}");
        }
        // pingora leaves some of it; what is held to it here is what the gateway does by itself.
        for part in gone.iter().filter(|_| headers.is_empty()) {
            assert!(!lower.contains(part), "{answer:?}: {part:?} in {heard}");
        }
    }
    let request = http2().request(method.parse().unwrap(), format!("{}/x", gateway.http));
    let heard = request.send().await.unwrap();
    let of_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding"];
    assert!(of_connection.iter().all(|name| !heard.headers().contains_key(*name)), "{answer:?}: {heard:?}");
    let body = if answer.contains("all") { "all" } else { "" };
    assert_eq!(heard.text().await.unwrap(), body, "{answer:?} over HTTP/2");
}

fn http2() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn a_stream_whose_answer_breaks_off_does_not_look_whole() {
    let broken = [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ];
    for answer in broken {
        let (stable, canary) = (Upstream::start().await, RawUpstream::start(Some(answer.as_bytes())).await);
        let gateway = Site::with_servers(stable.address(), canary.address()).start().await;
        for te in [None, Some("trailers")] {
            let request = http2().get(format!("{}/api/v1/x", gateway.http)).header("x-user-id", "alice");
            let request = te.into_iter().fold(request, |request, te| request.header("te", te));
            let heard = match request.send().await {
                Ok(begun) => begun.text().await,
                Err(error) => Err(error),
            };
            assert!(heard.is_err(), "{answer:?} {te:?}: {heard:?}");
        }
        eventually("both are charged", || async { gateway.outcomes("async", "failure").await == 2.0 }).await;
        assert_eq!(stable.requests(), 0, "an answer that has begun is not begun anew");
    }
}

#[tokio::test]
async fn an_answer_s_end_is_told_as_the_client_understands_it() {
    check("GET", "HTTP/1.0 200 OK\r\n\r\nall", &["transfer-encoding: chunked\r\n", "\r\n3\r\nall\r\n0\r\n\r\n"], &[])
        .await;
    check(
        "GET",
        "HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n03;a=b\r\nall\r\n0\r\nx-sum: 1\r\n\r\n",
        &["http/1.1 200 fine\r\n", "transfer-encoding: chunked\r\n", "\r\n3\r\nall\r\n0\r\n\r\n"],
        &["x-sum", "a=b"],
    )
    .await;
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n";
    check("GET", both, &["transfer-encoding: chunked\r\n"], &["content-length"]).await;
    check("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", &["content-length: 9\r\n"], &["chunked"]).await;
    check("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", &["http/1.1 304"], &["chunked"]).await;
    check("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n", &["http/1.1 204"], &["content-length"]).await;
}

#[tokio::test]
async fn headers_of_the_server_s_connection_stay_there() {
    check(
        "GET",
        "HTTP/1.1 200 OK\r\nX-One:  1\r\nx-two: a\r\n b\r\nset-cookie: a\r\nset-cookie: b\r\nconnection: keep-alive\r\n\
         keep-alive: timeout=5\r\nproxy-connection: x\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\nx-request-id: mine\r\n\
         content-length: 3\r\n\r\nall",
        &["x-one: 1\r\n", "set-cookie: a\r\n", "set-cookie: b\r\n", "connection: close\r\n", "\r\n\r\nall"],
        &["keep-alive", "proxy-connection", "mine", "\r\n b"],
    )
    .await;
    let announced = "HTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
                     HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\ncontent-length: 3\r\n\r\nall";
    check("GET", announced, &["http/1.1 103 ", "link: x\r\n"], &["content-length: 5", "chunked", "3, 3"]).await;
    let old = "HTTP/1.1 200 OK\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\ncontent-length: 0\r\n\r\n";
    check("GET", old, &["\r\ndate: "], &[]).await;
    check("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", &["\r\ndate: "], &[]).await;
}

/// A server that answers once, and what it hears after that.
async fn once() -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await.unwrap();
        stream.read(&mut head).await.unwrap()
    });
    (address, server)
}

#[tokio::test]
async fn connections_to_servers_are_closed_when_nobody_needs_them() {
    let (address, server) = once().await;
    let site = Site::with_servers(&address, &address);
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    site.write("tidegate.toml", &config.replace("connect = \"5s\"", "connect = \"5s\", idle = \"100ms\""));
    let gateway = site.start().await;
    let answer = say(gateway.address(), "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("good"), "{answer}");
    assert_eq!(timeout(DEADLINE, server).await.unwrap().unwrap(), 0, "the gateway ends the connection");
}

#[tokio::test]
async fn connections_to_servers_of_no_backend_any_more_are_closed() {
    let ((address, server), stable) = (once().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), stable.address());
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    let more = "[[routes]]\npath = \"/extra\"\nbackend = \"extra\"\n[[routes]]\npath = \"/\"\nbackend = \"sync\"\n";
    site.write("tidegate.toml", &format!("{config}[backends.extra]\nservers = [\"{address}\"]\n{more}"));
    let gateway = site.start().await;
    let answer = say(gateway.address(), "GET /extra HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("good"), "{answer}");
    site.write("tidegate.toml", &config);
    gateway.signal("HUP").await;
    assert_eq!(timeout(DEADLINE, server).await.unwrap().unwrap(), 0, "the gateway ends the connection");
}

#[tokio::test]
async fn a_line_end_too_many_may_come_in_halves() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut ticks = interval(Duration::from_millis(20));
    let first = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\none\r";
    for part in [first, "\nGET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"] {
        ticks.tick().await;
        stream.write_all(part.as_bytes()).await.unwrap();
    }
    let answers = read_to_end(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
}
