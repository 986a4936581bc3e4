//! Plain requests, which the gateway proxies by itself, beside those that it has pingora proxy: nobody can tell which is which.

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
    let old = "HTTP/1.1 200 OK\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\ncontent-length: 0\r\n\r\n";
    check("GET", old, &["\r\ndate: "], &[]).await;
    check("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", &["\r\ndate: "], &[]).await;
}

#[tokio::test]
async fn connections_to_servers_are_closed_when_nobody_needs_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await.unwrap();
        stream.read(&mut head).await.unwrap()
    });
    let site = Site::with_servers(&address, &address);
    let config = std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap();
    site.write("tidegate.toml", &config.replace("connect = \"5s\"", "connect = \"5s\", idle = \"100ms\""));
    let gateway = site.start().await;
    let answer = say(gateway.address(), "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("good"), "{answer}");
    assert_eq!(timeout(DEADLINE, server).await.unwrap().unwrap(), 0, "the gateway ends the connection");
}
