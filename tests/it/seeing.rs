//! What is told of requests: the access log, the trace that backends hear of, and spans.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Gateway, Site, eventually, header, read_to_end, stderr};
use crate::upstream::Upstream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A stable upstream, a canary that fails `/fail`, and a gateway before them.
async fn gateway(more: &str) -> (Upstream, Upstream, Site, Gateway) {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    site.configure(more);
    let gateway = site.start().await;
    (stable, canary, site, gateway)
}

/// The lines of the access log, once there are `count`.
async fn lines(site: &Site, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(site.path().join("access.log")).unwrap_or_default();
    eventually("the lines are written", || async { read().lines().count() >= count }).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_request_is_a_line_that_names_nobody() {
    let (stable, canary, site, gateway) = gateway(
        "[access_log]\nto = \"file:access.log\"\n[identity]\nsources = [\"header:x-user-id\", \"query:user\"]\n",
    )
    .await;
    let url = format!("{}/api/v1/secret-path?user=alice&q=secret-query", gateway.http);
    let request = gateway.client.post(&url).header("x-request-id", "the-id").bearer_auth("secret-token");
    let response = request.header("cookie", "s=secret-cookie").body("secret-body").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "secret-body");
    let read = lines(&site, 1).await;
    let line = &read[0];
    for (field, expected) in [
        ("request_id", Value::from("the-id")),
        ("method", "POST".into()),
        ("route", "/api/v1/".into()),
        ("protocol", "HTTP/1.1".into()),
        ("tls", false.into()),
        ("flag", "async-database".into()),
        ("variant", "async".into()),
        ("reason", "BETA".into()),
        ("upstream", canary.address().into()),
        ("status", 200.into()),
        ("outcome", "success".into()),
        ("rescued", false.into()),
        ("bytes_in", 11.into()),
        ("bytes_out", 11.into()),
    ] {
        assert_eq!(line[field], expected, "{field}: {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() >= line["upstream_ms"].as_f64().unwrap(), "{line}");
    assert!(line["at"].as_str().unwrap().ends_with('Z'), "{line}");

    canary.answer_with(500);
    assert_eq!(gateway.get("/api/v1/x", "bob").send().await.unwrap().status(), 200);
    assert_eq!(gateway.get("/nowhere", "bob").send().await.unwrap().status(), 200);
    let read = lines(&site, 3).await;
    assert_eq!((&read[1]["rescued"], &read[1]["variant"]), (&true.into(), &"sync".into()), "{}", read[1]);
    assert_eq!((&read[1]["upstream"], &read[1]["outcome"]), (&stable.address().into(), &"success".into()));
    assert!(read[2].get("flag").is_none(), "{}", read[2]);

    std::fs::rename(site.path().join("access.log"), site.path().join("access.log.1")).unwrap();
    eventually("it goes on in a new file", || async {
        gateway.get("/x", "carol").send().await.unwrap();
        site.path().join("access.log").exists()
    })
    .await;
    let all =
        ["access.log", "access.log.1", "log"].map(|name| std::fs::read_to_string(site.path().join(name)).unwrap());
    for secret in ["alice", "bob", "carol", "secret"] {
        assert!(!all.concat().contains(secret), "{secret}");
    }
    assert_eq!(gateway.metric("tidegate_access_log_lost_total").await, 0.0);
}

#[tokio::test]
async fn who_is_turned_away_is_a_line_too() {
    let (_stable, _canary, site, gateway) = gateway(
        "[access_log]\nto = \"file:access.log\"\n[limits]\nconnections_per_address = 1\n\
         [identity]\ntrusted_proxies = []\n",
    )
    .await;
    let mut bad = TcpStream::connect(gateway.address()).await.unwrap();
    let mut second = TcpStream::connect(gateway.address()).await.unwrap();
    let told = read_to_end(&mut second).await;
    assert!(told.starts_with("HTTP/1.1 429"), "{told}");
    bad.write_all(b"GET /secret\r\n\r\n").await.unwrap();
    let refused = read_to_end(&mut bad).await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    let read = lines(&site, 2).await;
    for (line, answer, status, error) in
        [(&read[0], &told, 429, "too-many-connections"), (&read[1], &refused, 400, "bad-request")]
    {
        assert_eq!((&line["status"], &line["error"], &line["tls"]), (&status.into(), &error.into(), &false.into()));
        let id = line["request_id"].as_str().unwrap();
        assert!(answer.contains(&format!("x-request-id: {id}\r\n")), "{line} {answer}");
        assert_eq!(line.as_object().unwrap().len(), 5, "{line}");
    }
}

#[tokio::test]
async fn paths_and_clients_are_told_where_that_is_asked_for() {
    let more = "[access_log]\nto = \"file:access.log\"\ninclude = [\"path\", \"client\"]\n";
    let (_stable, _canary, site, gateway) = gateway(more).await;
    gateway.get("/api/v1/x?y=z", "alice").send().await.unwrap();
    let read = lines(&site, 1).await;
    assert_eq!((&read[0]["path"], &read[0]["client"]), (&"/api/v1/x".into(), &"127.0.0.1".into()));

    let site = Site::builtin();
    site.configure("[access_log]\nto = \"syslog\"\ninclude = [\"body\"]\n[tracing]\nendpoint = \"https://a.test\"\n");
    let error = stderr(&site.run(&["check"]).await, 1);
    for expected in ["\"file:PATH\"", "there are \"path\" and \"client\"", "no address of a collector"] {
        assert!(error.contains(expected), "{error}");
    }
    let site = Site::builtin();
    site.configure("[access_log]\nto = \"file:none/access.log\"\n");
    for command in ["check", "serve"] {
        assert!(stderr(&site.run(&[command]).await, 1).contains("none/access.log"), "{command}");
    }
}

#[tokio::test]
async fn a_trace_is_passed_on_or_begun() {
    let (_stable, _canary, _site, gateway) = gateway("").await;
    let told = async |given: &[&str]| {
        let mut request = gateway.get("/api/v1/x", "alice").header("tracestate", "a=b");
        for given in given {
            request = request.header("traceparent", *given);
        }
        let response = request.send().await.unwrap();
        let value = |name: &str| header(response.headers(), name).map(str::to_owned);
        (value("got-traceparent").unwrap(), value("got-tracestate"))
    };
    let good = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(told(&[&good]).await, (good.clone(), Some("a=b".to_owned())));
    for wrong in [vec![], vec!["00-1-2-01"], vec![good.as_str(), good.as_str()]] {
        let (begun, state) = told(&wrong).await;
        assert!(begun.starts_with("00-") && begun.ends_with("-01") && begun.len() == 55, "{begun}");
        assert!(!begun.contains(TRACE), "{begun}");
        assert_eq!(state, None, "it belonged to another trace");
    }
}

/// A stand-in for a collector, and what it was sent.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&got);
    let router = Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| async move {
            taken.lock().extend_from_slice(&body);
            StatusCode::OK
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, got)
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(digits).collect()
}

fn holds(got: &Mutex<Vec<u8>>, wanted: &[u8]) -> bool {
    got.lock().windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_collector_is_told_of_the_gateway_s_part() {
    let (address, got) = collector().await;
    let more = format!("[tracing]\nendpoint = \"{address}\"\nsample = \"0%\"\nservice = \"edge-of-test\"\n");
    let (_stable, _canary, _site, gateway) = gateway(&more).await;
    let ask = async |flags: &str| {
        let given = format!("00-{TRACE}-{PARENT}-{flags}");
        let response = gateway.get("/api/v1/x?q=secret", "alice").header("traceparent", given).send().await.unwrap();
        header(response.headers(), "got-traceparent").unwrap().to_owned()
    };
    let recorded = ask("01").await;
    assert!(recorded.starts_with(&format!("00-{TRACE}-")) && recorded.ends_with("-01"), "{recorded}");
    let own = &recorded[36..52];
    assert_ne!(own, PARENT);
    let unrecorded = ask("00").await;
    assert!(unrecorded.ends_with("-00"), "{unrecorded}");
    eventually("the span is sent", || async { holds(&got, &bytes(own)) }).await;
    for expected in ["edge-of-test", "GET /api/v1/", "feature_flag.key", "async-database", "BETA"] {
        assert!(holds(&got, expected.as_bytes()), "{expected}");
    }
    assert!(holds(&got, &bytes(TRACE)) && holds(&got, &bytes(PARENT)));
    for secret in ["alice", "secret"] {
        assert!(!holds(&got, secret.as_bytes()), "{secret}");
    }
    assert!(!holds(&got, &bytes(&unrecorded[36..52])));
    assert_eq!(gateway.metric("tidegate_spans_lost_total").await, 0.0);
}

#[tokio::test]
async fn a_collector_that_is_down_costs_spans_and_nothing_else() {
    let (_stable, _canary, site, gateway) = gateway("[tracing]\nendpoint = \"http://127.0.0.1:9\"\n").await;
    eventually("what it did not take is counted", || async {
        assert_eq!(gateway.get("/api/v1/x", "alice").send().await.unwrap().status(), 200);
        gateway.metric("tidegate_spans_lost_total").await > 0.0
    })
    .await;
    assert!(site.log().contains("the collector does not take spans"));
}
