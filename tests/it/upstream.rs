//! Upstreams that do what a test tells them, on ports of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt as _;
use axum::{Router, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio::time::sleep;

/// A well-behaved HTTP server: it sends back what it got, and says how it was asked.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Script {
    status: AtomicU16,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// How long each answer takes, in milliseconds.
    delay_ms: AtomicU64,
    /// A request to `/slow` takes a permit before it is answered.
    gate: Semaphore,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// The same on a socket that is there already.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Script {
            status: AtomicU16::new(200),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            delay_ms: AtomicU64::new(0),
            gate: Semaphore::new(0),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let counted = Arc::clone(&script);
        let listener = listener.tap_io(move |_| {
            counted.connections.fetch_add(1, Ordering::SeqCst);
        });
        let task = tokio::spawn(async move { serve(listener, router).await.unwrap() });
        Self { address, script, task }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Answers everything with `status` from now on.
    pub(crate) fn answer_with(&self, status: u16) {
        self.script.status.store(status, Ordering::SeqCst);
    }

    /// Takes this long for every answer from now on.
    pub(crate) fn answer_after(&self, milliseconds: u64) {
        self.script.delay_ms.store(milliseconds, Ordering::SeqCst);
    }

    /// How many requests have arrived.
    pub(crate) fn requests(&self) -> usize {
        self.script.requests.load(Ordering::SeqCst)
    }

    /// How many connections have been made.
    pub(crate) fn connections(&self) -> usize {
        self.script.connections.load(Ordering::SeqCst)
    }

    /// Lets one request to `/slow` be answered.
    pub(crate) fn release_one(&self) {
        self.script.gate.add_permits(1);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The body comes back; each header `x` that arrived comes back as `got-x`.
async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    script.requests.fetch_add(1, Ordering::SeqCst);
    if request.uri().path().ends_with("/slow") {
        script.gate.acquire().await.unwrap().forget();
    }
    let delay = script.delay_ms.load(Ordering::SeqCst);
    if delay > 0 {
        sleep(Duration::from_millis(delay)).await;
    }
    let fails = request.uri().path().ends_with("/fail");
    let status = if fails { 500 } else { script.status.load(Ordering::SeqCst) };
    let mut response = Response::builder().status(status);
    for (name, value) in request.headers() {
        response = response.header(format!("got-{name}"), value);
    }
    response = response.header("x-tidegate-variant", "what the upstream says");
    let late = request.uri().path().ends_with("/late");
    let body = Body::new(request.into_body());
    // It has read all of the request before it says a word.
    let body = if late { Body::from(to_bytes(body, usize::MAX).await.unwrap()) } else { body };
    response.body(body).unwrap()
}

/// A server that answers every connection's first bytes with fixed bytes, and closes.
#[derive(Debug)]
pub(crate) struct RawUpstream {
    address: String,
    task: JoinHandle<()>,
}

impl RawUpstream {
    /// Answers with `bytes`; with `None` it never answers, and keeps the connection.
    pub(crate) async fn start(bytes: Option<&'static [u8]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut silent: Vec<TcpStream> = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(bytes) = bytes else {
                    silent.push(stream);
                    continue;
                };
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        Self { address, task }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers whoever connects with a byte every now and then, and never to the end.
pub(crate) async fn drip(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        let mut ticks = interval(Duration::from_millis(20));
        while stream.write_all(b"x").await.is_ok() {
            ticks.tick().await;
        }
    }
}

/// An address that nobody listens on, for as long as the socket is kept: it is bound, so nobody else gets it.
pub(crate) fn nobody() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap().to_string(), socket)
}
