//! A gateway killed in the middle of changes, again and again: each that was acknowledged is there at the next start, none is there
//! by half, and the audit trail is whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::figures::line;
use crate::gateway::Gateway;
use crate::upstream::Upstreams;
use crate::{Chance, eventually};

/// Who change at once.
const CHANGERS: usize = 3;

/// After how many kills the whole audit trail is verified.
const VERIFIED: usize = 20;

/// A user who is on the beta list in every state over `MIDDLE` percent and in none below, so that half a change shows.
const MARKER: &str = "marker";
const MIDDLE: f64 = 50.0;

/// How many events are looked at after a start.
const EVENTS: usize = 1000;

#[tokio::main]
pub(crate) async fn prove(count: usize, store: &str) -> Vec<String> {
    let upstreams = Upstreams::start().await;
    let cluster = (store == "postgres").then(Cluster::start);
    let url = match &cluster {
        Some(cluster) => cluster.database("crash").await,
        None => String::new(),
    };
    let gateway = Arc::new(Gateway::new(&upstreams, &url, 10.0));
    let (number, mut chance, mut broken) = (Arc::new(AtomicU64::new(0)), Chance(13), Vec::new());
    let (mut acknowledged, mut unanswered, mut half_way, mut verified) = (0, 0, 0, 0);
    for kill in 1..=count {
        gateway.start().await;
        let (mut changers, before) = (JoinSet::new(), number.load(Ordering::SeqCst));
        for _ in 0..CHANGERS {
            changers.spawn(change(Arc::clone(&gateway), Arc::clone(&number)));
        }
        // Some are made, and then it ends at any moment.
        eventually("changes are made", || async { number.load(Ordering::SeqCst) > before + 2 * CHANGERS as u64 }).await;
        sleep(chance.pause(1, 100)).await;
        gateway.kill().await;
        let (mut acks, mut open) = (Vec::new(), Vec::new());
        for (answered, last) in changers.join_all().await {
            acks.extend(answered);
            open.push(last);
        }

        gateway.start().await;
        let reasons = look(&gateway, &mut broken).await;
        for lost in acks.iter().filter(|reason| !reasons.contains(*reason)) {
            broken.push(format!("`{lost}` was acknowledged before kill {kill} and is lost"));
        }
        acknowledged += acks.len();
        unanswered += open.len();
        half_way += open.iter().filter(|reason| reasons.contains(*reason)).count();
        if kill % VERIFIED == 0 || kill == count {
            verified += 1;
            broken
                .extend(gateway.verify().await.err().map(|problem| format!("the audit trail is not whole: {problem}")));
        }
        gateway.kill().await;
        if !broken.is_empty() {
            break;
        }
    }
    println!("a gateway with its store in {store}, killed in the middle of changes by {CHANGERS} at once\n");
    line("kill -9", count);
    line("changes that were acknowledged, each there at the next start", acknowledged);
    line("changes that were under way at the kill", unanswered);
    line("of them there at the next start, whole", half_way);
    line("times that `tidegate history --verify` found the trail whole", verified);
    println!();
    broken
}

/// Changes the rollout until the gateway is gone: the changes that were acknowledged, and the one that was not.
async fn change(gateway: Arc<Gateway>, numbers: Arc<AtomicU64>) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    loop {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let reason = format!("change {number}");
        let below = (number % 40_000) as f64 / 1000.0;
        let (percentage, beta) = if number.is_multiple_of(2) {
            (below, json!({"remove": [MARKER]}))
        } else {
            (below + MIDDLE, json!({"add": [MARKER]}))
        };
        let answer = match number % 20 {
            10 => gateway.act("rollback", &reason).await,
            11 => gateway.act("resume", &reason).await,
            _ => gateway.change(&json!({"percentage": percentage, "beta": beta, "reason": reason})).await,
        };
        match answer {
            // One that changed nothing, since another was first, has no event.
            Ok(_) if matches!(number % 20, 10 | 11) => {}
            Ok(_) => acknowledged.push(reason),
            // It is refused while the rollout is rolled back.
            Err(_) if gateway.flag().await.is_ok() => {}
            Err(_) => return (acknowledged, reason),
        }
    }
}

/// Looks whether state and history go together, and gives the reasons in the newest events.
async fn look(gateway: &Gateway, broken: &mut Vec<String>) -> BTreeSet<String> {
    let flag = gateway.flag().await.unwrap();
    let events = gateway.events(EVENTS).await.unwrap();
    let Some(newest) = events.first() else { return BTreeSet::new() };
    for (ours, theirs) in [("generation", &newest["generation"]), ("percentage", &newest["new"]["percentage"])] {
        if flag[ours] != *theirs {
            broken.push(format!("the state's {ours} is {}, the newest event's {theirs}", flag[ours]));
        }
    }
    let kept = |field: &str| flag.get(field).and_then(Value::as_f64);
    let percentage = kept("resume_percentage").or_else(|| kept("percentage")).unwrap();
    let marked = gateway.has_beta(MARKER).await.unwrap();
    if newest["generation"] != 1 && marked != (percentage >= MIDDLE) {
        broken.push(format!("half a change: {percentage} % with the marker {marked}"));
    }
    events.iter().filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect()
}
