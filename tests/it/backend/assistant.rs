//! Analyses and questions by an endpoint that speaks `OpenAI`'s protocol, which at times misbehaves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Frame;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tidegate::backend::{AiConfig, Config, Mode};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::server::TlsStream;

use crate::backend::running::{Data, Kind, MODES, Running, config};

const ANALYZE: &str = "/api/v1/analyze-answer";

/// What the stand-in does with one request.
#[derive(Debug, Clone)]
enum Act {
    /// Says this as the model.
    Say(String),
    /// Answers with this status.
    Status(u16),
    /// Answers with this body.
    Body(&'static str),
    /// Never answers.
    Hang,
    /// Begins a body that never ends.
    Drip,
    /// Sends more than anybody should read.
    Flood,
}

#[derive(Debug, Default)]
struct Script {
    acts: Mutex<Vec<Act>>,
    asked: Mutex<Vec<Value>>,
}

/// Starts a stand-in that does `acts` in turn, and gives its base URL.
async fn stand_in(acts: Vec<Act>) -> (String, Arc<Script>) {
    let script = Arc::new(Script { acts: Mutex::new(acts), asked: Mutex::default() });
    let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, script)
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut asked: Value = serde_json::from_slice(&body).unwrap();
    asked["path"] = json!(parts.uri.path());
    asked["key"] = json!(parts.headers.get("authorization").map(|key| key.to_str().unwrap().to_owned()));
    script.asked.lock().unwrap().push(asked);
    let act = {
        let mut acts = script.acts.lock().unwrap();
        if acts.len() > 1 { acts.remove(0) } else { acts[0].clone() }
    };
    match act {
        Act::Say(text) => Response::new(Body::from(
            json!({"choices": [{"message": {"role": "assistant", "content": text}}]}).to_string(),
        )),
        Act::Status(status) => Response::builder().status(status).body(Body::from("no")).unwrap(),
        Act::Body(text) => Response::new(Body::from(text)),
        Act::Hang => std::future::pending().await,
        Act::Drip => Response::new(Body::new(Endless { begun: false })),
        Act::Flood => Response::new(Body::from(vec![b' '; 4 << 20])),
    }
}

/// A body that begins and never ends.
struct Endless {
    begun: bool,
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.begun, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{\"choices\":")))))
    }
}

/// TLS before a stand-in.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Starts a stand-in that speaks TLS, and gives its base URL and who vouches for it.
async fn stand_in_with_tls() -> (String, Vec<u8>) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    let script = Arc::new(Script { acts: Mutex::new(vec![good()]), asked: Mutex::default() });
    let router = Router::new().fallback(answer).with_state(script);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/v1", listener.local_addr().unwrap().port());
    let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    tokio::spawn(async move { axum::serve(tls, router).await.unwrap() });
    (url, signed.cert.der().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_tls_is_asked_if_it_is_vouched_for() {
    for mode in MODES {
        let (url, certificate) = stand_in_with_tls().await;
        for (authorities, source) in [(vec![certificate], "ai"), (Vec::new(), "offline")] {
            let running = start_with(mode, &url, authorities).await;
            let answer: Value = running.post(ANALYZE, &asked()).await.json().await.unwrap();
            assert_eq!(answer["source"], source, "{mode}");
            running.stop().await;
        }
    }
}

async fn start(mode: Mode, url: &str) -> Running {
    start_with(mode, url, Vec::new()).await
}

async fn start_with(mode: Mode, url: &str, authorities: Vec<Vec<u8>>) -> Running {
    let ai = AiConfig {
        url: url.to_owned(),
        model: "tiny".to_owned(),
        key: Some("a key".to_owned()),
        authorities,
        timeout: Duration::from_millis(500),
        retries: 2,
    };
    Running::start(Config { ai: Some(ai), ..config(mode, &Data::new(Kind::Sqlite).await) }).await
}

fn asked() -> Value {
    json!({"jobDescription": "Rust", "question": "How do you find a slow query?", "answer": "I measured it."})
}

fn good() -> Act {
    let said = json!({"score": 77, "missingKeywords": ["index"], "matchedKeywords": [], "improvements": ["Say why."]});
    Act::Say(said.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_endpoint_says_is_passed_on() {
    for mode in MODES {
        let (url, script) = stand_in(vec![good()]).await;
        let running = start(mode, &url).await;
        let answer: Value = running.post(ANALYZE, &asked()).await.json().await.unwrap();
        let expected = json!({"source": "ai", "score": 77, "missingKeywords": ["index"], "matchedKeywords": [],
                              "improvements": ["Say why."]});
        assert_eq!(answer, expected, "{mode}");
        let heard = script.asked.lock().unwrap()[0].clone();
        assert_eq!((&heard["path"], &heard["key"]), (&json!("/v1/chat/completions"), &json!("Bearer a key")));
        assert_eq!((&heard["model"], &heard["response_format"]["type"]), (&json!("tiny"), &json!("json_schema")));
        let told: Value = serde_json::from_str(heard["messages"][1]["content"].as_str().unwrap()).unwrap();
        assert_eq!(told, asked(), "{mode}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_no_use_is_done_without_in_both_modes_alike() {
    let wrong = |text: &str| Act::Say(text.to_owned());
    let passing = [
        Act::Status(500),
        Act::Status(429),
        Act::Body("<html>"),
        Act::Body("{\"choices\": []}"),
        wrong("I think it was quite good."),
        wrong("{\"score\": 400, \"missingKeywords\": [], \"matchedKeywords\": [], \"improvements\": []}"),
        wrong("{\"score\": 40, \"missingKeywords\": [], \"matchedKeywords\": []}"),
        wrong("{\"score\": 40, \"missingKeywords\": [7], \"matchedKeywords\": [], \"improvements\": [], \"x\": 1}"),
        Act::Hang,
        Act::Drip,
        Act::Flood,
    ];
    for mode in MODES {
        for act in &passing {
            // Three tries that all fail: the offline way answers. Two that fail: the third is heard.
            for (acts, source, tries) in
                [(vec![act.clone()], "offline", 3), (vec![act.clone(), act.clone(), good()], "ai", 3)]
            {
                let (url, script) = stand_in(acts).await;
                let running = start(mode, &url).await;
                let response = running.post(ANALYZE, &asked()).await;
                assert_eq!(response.status(), 200, "{mode} {act:?}");
                let answer: Value = response.json().await.unwrap();
                assert_eq!(answer["source"], source, "{mode} {act:?}");
                assert_eq!(script.asked.lock().unwrap().len(), tries, "{mode} {act:?}");
                running.stop().await;
            }
        }
        // What will not pass is not tried again.
        let (url, script) = stand_in(vec![Act::Status(401)]).await;
        let running = start(mode, &url).await;
        let answer: Value = running.post(ANALYZE, &asked()).await.json().await.unwrap();
        assert_eq!((&answer["source"], script.asked.lock().unwrap().len()), (&json!("offline"), 1), "{mode}");
        running.stop().await;
        // Nor is anything lost if there is nobody.
        let running = start(mode, "http://127.0.0.1:1/v1").await;
        let answer: Value = running.post(ANALYZE, &asked()).await.json().await.unwrap();
        assert_eq!(answer["source"], "offline", "{mode}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_made_up_with_and_without_an_endpoint() {
    let body = json!({"role": "Backend Engineer", "jobDescription": "Rust, Kafka", "count": 3});
    let path = "/api/v1/generate-questions";
    let mut offline = Vec::new();
    for mode in MODES {
        let one =
            json!({"text": "Why does it wait?", "category": "technical", "difficulty": "easy", "skills": ["Rust"]});
        let three = json!({"questions": [one, one, one]}).to_string();
        for (said, source) in [(three, "ai"), (json!({"questions": [one]}).to_string(), "offline")] {
            let (url, _script) = stand_in(vec![Act::Say(said)]).await;
            let running = start(mode, &url).await;
            let answer: Value = running.post(path, &body).await.json().await.unwrap();
            assert_eq!(
                (&answer["source"], answer["questions"].as_array().unwrap().len()),
                (&json!(source), 3),
                "{mode}"
            );
            if source == "offline" {
                offline.push(answer);
            }
            running.stop().await;
        }
    }
    assert_eq!(offline[0], offline[1]);
    assert!(offline[0]["questions"][0]["text"].as_str().unwrap().contains("Rust"), "{offline:?}");
}
