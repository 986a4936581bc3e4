//! A closed loop of requests over kept connections, and what it cost the program that served them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::process;
use crate::scenario::{BIG, Exchange, Protocol, Scenario, UPLOAD};

/// Users that the requests are from, in turn.
const USERS: usize = 2000;

/// Longer than any answer takes here; one that takes longer ends the program.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) requests_per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) peak_memory_mib: f64,
}

/// Whether somebody listens there, before long.
pub(crate) async fn wait_for(address: &str) -> bool {
    let connected = async {
        let mut looks = interval(Duration::from_millis(10));
        while TcpStream::connect(address).await.is_err() {
            looks.tick().await;
        }
    };
    timeout(Duration::from_secs(20), connected).await.is_ok()
}

/// Sends the scenario's requests to `address`, and says what they cost the process `id` and its children.
///
/// Connections are made before the clock runs.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) async fn run(address: &str, id: u32, scenario: &Scenario) -> Measured {
    let each = scenario.requests / scenario.connections;
    let mut clients = Vec::new();
    for number in 0..scenario.connections {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let wire = match scenario.protocol {
            Protocol::H1 => Wire::H1(stream, vec![0; 64 * 1024]),
            Protocol::H2 => Wire::H2(multiplexed(stream).await),
        };
        clients.push(Client { wire, number, exchange: scenario.exchange });
    }
    process::forget_peak(id);
    let (start, cpu) = (Instant::now(), process::cpu_seconds(id));
    let mut load = JoinSet::new();
    for client in clients {
        load.spawn(client.ask(each));
    }
    let mut latencies: Vec<f64> = load.join_all().await.into_iter().flatten().collect();
    let (took, cpu) = (start.elapsed().as_secs_f64(), process::cpu_seconds(id) - cpu);
    latencies.sort_by(f64::total_cmp);
    let count = latencies.len();
    let at = |permille: usize| latencies[(count * permille / 1000).min(count - 1)];
    Measured {
        requests_per_second: count as f64 / took,
        cpu_us: cpu * 1e6 / count as f64,
        p50_ms: at(500),
        p99_ms: at(990),
        p999_ms: at(999),
        peak_memory_mib: process::peak_memory_mib(id),
    }
}

enum Wire {
    H1(TcpStream, Vec<u8>),
    H2(http2::SendRequest<Full<Bytes>>),
}

struct Client {
    wire: Wire,
    number: usize,
    exchange: Exchange,
}

async fn multiplexed(stream: TcpStream) -> http2::SendRequest<Full<Bytes>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        // A client that takes a big answer at once, so that it is the gateway that is measured.
        .initial_stream_window_size(2 * 1024 * 1024)
        .initial_connection_window_size(2 * 1024 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    // It ends with an error at most when its gateway is stopped.
    tokio::spawn(async move { drop(connection.await) });
    sender
}

impl Client {
    /// The latencies of `requests`, one after the other, in milliseconds.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    async fn ask(mut self, requests: usize) -> Vec<f64> {
        let mut latencies = Vec::with_capacity(requests);
        let body = if self.exchange == Exchange::Upload { Bytes::from(vec![b'x'; UPLOAD]) } else { Bytes::new() };
        for number in 0..requests {
            let user = (self.number * requests + number) % USERS;
            let start = Instant::now();
            let received = timeout(PATIENCE, self.one(user, &body)).await.expect("no answer in time");
            latencies.push(start.elapsed().as_secs_f64() * 1000.0);
            assert!(self.exchange != Exchange::Big || received == BIG, "{received} of {BIG} bytes");
        }
        latencies
    }

    /// The length of one answer's body.
    async fn one(&mut self, user: usize, body: &Bytes) -> usize {
        let path = self.exchange.path();
        match &mut self.wire {
            Wire::H1(stream, buffer) => {
                let (method, length) = match self.exchange {
                    Exchange::Upload => ("POST", format!("content-length: {}\r\n", body.len())),
                    Exchange::Small | Exchange::Big => ("GET", String::new()),
                };
                let head =
                    format!("{method} {path} HTTP/1.1\r\nhost: a.test\r\nx-user-id: user-{user}\r\n{length}\r\n");
                let mut request = head.into_bytes();
                request.extend_from_slice(body);
                stream.write_all(&request).await.unwrap();
                read_answer(stream, buffer).await
            }
            Wire::H2(sender) => {
                let method = if self.exchange == Exchange::Upload { Method::POST } else { Method::GET };
                let request = Request::builder().method(method).uri(format!("http://a.test{path}"));
                let request =
                    request.header("x-user-id", format!("user-{user}")).body(Full::new(body.clone())).unwrap();
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                let (mut body, mut received) = (answer.into_body(), 0);
                while let Some(frame) = body.frame().await {
                    received += frame.unwrap().data_ref().map_or(0, Bytes::len);
                }
                received
            }
        }
    }
}

/// Reads one answer of HTTP/1.1 to its end, asserts that it is a good one, and gives the length of its body.
pub(crate) async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    let (body, length) = loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "the connection was closed in an answer");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        break (end + 4, length.unwrap_or(0));
    };
    let mut missing = length - (filled - body);
    while missing > 0 {
        let most = missing.min(buffer.len());
        let read = stream.read(&mut buffer[..most]).await.unwrap();
        assert!(read > 0, "the connection was closed in an answer");
        missing -= read;
    }
    length
}

/// The middle of `values`, which are sorted for it.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
