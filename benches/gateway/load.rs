//! A closed loop of requests over kept connections, and what it cost the process that served them.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// Ticks of the processor accounting in a second; Linux has shown 100 to user space on every platform since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

/// Users that the requests are from, in turn.
const USERS: usize = 2000;

#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) requests_per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) peak_memory_mib: f64,
}

pub(crate) async fn wait_for(address: &str) {
    let connected = async {
        let mut looks = interval(Duration::from_millis(10));
        while TcpStream::connect(address).await.is_err() {
            looks.tick().await;
        }
    };
    timeout(Duration::from_secs(20), connected).await.unwrap();
}

/// Sends `requests` over `connections`, and says what they cost the process `id`.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) async fn run(address: &str, id: u32, connections: usize, requests: usize) -> Measured {
    let (start, cpu) = (Instant::now(), cpu_seconds(id));
    let mut load = JoinSet::new();
    for connection in 0..connections {
        load.spawn(one_connection(address.to_owned(), connection, requests / connections));
    }
    let mut latencies: Vec<f64> = load.join_all().await.into_iter().flatten().collect();
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds(id) - cpu);
    let count = latencies.len() as f64;
    let p50_ms = median(&mut latencies);
    Measured {
        requests_per_second: count / took,
        cpu_us: cpu * 1e6 / count,
        p50_ms,
        p99_ms: latencies[latencies.len() * 99 / 100],
        peak_memory_mib: peak_memory_mib(id),
    }
}

/// The latencies of `requests` on one connection, in milliseconds.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
async fn one_connection(address: String, connection: usize, requests: usize) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut latencies = Vec::with_capacity(requests);
    let mut buffer = vec![0; 4096];
    for number in 0..requests {
        let user = (connection * requests + number) % USERS;
        let request = format!("GET /api/v1/x HTTP/1.1\r\nhost: a.test\r\nx-user-id: user-{user}\r\n\r\n");
        let start = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream, &mut buffer).await;
        latencies.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    latencies
}

/// Reads one answer to its end, and asserts that it is a good one.
pub(crate) async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(read > 0, "the connection was closed in an answer");
        filled += read;
        let text = std::str::from_utf8(&buffer[..filled]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return;
        }
    }
}

/// The middle of `values`, which are sorted for it.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// User and system time of the process, from `/proc/ID/stat`, fields 14 and 15 (`proc_pid_stat(5)`).
fn cpu_seconds(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS_PER_SECOND
}

/// `VmHWM` of `/proc/ID/status` (`proc_pid_status(5)`).
fn peak_memory_mib(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}
