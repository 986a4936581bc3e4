//! An upstream that answers well until it is told to break down, and remembers when it was asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Router, serve};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) at: SystemTime,
    pub(crate) failed: bool,
}

#[derive(Debug, Default)]
struct Script {
    broken: AtomicBool,
    asked: AtomicU64,
    answers: Mutex<Vec<Answer>>,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    address: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Script::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let task = tokio::spawn(async move { serve(listener, router).await.unwrap() });
        Self { address, script, task }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Fails half of the requests from now on.
    pub(crate) fn break_down(&self) {
        self.script.broken.store(true, Ordering::SeqCst);
    }

    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.script.answers.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(script): State<Arc<Script>>) -> StatusCode {
    let number = script.asked.fetch_add(1, Ordering::Relaxed);
    let failed = script.broken.load(Ordering::SeqCst) && heads(number);
    script.answers.lock().unwrap().push(Answer { at: crate::now(), failed });
    if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

/// A coin for each number: the top bit of the finalizer of splitmix64 (Steele, Lea and Flood, 2014).
fn heads(number: u64) -> bool {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) >> 63 == 1
}
