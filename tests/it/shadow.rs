//! Copies of stable's requests for the canary, whose answers nobody gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Gateway, Site, eventually, flag_text, header, stdout};

/// A service that answers JSON, and keeps what it was asked.
struct Service {
    address: String,
    asked: Arc<Mutex<Vec<(String, HeaderMap, usize)>>>,
    /// How many requests it is answering.
    answering: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Service {
    /// Answers the nth request with `answer(n, path)`.
    async fn start(answer: impl Fn(usize, &str) -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::with_gate(answer, Semaphore::MAX_PERMITS).await
    }

    /// The same, for no more than `open` requests until the gate is opened further.
    async fn with_gate(answer: impl Fn(usize, &str) -> Response + Clone + Send + Sync + 'static, open: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, answering) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(open));
        let kept = (Arc::clone(&asked), Arc::clone(&answering), Arc::clone(&gate));
        let handler = move |request: Request| {
            let ((asked, answering, gate), answer) = (kept.clone(), answer.clone());
            async move {
                answering.fetch_add(1, Ordering::SeqCst);
                let (parts, body) = request.into_parts();
                let length = axum::body::to_bytes(body, usize::MAX).await.unwrap().len();
                let number = {
                    let mut asked = asked.lock().unwrap();
                    asked.push((parts.uri.path().to_owned(), parts.headers, length));
                    asked.len()
                };
                gate.acquire().await.unwrap().forget();
                answer(number, parts.uri.path())
            }
        };
        let router = Router::new().fallback(handler);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, answering, gate, task }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The headers of the requests for `path`.
    fn headers(&self, path: &str) -> Vec<HeaderMap> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(asked, ..)| asked == path).map(|(_, headers, _)| headers.clone()).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json; charset=utf-8");
    response.body(Body::from(body.to_string())).unwrap()
}

/// A gateway whose flag sends everyone to stable and says `shadow`.
async fn gateway(stable: &Service, canary: &Service, shadow: &str) -> (Site, Gateway) {
    let site = Site::with_servers(&stable.address, &canary.address);
    site.write("flags/async-database.toml", &format!("{}[shadow]\n{shadow}", flag_text(0.0)));
    let gateway = site.start().await;
    (site, gateway)
}

async fn ask(gateway: &Gateway, path: &str) -> Value {
    let response = gateway.get(path, "carol").send().await.unwrap();
    response.json().await.unwrap()
}

async fn diffs(gateway: &Gateway) -> Value {
    gateway.admin_json(&format!("/api/v1/flags/{FLAG}/diffs")).await
}

async fn ended(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("tidegate_shadow_requests_total{{flag=\"{FLAG}\",result=\"{result}\"}}")).await
}

fn verdicts(diffs: &Value) -> Vec<(&str, &str)> {
    let found = diffs["differences"].as_array().unwrap().iter();
    found.map(|place| (place["place"].as_str().unwrap(), place["verdict"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn differences_are_found_and_stables_own_noise_is_taken_out() {
    let document = |id: usize, total: Value| json!({"at": id, "id": 7, "lines": [{"n": 1, "cost": total}]});
    let stable = Service::start(move |number, _| answer(200, &document(number, json!(5)))).await;
    let canary = Service::start(move |number, _| answer(200, &document(number + 1_000_000, json!("5")))).await;
    let (site, gateway) = gateway(&stable, &canary, "percentage = 100\nnoise = 100\nignore = [\"/id\"]\n").await;
    for number in 0..40 {
        let body = ask(&gateway, &format!("/api/v1/orders/{number}")).await;
        assert_eq!(body["lines"][0]["cost"], 5, "users get stable's answers only");
        // One after the other, so that none is left out for want of room.
        let compared = async || diffs(&gateway).await["compared"] == number + 1;
        eventually("the copies were compared", compared).await;
    }
    let found = diffs(&gateway).await;
    assert_eq!(verdicts(&found), [("/lines/*/cost", "different"), ("/at", "noise")], "{found}");
    assert_eq!(found["differences"][0]["detail"], "a number and a string");
    assert_eq!((found["compared_noise"].clone(), found["results"]["different"].clone()), (json!(40), json!(40)));
    assert_eq!(found["state"], "copying");
    let sample = &found["samples"][0];
    assert_eq!((&sample["place"], &sample["stable_status"]), (&json!("/lines/*/cost"), &json!(200)));
    assert!(!found.to_string().contains("1000001"), "values may be somebody's data: {found}");
    assert_eq!(ended(&gateway, "different").await, 40.0);

    // A copy says that it is one, and which request it is of.
    let copy = canary.headers("/api/v1/orders/39").pop().unwrap();
    assert_eq!((header(&copy, "x-tidegate-shadow"), header(&copy, "x-user-id")), (Some("1"), Some("carol")));
    let id = sample["request_id"].as_str().unwrap();
    assert_eq!(header(&copy, "x-request-id"), Some(format!("{id}-shadow-canary").as_str()));
    let twice = stable.headers("/api/v1/orders/39");
    let marks: Vec<_> = twice.iter().map(|headers| header(headers, "x-tidegate-shadow")).collect();
    assert_eq!(marks, [None, Some("1")]);

    // Nothing of it is evidence.
    assert_eq!(gateway.outcomes("async", "success").await, 0.0);
    assert_eq!(gateway.outcomes("sync", "success").await, 40.0);
    let told = stdout(&gateway.cli(&site, &["diffs", FLAG]).await);
    assert!(told.starts_with("async-database, release 1: 100 % of what sync answers is copied to async\n"), "{told}");
    let row = "/lines/*/cost  a number and a string  different  40 of 40 (100.00 %)     0 of 40 (0.00 %)";
    assert!(told.contains(row), "{told}");

    // What is ignored from now on is not shown any more; another release begins anew.
    let text = format!("{}[shadow]\npercentage = 100\nignore = [\"/id\", \"/lines\"]\n", flag_text(0.0));
    site.write("flags/async-database.toml", &text);
    eventually("the place is gone", || async { verdicts(&diffs(&gateway).await) == [("/at", "noise")] }).await;
    site.write("flags/async-database.toml", &text.replace("release = \"1\"", "release = \"2\""));
    eventually("nothing is known", || async { diffs(&gateway).await["compared"] == 0 }).await;
    assert_eq!(ended(&gateway, "different").await, 40.0, "counters only grow");
}

#[tokio::test]
async fn a_stalled_canary_is_waited_for_by_nobody_and_bounded() {
    let stable = Service::start(|_, _| answer(200, &json!({}))).await;
    let canary = Service::with_gate(|_, _| answer(200, &json!({})), 0).await;
    let shadow = "percentage = 100\nnoise = 0\nmax_in_flight = 3\n";
    let (_site, gateway) = gateway(&stable, &canary, shadow).await;
    for number in 0..10 {
        timeout(DEADLINE, ask(&gateway, &format!("/api/v1/{number}"))).await.unwrap();
    }
    eventually("three copies are under way", || async { canary.asked() == 3 }).await;
    assert_eq!(ended(&gateway, "skipped_in_flight").await, 7.0);
    assert_eq!(canary.answering.load(Ordering::SeqCst), 3);
    canary.gate.add_permits(100);
    eventually("they are compared", || async { ended(&gateway, "same").await == 3.0 }).await;
    ask(&gateway, "/api/v1/x").await;
    eventually("there is room again", || async { ended(&gateway, "same").await == 4.0 }).await;
}

#[tokio::test]
async fn only_what_fits_is_copied() {
    let body = |path: &str| match path {
        "/api/v1/long" => json!("x".repeat(2000)),
        _ => json!("short"),
    };
    let stable = Service::start(move |_, path| answer(200, &body(path))).await;
    let canary = Service::start(move |_, path| answer(200, &body(path))).await;
    let shadow = "percentage = 100\nnoise = 0\nmethods = [\"GET\", \"POST\"]\nmax_body = \"1KiB\"\n";
    let (_site, gateway) = gateway(&stable, &canary, shadow).await;
    let post = |size: usize| {
        let request = gateway.client.post(format!("{}/api/v1/post", gateway.http)).header("x-user-id", "carol");
        request.body(vec![b'x'; size]).send()
    };
    assert_eq!(ask(&gateway, "/api/v1/long").await.as_str().unwrap().len(), 2000, "the user gets all of it");
    assert_eq!(post(1025).await.unwrap().status(), 200);
    eventually("both are left out", || async { ended(&gateway, "skipped_body").await == 2.0 }).await;
    assert_eq!(post(1024).await.unwrap().status(), 200);
    eventually("this one fits", || async { ended(&gateway, "same").await == 1.0 }).await;
    assert_eq!(canary.asked.lock().unwrap()[0].2, 1024, "the body is copied too");

    // What asks about the client's own copy, and methods that are not named, are none of the share.
    gateway.get("/api/v1/x", "carol").header("if-none-match", "\"a\"").send().await.unwrap();
    let delete = gateway.client.delete(format!("{}/api/v1/x", gateway.http)).header("x-user-id", "carol");
    assert_eq!(delete.send().await.unwrap().status(), 200);
    // Neither is what the canary answers itself.
    gateway.get("/api/v1/x", "alice").send().await.unwrap();
    ask(&gateway, "/api/v1/last").await;
    eventually("the last is copied", || async { ended(&gateway, "same").await == 2.0 }).await;
    assert_eq!(canary.asked(), 3, "two copies, and alice's own request");
}

#[tokio::test]
async fn a_canary_that_fails_copies_is_told_and_one_that_is_taken_out_gets_none() {
    let stable = Service::start(|_, _| answer(200, &json!({}))).await;
    let canary = Service::start(|_, _| answer(500, &json!({"error": "x"}))).await;
    let (site, gateway) = gateway(&stable, &canary, "percentage = 100\nnoise = 100\n").await;
    ask(&gateway, "/api/v1/x").await;
    eventually("it is told", || async { verdicts(&diffs(&gateway).await) == [("status", "unclear")] }).await;
    assert_eq!(diffs(&gateway).await["differences"][0]["detail"], "200 and 500");
    assert_eq!(gateway.flag().await["arms"]["canary"]["requests"], 0, "and nothing is held against it");

    assert!(gateway.act("rollback", json!({})).await.status().is_success());
    ask(&gateway, "/api/v1/x").await;
    assert_eq!(diffs(&gateway).await["state"], "rolled_back");
    assert!(gateway.act("resume", json!({})).await.status().is_success());
    ask(&gateway, "/api/v1/again").await;
    eventually("copies go on", || async { canary.headers("/api/v1/again").len() == 1 }).await;
    assert_eq!(canary.asked(), 2);

    drop(canary);
    ask(&gateway, "/api/v1/x").await;
    eventually("nobody is there", || async { ended(&gateway, "failed").await == 1.0 }).await;
    site.write("flags/async-database.toml", &flag_text(0.0));
    eventually("it is off", || async { diffs(&gateway).await["state"] == "off" }).await;
    let told = stdout(&gateway.cli(&site, &["diffs", FLAG]).await);
    assert!(told.contains("`[shadow]` in the flag file turns it on"), "{told}");
}

#[tokio::test]
async fn a_client_that_leaves_gets_nothing_copied() {
    let stable = Service::with_gate(|_, _| answer(200, &json!({})), 0).await;
    let canary = Service::start(|_, _| answer(200, &json!({}))).await;
    let (_site, gateway) = gateway(&stable, &canary, "percentage = 100\nnoise = 0\n").await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(b"GET /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: carol\r\n\r\n").await.unwrap();
    eventually("stable has it", || async { stable.asked() == 1 }).await;
    client.shutdown().await.unwrap();
    drop(client);
    eventually("it is given up", || async { ended(&gateway, "skipped_unanswered").await == 1.0 }).await;
    stable.gate.add_permits(10);
    ask(&gateway, "/api/v1/y").await;
    eventually("others are copied", || async { ended(&gateway, "same").await == 1.0 }).await;
    assert_eq!(canary.asked(), 1);
}

#[tokio::test]
async fn an_answer_streams_through_while_it_is_kept() {
    // A backend that sends the second half of its answer when it is told to.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let slow = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        opened.acquire().await.unwrap().forget();
        stream.write_all(b"2\r\n1}\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    });
    let canary = Service::start(|_, _| answer(200, &json!({"a": 1}))).await;
    let site = Site::with_servers(&address, &canary.address);
    site.write("flags/async-database.toml", &format!("{}[shadow]\npercentage = 100\nnoise = 0\n", flag_text(0.0)));
    let gateway = site.start().await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(b"GET /api/v1/x HTTP/1.1\r\nhost: a\r\nx-user-id: carol\r\n\r\n").await.unwrap();
    let mut got = String::new();
    let mut half = async || {
        let mut bytes = [0; 4096];
        let count = timeout(DEADLINE, client.read(&mut bytes)).await.unwrap().unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    while !got.contains("{\"a\":") {
        got.push_str(&half().await);
    }
    gate.add_permits(1);
    while !got.contains("1}") {
        got.push_str(&half().await);
    }
    eventually("it was kept whole", || async { ended(&gateway, "same").await == 1.0 }).await;
    slow.abort();
}
