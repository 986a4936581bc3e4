//! What becomes of a request on its way through.

use axum::http::HeaderMap;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Gateway, Site, eventually, flag_text, header, pair, problem, read_to_end};
use crate::upstream::{RawUpstream, Upstream, nobody};

#[tokio::test]
async fn the_upstream_is_told_what_was_decided_and_the_client_cannot_say_it() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let forged = |request: reqwest::RequestBuilder| {
        request.header("x-tidegate-flag", "forged").header("x-tidegate-variant", "forged")
    };
    let response = forged(gateway.get("/api/v1/x", "alice")).send().await.unwrap();
    assert_eq!(header(response.headers(), "got-x-tidegate-flag"), Some("async-database"));
    assert_eq!(header(response.headers(), "got-x-tidegate-variant"), Some("async"));
    assert_eq!(header(response.headers(), "x-tidegate-variant"), Some("async"), "not what the upstream says");
    assert_eq!(
        header(response.headers(), "x-request-id"),
        header(response.headers(), "got-x-request-id"),
        "one id for the client, the log and the upstream"
    );

    let response = forged(gateway.get("/elsewhere", "alice")).send().await.unwrap();
    assert_eq!(header(response.headers(), "got-x-tidegate-flag"), None);
    assert_eq!(header(response.headers(), "got-x-tidegate-variant"), None);
    assert_eq!(header(response.headers(), "x-tidegate-variant"), None);
}

#[tokio::test]
async fn bodies_of_any_size_pass_untouched_both_ways() {
    let (_stable, canary, _site, gateway) = pair().await;
    for size in [0, 1, 70_000, 20_000_000] {
        let body: Vec<u8> = (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let url = format!("{}/api/v1/x", gateway.http);
        let response = gateway.client.post(url).header("x-user-id", "bob").body(body.clone()).send().await.unwrap();
        assert_eq!(response.bytes().await.unwrap(), body, "{size} bytes");
    }
    assert_eq!(canary.requests(), 4);
}

#[tokio::test]
async fn a_body_in_chunks_stays_one() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let request = "POST /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let text: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(text, "hello world", "{body:?}");
}

#[tokio::test]
async fn connections_are_kept_both_ways() {
    let (stable, _canary, _site, gateway) = pair().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let requests = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let length = timeout(DEADLINE, stream.read(&mut answer)).await.unwrap().unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!((stable.requests(), stable.connections()), (3, 1));
}

#[tokio::test]
async fn a_user_is_named_by_header_or_cookie_and_otherwise_gets_a_lasting_key() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let url = format!("{}/api/v1/x", gateway.http);
    let variant = |headers: &HeaderMap| header(headers, "x-tidegate-variant").unwrap().to_owned();

    let by_cookie = gateway.client.get(&url).header("cookie", "a=b; uid=alice").send().await.unwrap();
    assert_eq!(variant(by_cookie.headers()), "async");
    assert_eq!(header(by_cookie.headers(), "set-cookie"), None);

    let mut canaries = 0;
    for _ in 0..40 {
        let first = gateway.client.get(&url).send().await.unwrap();
        let cookie = header(first.headers(), "set-cookie").unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax"), "{cookie}");
        let id = cookie.split(['=', '.']).nth(1).unwrap();
        let forged = gateway.client.get(&url).header("cookie", format!("tidegate_id={id}")).send().await.unwrap();
        assert!(header(forged.headers(), "set-cookie").is_some(), "an id without its signature is replaced");
        let pair = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let again = gateway.client.get(&url).header("cookie", pair).send().await.unwrap();
            assert_eq!(variant(again.headers()), variant(first.headers()));
            assert_eq!(header(again.headers(), "set-cookie"), None);
        }
        canaries += usize::from(variant(first.headers()) == "async");
    }
    assert!(canaries < 20, "{canaries} of 40 at 10 %");

    let elsewhere = gateway.client.get(format!("{}/x", gateway.http)).send().await.unwrap();
    assert_eq!(header(elsewhere.headers(), "set-cookie"), None, "where nothing is decided, nobody needs a key");
}

#[tokio::test]
async fn only_a_trusted_proxy_may_name_users() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let identity = "[identity]\nanonymous = \"stable\"\ntrusted_proxies = [\"192.0.2.0/24\"]\n";
    site.configure(identity);
    let gateway = site.start().await;
    let response = gateway.get("/api/v1/x", "alice").header("x-request-id", "mine").send().await.unwrap();
    assert_eq!(header(response.headers(), "x-tidegate-variant"), Some("sync"), "not alice's");
    assert_eq!(header(response.headers(), "got-x-user-id"), None, "dropped on the way in");
    assert_ne!(header(response.headers(), "x-request-id"), Some("mine"));
    assert_eq!(header(response.headers(), "set-cookie"), None);
}

#[tokio::test]
async fn routes_go_by_host_and_longest_path() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let routes = "[[routes]]\npath = \"/api\"\nbackend = \"sync\"\n[[routes]]\npath = \"/api/v2\"\nbackend = \"async\"\n\
                  [[routes]]\nhost = \"canary.test\"\npath = \"/\"\nbackend = \"async\"\n";
    site.configure(routes);
    let gateway = site.start().await;
    let ask = async |host: &str, path: &str| {
        let request = gateway.client.get(format!("{}{path}", gateway.http)).header("host", host);
        request.send().await.unwrap()
    };
    assert_eq!(ask("a.test", "/api/v1").await.status(), 200);
    assert_eq!((stable.requests(), canary.requests()), (1, 0));
    assert_eq!(ask("a.test", "/api/v2/x").await.status(), 200);
    assert_eq!(ask("canary.test:80", "/api/v1").await.status(), 200);
    assert_eq!((stable.requests(), canary.requests()), (1, 2));
    problem(ask("a.test", "/apiary").await, 404, "no-route").await;
    assert_eq!((stable.requests(), canary.requests()), (1, 2));
}

/// What a client gets of a canary at `address` that has `read` to answer, and what is charged for it: failures and uncounted requests.
async fn exchange(address: &str, read: &str, kind: &str, status: u16) -> (f64, f64) {
    let stable = Upstream::start().await;
    let site = Site::with_impatience(stable.address(), address, read).without_rescue();
    let gateway = site.start().await;
    let response = gateway.get("/api/v1/x", "alice").send().await.unwrap();
    let id = header(response.headers(), "x-request-id").unwrap().to_owned();
    problem(response, status, kind).await;
    eventually("the log tells of the request by its id", || async { site.log().contains(&id) }).await;
    let count = async |outcome: &str| gateway.outcomes("async", outcome).await;
    eventually("the outcome is charged", || async { count("failure").await + count("not_counted").await > 0.0 }).await;
    (count("failure").await, count("not_counted").await)
}

#[tokio::test]
async fn a_backend_that_fails_is_told_as_such_and_charged_once() {
    let (address, _bound) = nobody();
    assert_eq!(exchange(&address, "30s", "upstream-connect", 502).await, (1.0, 0.0));
    let silent = RawUpstream::start(None).await;
    assert_eq!(exchange(silent.address(), "300ms", "upstream-timeout", 504).await, (1.0, 0.0));
    let garbage = RawUpstream::start(Some(b"what?\r\n\r\n")).await;
    assert_eq!(exchange(garbage.address(), "30s", "upstream-broken", 502).await, (1.0, 0.0));
    let closing = RawUpstream::start(Some(b"")).await;
    assert_eq!(exchange(closing.address(), "30s", "upstream-broken", 502).await, (1.0, 0.0));
    assert_eq!(exchange("unix:/nonexistent/app.sock", "30s", "upstream-connect", 502).await, (1.0, 0.0));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_and_no_second_answer() {
    let broken = RawUpstream::start(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")).await;
    let stable = Upstream::start().await;
    let site = Site::with_servers(stable.address(), broken.address());
    let gateway = site.start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"GET /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\n\r\n").await.unwrap();
    // What had come is passed on if there was the time for it. However much that is, it never ends as a whole answer: its
    // length is missing, or the client is told of the failure, or nothing at all.
    let answer = read_to_end(&mut stream).await;
    let told = match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => {
            head.to_ascii_lowercase().contains("content-length: 100") && "half".starts_with(body)
        }
        Some((head, _)) => head.starts_with("HTTP/1.1 502 "),
        None => "HTTP/1.1 200 ".starts_with(answer.get(..13).unwrap_or_default()),
    };
    assert!(told, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), usize::from(!answer.is_empty()), "no second answer: {answer}");
    eventually("the failure is charged", || async { gateway.outcomes("async", "failure").await == 1.0 }).await;
    assert_eq!(stable.requests(), 0, "nobody else was asked");
}

#[tokio::test]
async fn a_client_that_hangs_up_is_nobodys_failure() {
    let (_stable, canary, _site, gateway) = pair().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"GET /api/v1/slow HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\n\r\n").await.unwrap();
    eventually("the request is under way", || async { canary.requests() == 1 }).await;
    drop(stream);
    let count = async |outcome: &str| gateway.outcomes("async", outcome).await;
    eventually("it is charged", || async { count("not_counted").await == 1.0 }).await;
    assert_eq!(count("failure").await, 0.0);
}

#[tokio::test]
async fn a_client_that_stalls_its_upload_is_nobodys_failure() {
    let (stable, canary) = (Upstream::start().await, RawUpstream::start(None).await);
    let site = Site::with_impatience(stable.address(), canary.address(), "200ms");
    let gateway = site.start().await;
    let mut stalled = Vec::new();
    for _ in 0..25 {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let request = "POST /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: alice\r\ncontent-length: 8\r\n\r\nhalf";
        stream.write_all(request.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    for mut stream in stalled {
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    eventually("all are charged", || async { gateway.outcomes("async", "not_counted").await == 25.0 }).await;
    assert_eq!(gateway.flag().await["phase"], "manual");
}

#[tokio::test]
async fn names_that_could_be_taken_for_ours_are_dropped() {
    let (_stable, _canary, site, gateway) = pair().await;
    let ask = async |gateway: &Gateway, headers: &str| {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let request = format!("GET /api/v1/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await.to_ascii_lowercase()
    };
    let answer = ask(&gateway, "X_Tidegate_Variant: forged\r\nx-tidegate_flag: forged\r\nx-user-id: alice\r\n").await;
    assert!(!answer.contains("forged") && answer.contains("got-x-user-id: alice"), "{answer}");
    for name in ["content_length", "transfer_encoding"] {
        let request = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let request = request.get(format!("{}/x", gateway.http)).header(name, "30").send().await.unwrap();
        assert_eq!(
            header(request.headers(), &format!("got-{name}")),
            None,
            "a backend of CGI would take it for the length"
        );
    }
    let twice = ask(&gateway, "x-user-id: alice\r\nx-user-id: bob\r\n").await;
    assert!(twice.contains("set-cookie: tidegate_id="), "two users are nobody: {twice}");
    gateway.kill().await;

    site.configure("[identity]\ntrusted_proxies = []\n");
    let gateway = site.start().await;
    let answer = ask(&gateway, "x_user_id: alice\r\nX-User_Id: alice\r\nx-other: kept\r\n").await;
    assert!(!answer.contains("alice") && answer.contains("got-x-other: kept"), "{answer}");
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let (stable, _canary, _site, gateway) = pair().await;
    for head in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400", "{head:?}");
    }
    assert_eq!(stable.requests(), 0);
}

#[tokio::test]
async fn statuses_are_charged_as_what_they_are() {
    let (_stable, canary, _site, gateway) = pair().await;
    for status in [200, 404, 499, 500, 503] {
        canary.answer_with(status);
        let request = gateway.client.post(format!("{}/api/v1/x", gateway.http)).header("x-user-id", "alice");
        assert_eq!(request.send().await.unwrap().status().as_u16(), status);
    }
    let arm = || async { gateway.flag().await["arms"]["canary"].clone() };
    eventually("all are charged", || async { arm().await["requests"] == 5 }).await;
    let arm = arm().await;
    assert_eq!(arm["failures"], 2);
    assert_eq!(arm["error_rate"], json!(0.4));
    assert!(arm["p50_ms"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn without_a_key_the_canary_is_served_at_100_only() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    site.configure("[identity]\nanonymous = \"stable\"\n");
    site.write("flags/async-database.toml", &flag_text(99.999));
    let gateway = site.start().await;
    let url = format!("{}/api/v1/x", gateway.http);
    let variant = async || {
        let response = gateway.client.get(&url).send().await.unwrap();
        header(response.headers(), "x-tidegate-variant").unwrap().to_owned()
    };
    assert_eq!(variant().await, "sync");
    assert_eq!(gateway.set(100.0).await.status(), 200);
    assert_eq!(variant().await, "async");
}
