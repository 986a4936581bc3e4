//! Load over kept connections, in a closed or an open loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock;

/// The longest latency that is told apart from longer ones, and the longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Digits that latencies are kept to.
const DIGITS: u8 = 3;

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each client asks again once it was answered and has thought.
    Closed {
        /// How long each client thinks.
        think: Duration,
    },
    /// Requests come at their moments, answered or not; each is timed from the moment at which it was due.
    Open {
        /// Requests a second, of all clients together.
        per_second: f64,
    },
}

/// What is asked of the built-in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Lists of questions.
    Read,
    /// Questions for a description, which raises counts.
    Write,
    /// Both in turn.
    Mixed,
}

/// What a target is put under.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) concurrency: usize,
    pub(crate) pace: Pace,
    pub(crate) work: Work,
    /// A path to get instead of `work`.
    pub(crate) path: Option<String>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Latencies in microseconds, of all requests that were answered.
    pub(crate) latencies: Histogram<u64>,
    /// Answers other than 5xx.
    pub(crate) answers: u64,
    /// Answers of 5xx, broken connections, and answers that did not come.
    pub(crate) errors: u64,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let longest = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
        let latencies = Histogram::new_with_bounds(1, longest, DIGITS).context("a histogram cannot be made")?;
        Ok(Self { latencies, answers: 0, errors: 0 })
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latencies.add(&other.latencies).context("histograms do not fit")?;
        self.answers += other.answers;
        self.errors += other.errors;
        Ok(())
    }
}

/// The moments at which everything begins and ends.
#[derive(Debug, Clone, Copy)]
struct Times {
    start: Instant,
    measured: Instant,
    end: Instant,
}

/// Puts the server at `address` under load; tells `measuring` when the warm-up is over.
pub(crate) async fn run(
    address: &str,
    load: &Load,
    measuring: watch::Sender<bool>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Tally> {
    let start = clock::now();
    let measured = start + load.warm_up;
    let times = Times { start, measured, end: measured + load.duration };
    let shared = Arc::new((address.to_owned(), load.clone()));
    let mut clients = JoinSet::new();
    for number in 0..load.concurrency {
        clients.spawn(client(Arc::clone(&shared), number, times, stop.clone()));
    }
    sleep(measured.saturating_duration_since(clock::now())).await;
    measuring.send_replace(true);
    let mut whole = Tally::new()?;
    while let Some(done) = clients.join_next().await {
        whole.add(&done.context("a client of the load broke off")??)?;
    }
    Ok(whole)
}

async fn client(
    shared: Arc<(String, Load)>,
    number: usize,
    times: Times,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Tally> {
    let (address, load) = &*shared;
    let mut tally = Tally::new()?;
    let mut connection = None;
    let step = match load.pace {
        Pace::Open { per_second } => Duration::from_secs_f64(load.concurrency as f64 / per_second),
        Pace::Closed { .. } => Duration::ZERO,
    };
    // Clients of an open loop stand apart evenly.
    let offset = step.mul_f64(number as f64 / load.concurrency as f64);
    let mut due = times.start + offset;
    let mut count = number;
    loop {
        match load.pace {
            Pace::Open { .. } => sleep(due.saturating_duration_since(clock::now())).await,
            Pace::Closed { .. } => due = clock::now(),
        }
        if due >= times.end || *stop.borrow() {
            return Ok(tally);
        }
        let good = exchange(&mut connection, address, load, count).await;
        let now = clock::now();
        // Of a closed loop, what ends after the end is cut off; of an open one, all that was due is counted.
        let counts = due >= times.measured && (step > Duration::ZERO || now <= times.end);
        if counts {
            let micros = u64::try_from(now.saturating_duration_since(due).as_micros()).unwrap_or(u64::MAX);
            match good {
                Ok(true) => {
                    tally.latencies.saturating_record(micros.max(1));
                    tally.answers += 1;
                }
                Ok(false) => {
                    tally.latencies.saturating_record(micros.max(1));
                    tally.errors += 1;
                }
                Err(_) => tally.errors += 1,
            }
        }
        if let Err(_broken) = good {
            connection = None;
            // Whoever refuses connections is not asked in a busy loop.
            sleep(Duration::from_millis(10)).await;
        }
        count = count.wrapping_add(load.concurrency);
        match load.pace {
            Pace::Open { .. } => due += step,
            Pace::Closed { think } => sleep(think).await,
        }
    }
}

/// One request and its answer; whether it was a good one.
async fn exchange(
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    address: &str,
    load: &Load,
    count: usize,
) -> anyhow::Result<bool> {
    let answered = async {
        let sender = match connection {
            Some(sender) if !sender.is_closed() => sender,
            _ => connection.insert(connect(address).await?),
        };
        sender.ready().await?;
        let response = sender.send_request(request(address, load, count)?).await?;
        let good = !response.status().is_server_error();
        response.into_body().collect().await?;
        anyhow::Ok(good)
    };
    timeout(PATIENCE, answered).await?
}

async fn connect(address: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends when the sender is dropped or the server closes; an error comes out at the sender as well.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn request(address: &str, load: &Load, count: usize) -> anyhow::Result<Request<Full<Bytes>>> {
    const ROLES: [&str; 4] = ["backend engineer", "frontend engineer", "data engineer", "SRE"];
    let role = ROLES.get(count / 2 % ROLES.len()).copied().unwrap_or_default();
    let builder = Request::builder().header(HOST, address).header("x-user-id", format!("user-{}", count % 1000));
    let reads = match load.work {
        Work::Read => true,
        Work::Write => false,
        Work::Mixed => count.is_multiple_of(2),
    };
    let request = match &load.path {
        Some(path) => builder.uri(path.as_str()).body(Full::default()),
        None if reads => builder.uri("/api/v1/questions?limit=10&sort=-usageCount").body(Full::default()),
        None => {
            let body = format!(r#"{{"role":"{role}","jobDescription":"Rust, PostgreSQL, Kubernetes","count":3}}"#);
            let builder = builder.method(Method::POST).uri("/api/v1/parse-jd");
            builder.header(CONTENT_TYPE, "application/json").body(Full::from(body))
        }
    };
    Ok(request?)
}
