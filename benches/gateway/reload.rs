//! What requests notice of five million beta users being loaded: latencies beside those of the same load without.
//!
//! Requests come at a steady pace, each timed from when it was due, so that one that has to wait is counted with its wait.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::load::read_answer;

const KEYS: u32 = 5_000_000;

const CONNECTIONS: usize = 16;

/// How often each connection asks: 2000 requests a second in all.
const PERIOD: Duration = Duration::from_millis(8);

/// How long one measurement takes; a reload begins after a fifth of it.
const MEASURED: Duration = Duration::from_secs(6);

/// What a phase showed, in milliseconds.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) requests: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// From the moment that the list was there to the first look that finds it in force; none without a reload.
    pub(crate) reload: Option<f64>,
}

/// A list of users that differs from that of another round.
pub(crate) fn list(round: usize) -> String {
    (0..KEYS).map(|number| format!("user-{round}-{number:07}\n")).collect()
}

/// Measures once. With a reload the list in `directory` is replaced by `next`, and `admin` is asked until it is in force.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) async fn measure(http: &str, admin: &str, directory: &Path, next: Option<&Path>) -> Phase {
    let start = tokio::time::Instant::now() + Duration::from_millis(100);
    let mut load = JoinSet::new();
    for connection in 0..CONNECTIONS {
        load.spawn(paced(http.to_owned(), connection, start));
    }
    sleep_until(start + MEASURED / 5).await;
    let reload = match next {
        Some(next) => {
            // A link costs nothing, where a copy would keep the disk busy while requests are timed.
            let link = directory.join("link.txt");
            fs::hard_link(next, &link).unwrap();
            let begun = Instant::now();
            fs::rename(link, directory.join("flags/list.txt")).unwrap();
            Some(in_force(admin, begun).await)
        }
        None => None,
    };
    let mut latencies: Vec<f64> = load.join_all().await.into_iter().flatten().collect();
    latencies.sort_by(f64::total_cmp);
    let at = |permille: usize| latencies[(latencies.len() * permille / 1000).min(latencies.len() - 1)];
    let (p50, p99, p999, max) = (at(500), at(990), at(999), at(1000));
    Phase { requests: latencies.len(), p50, p99, p999, max, reload }
}

/// The latencies of one connection, in milliseconds from when each request was due.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
async fn paced(address: String, connection: usize, start: tokio::time::Instant) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 4096];
    let mut latencies = Vec::new();
    let offset = PERIOD * u32::try_from(connection).unwrap() / u32::try_from(CONNECTIONS).unwrap();
    for number in 0.. {
        let due = start + offset + PERIOD * number;
        if due > start + MEASURED {
            break;
        }
        sleep_until(due).await;
        let request = format!("GET /api/v1/x HTTP/1.1\r\nhost: a.test\r\nx-user-id: user-{number}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream, &mut buffer).await;
        latencies.push((tokio::time::Instant::now() - due).as_secs_f64() * 1000.0);
    }
    latencies
}

/// How long it takes until another set of flags is in force than at the beginning, in milliseconds.
async fn in_force(admin: &str, begun: Instant) -> f64 {
    let client = reqwest::Client::new();
    let version = async || -> String {
        let flags: serde_json::Value =
            client.get(format!("http://{admin}/ready")).send().await.unwrap().json().await.unwrap();
        flags["flag_set_version"].to_string()
    };
    let before = version().await;
    let mut looks = interval(Duration::from_millis(20));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if version().await != before {
            return begun.elapsed().as_secs_f64() * 1000.0;
        }
    }
}

/// Writes the list of a round, to the disk's last word, so that none of it is written while requests are timed.
pub(crate) fn prepare(directory: &Path, round: usize) -> PathBuf {
    let path = directory.join(format!("next-{round}.txt"));
    fs::write(&path, list(round)).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    path
}
