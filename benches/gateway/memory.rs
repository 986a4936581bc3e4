//! What connections cost in memory: many that are idle, and many that carry a long body each way, slowly.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::gateways::{Gateway, start_all};
use crate::load::read_answer;
use crate::process::{forget_peak, peak_memory_mib};

/// Connections that have asked once and wait; fewer where the limit of open files (`ulimit -n`) does not leave two for
/// each, which `HAProxy` keeps free.
const IDLE: usize = 10_000;

/// Connections that carry a body each way at a time.
const STREAMS: usize = 1_000;

/// The body of each, each way.
const BODY: usize = 10 * 1024 * 1024;

const PART: usize = 64 * 1024;

/// How often a part is sent: the whole body takes 40 s.
const PERIOD: Duration = Duration::from_millis(250);

/// Far longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures every gateway that is here, each started anew.
pub(crate) async fn measure(directory: &Path, backend: &str) {
    println!("peak memory of the gateway in MiB, and KiB a connection above what it held before");
    let connections =
        getrlimit(Resource::Nofile).current.map_or(IDLE, |files| IDLE.min(usize::try_from(files / 2).unwrap() - 200));
    let heads = ["", "at the start", &format!("{connections} idle connections"), "1000 streams of 10 MiB"];
    println!("{:<14} {:>14} {:>24} {:>28}", heads[0], heads[1], heads[2], heads[3]);
    // Allocators keep what connections gave back, so each part has gateways that have served nothing before.
    let (first, second) = (directory.join("idle"), directory.join("streams"));
    for directory in [&first, &second] {
        fs::create_dir(directory).unwrap();
    }
    let mut idling = Vec::new();
    for gateway in start_all(&first, backend).await {
        let start = peak(&gateway);
        idling.push((start, idle(&gateway, connections).await));
    }
    for (gateway, (start, idle)) in start_all(&second, backend).await.into_iter().zip(idling) {
        let before = peak(&gateway);
        let streams = streams(&gateway).await;
        let each = |peak: f64, before: f64, count: usize| (peak - before) * 1024.0 / count as f64;
        println!(
            "{:<14} {start:>14.1} {:>24} {:>28}",
            gateway.name,
            format!("{idle:.1} ({:.1})", each(idle, start, connections)),
            streams.map_or("cut off".to_owned(), |peak| format!("{peak:.1} ({:.1})", each(peak, before, STREAMS))),
        );
    }
}

/// What it holds now.
fn peak(gateway: &Gateway) -> f64 {
    forget_peak(gateway.id());
    peak_memory_mib(gateway.id())
}

/// The peak while the connections are there, each after one request.
async fn idle(gateway: &Gateway, connections: usize) -> f64 {
    forget_peak(gateway.id());
    let mut open = Vec::new();
    let mut buffer = vec![0; PART];
    for number in 0..connections {
        let mut stream = TcpStream::connect(&gateway.http1).await.unwrap();
        let request = format!("GET /api/v1/small HTTP/1.1\r\nhost: a.test\r\nx-user-id: user-{number}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream, &mut buffer).await;
        open.push(stream);
    }
    peak_memory_mib(gateway.id())
}

/// The peak while the streams run; nothing if one does not come to its end.
async fn streams(gateway: &Gateway) -> Option<f64> {
    forget_peak(gateway.id());
    let mut all = JoinSet::new();
    for _ in 0..STREAMS {
        let stream = TcpStream::connect(&gateway.http1).await.unwrap();
        all.spawn(timeout(PATIENCE, echo(stream)));
    }
    let whole = all.join_all().await.into_iter().all(|ended| ended.unwrap_or(false));
    whole.then(|| peak_memory_mib(gateway.id()))
}

/// Sends a body part by part, and reads as much, while it comes. Whether all of it came.
async fn echo(stream: TcpStream) -> bool {
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let head =
            format!("POST /api/v1/echo HTTP/1.1\r\nhost: a.test\r\nx-user-id: a\r\ncontent-length: {BODY}\r\n\r\n");
        writer.write_all(head.as_bytes()).await?;
        let mut parts = interval(PERIOD);
        parts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..BODY / PART {
            parts.tick().await;
            writer.write_all(&[b'x'; PART]).await?;
        }
        Ok::<_, io::Error>(writer)
    });
    // An echo has no length that is known before, so it comes in chunks: what counts is that all of it comes.
    let mut buffer = vec![0; PART];
    let mut received = 0;
    while received < BODY {
        match reader.read(&mut buffer).await {
            Ok(read) if read > 0 => received += read,
            Ok(_) | Err(_) => return false,
        }
    }
    sending.await.is_ok_and(|sent| sent.is_ok())
}
