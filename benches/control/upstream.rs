//! Both arms: upstreams that remember which gateway sent them what, and fail as often as they are told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Chance, now};

/// How many gateways are told from each other.
const GATEWAYS: usize = 16;

/// How many requests in a row have to come decided the new way before a gateway counts as done with the old.
const STREAK: u64 = 20;

/// What one gateway has sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    arm: usize,
    streak: u64,
    last: [Option<Instant>; 2],
}

/// What both arms have seen.
#[derive(Debug)]
struct Seen {
    gateways: [Mutex<Sent>; GATEWAYS],
    requests: [AtomicU64; 2],
    failures: [AtomicU64; 2],
    /// How many of a thousand requests fail.
    failing: [AtomicU64; 2],
}

/// Two upstreams, the stable one and the canary.
#[derive(Debug)]
pub(crate) struct Upstreams {
    addresses: [String; 2],
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
}

impl Upstreams {
    pub(crate) async fn start() -> Self {
        let nothing = Sent { arm: 0, streak: 0, last: [None; 2] };
        let seen = Arc::new(Seen {
            gateways: std::array::from_fn(|_| Mutex::new(nothing)),
            requests: Default::default(),
            failures: Default::default(),
            failing: Default::default(),
        });
        let (mut addresses, mut tasks) = ([String::new(), String::new()], Vec::new());
        for (arm, address) in addresses.iter_mut().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            *address = listener.local_addr().unwrap().to_string();
            let router = Router::new().fallback(answer).with_state((Arc::clone(&seen), arm));
            tasks.push(tokio::spawn(async move { serve(listener, router).await.unwrap() }));
        }
        Self { addresses, seen, tasks }
    }

    pub(crate) fn addresses(&self) -> [&str; 2] {
        [&self.addresses[0], &self.addresses[1]]
    }

    /// Has so many of a thousand requests to an arm fail from now on.
    pub(crate) fn fail(&self, arm: usize, thousandths: u64) {
        self.seen.failing[arm].store(thousandths, Ordering::SeqCst);
    }

    /// The requests that an arm got, and those of them that it failed.
    pub(crate) fn counts(&self, arm: usize) -> (u64, u64) {
        (self.seen.requests[arm].load(Ordering::SeqCst), self.seen.failures[arm].load(Ordering::SeqCst))
    }

    /// Whether the first `gateways` send to `arm` alone by now.
    pub(crate) fn all_send_to(&self, arm: usize, gateways: usize) -> bool {
        self.seen.gateways.iter().take(gateways).all(|sent| {
            let sent = sent.lock().unwrap();
            sent.arm == arm && sent.streak >= STREAK
        })
    }

    /// For how long after `moment` the last of the first `gateways` went on sending to `arm`.
    pub(crate) fn last_after(&self, arm: usize, moment: Instant, gateways: usize) -> Duration {
        let last = self.seen.gateways.iter().take(gateways).filter_map(|sent| sent.lock().unwrap().last[arm]).max();
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(moment))
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The path of a request says by which gateway it came and whether it is one to be traced, like `/api/v1/x/2/traced`.
async fn answer(State((seen, arm)): State<(Arc<Seen>, usize)>, uri: Uri) -> (StatusCode, &'static str) {
    let mut parts = uri.path().rsplit('/');
    if let (Some("traced"), Some(Ok(gateway))) = (parts.next(), parts.next().map(str::parse::<usize>)) {
        let mut sent = seen.gateways[gateway].lock().unwrap();
        sent.streak = if sent.arm == arm { sent.streak + 1 } else { 1 };
        sent.arm = arm;
        sent.last[arm] = Some(now());
    }
    let number = seen.requests[arm].fetch_add(1, Ordering::SeqCst);
    if Chance(number ^ 0x5eed).below(1000) < seen.failing[arm].load(Ordering::SeqCst) {
        seen.failures[arm].fetch_add(1, Ordering::SeqCst);
        return (StatusCode::INTERNAL_SERVER_ERROR, "no");
    }
    (StatusCode::OK, "yes")
}
