//! Gateways of a fleet killed and started anew at random under load, and the database restarted now and then: no outcome counts
//! twice, no acknowledged change is lost, no generation goes backwards, and all agree at the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::figures::line;
use crate::gateway::Gateway;
use crate::load::{Load, User, Users};
use crate::upstream::Upstreams;
use crate::{Chance, eventually, now};

/// Requests a second through each gateway.
const RATE: f64 = 40.0;

/// The canary's share at the beginning, in percent.
const SHARE: f64 = 30.0;

/// How many of a thousand answers of either arm are failures: neither is worse.
const FAILING: u64 = 10;

/// How often the database is restarted, as a crash does.
const DATABASE: Duration = Duration::from_secs(25);

const ARMS: [&str; 2] = ["stable", "canary"];
const CANARY: usize = 1;

/// What is promised and was not kept, each once.
#[derive(Debug, Default)]
struct Broken(std::sync::Mutex<BTreeSet<String>>);

impl Broken {
    fn note(&self, promise: String) {
        self.0.lock().unwrap().insert(promise);
    }
}

/// What goes on at once.
#[derive(Debug, Clone)]
struct Run {
    fleet: Arc<Vec<Arc<Gateway>>>,
    upstreams: Arc<Upstreams>,
    stop: Arc<AtomicBool>,
    broken: Arc<Broken>,
    kills: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    unread: Arc<AtomicU64>,
    acknowledged: Arc<std::sync::Mutex<Vec<(String, u64)>>>,
}

#[tokio::main]
pub(crate) async fn prove(span: Duration, gateways: usize) -> Vec<String> {
    let (cluster, upstreams) = (Cluster::start(), Arc::new(Upstreams::start().await));
    let fleet = Arc::new(Gateway::fleet(gateways, &upstreams, &cluster.database("kills").await, SHARE).await);
    (0..2).for_each(|arm| upstreams.fail(arm, FAILING));
    let users: Users =
        Arc::new(|number| User { name: format!("user-{}", number % 5000), traced: false, variant: None });
    let load = Load::start(&fleet, RATE, &users);
    let run = Run {
        fleet,
        upstreams,
        stop: Arc::default(),
        broken: Arc::default(),
        kills: Arc::default(),
        looks: Arc::default(),
        unread: Arc::default(),
        acknowledged: Arc::default(),
    };
    let mut tasks = JoinSet::new();
    for index in 0..gateways {
        tasks.spawn(kill(run.clone(), index));
        tasks.spawn(look(run.clone(), index));
    }
    tasks.spawn(change(run.clone()));

    let (began, mut restarts) = (now(), 0);
    while began.elapsed() < span {
        let left = span.saturating_sub(began.elapsed());
        sleep(left.min(DATABASE)).await;
        if left > DATABASE {
            cluster.restart();
            restarts += 1;
        }
    }
    run.stop.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    let results = load.stop().await;
    let acknowledged = std::mem::take(&mut *run.acknowledged.lock().unwrap());
    agree(&run).await;
    let (requests, failures) = run.upstreams.counts(CANARY);
    let flag = run.fleet[0].flag().await.unwrap();
    let judged = harm(&flag).map_or(0, |harm| harm["requests"].as_u64().unwrap());
    history(&run, &acknowledged).await;

    println!("{gateways} gateways over one PostgreSQL, each killed and started anew at random, for {span:?}\n");
    line("kill -9 of a gateway", run.kills.load(Ordering::SeqCst));
    line("restarts of PostgreSQL, as a crash does", restarts);
    line("requests", results.asked());
    line("of them broken off by the kills", results.failed());
    line("canary requests that the canary got", requests);
    line("of them judged: never more than it got", judged);
    line("of them lost with a killed gateway", requests.saturating_sub(judged));
    line("failures of the canary", failures);
    line("looks at the evidence of a gateway", run.looks.load(Ordering::SeqCst));
    line("looks at one that had not reached the database yet", run.unread.load(Ordering::SeqCst));
    line("acknowledged changes, all of them in the history", acknowledged.len());
    line("generation at the end, the same on all", &flag["generation"]);
    println!();
    let broken = std::mem::take(&mut *run.broken.0.lock().unwrap());
    broken.into_iter().collect()
}

/// Kills a gateway and starts it anew, again and again.
async fn kill(run: Run, index: usize) {
    let mut chance = Chance(index as u64 * 101 + 1);
    while !run.stop.load(Ordering::SeqCst) {
        sleep(chance.pause(300, 5000)).await;
        run.fleet[index].kill().await;
        run.kills.fetch_add(1, Ordering::SeqCst);
        sleep(chance.pause(1, 600)).await;
        run.fleet[index].start().await;
    }
}

/// The row of the evidence that counts all of the canary's requests.
fn harm(flag: &Value) -> Option<&Value> {
    flag["evidence"].as_array()?.iter().find(|row| row["check"] == "harm_budget")
}

/// Looks at what a gateway says, again and again: nothing may be more than there was, and nothing may go back.
async fn look(run: Run, index: usize) {
    let mut newest = 0;
    while !run.stop.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(100)).await;
        let Ok(flag) = run.fleet[index].flag().await else { continue };
        // Read after it: what the gateway counted, the canary got before.
        let counts = [0, 1].map(|arm| run.upstreams.counts(arm));
        if flag["rollback"]["cause"] == "store_unreached" {
            // It was started while the database was down, and claims to know nothing.
            run.unread.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        run.looks.fetch_add(1, Ordering::SeqCst);
        check(&run, &flag, counts);
        let generation = flag["generation"].as_u64().unwrap();
        if generation < newest {
            run.broken.note(format!("gateway {index} went back from generation {newest} to {generation}"));
        }
        newest = generation.max(newest);
    }
}

fn check(run: &Run, flag: &Value, counts: [(u64, u64); 2]) {
    let more = |what: &str, row: &Value, (requests, failures): (u64, u64)| {
        let (counted, failed) = (row["requests"].as_u64().unwrap(), row["failures"].as_u64().unwrap());
        if counted > requests {
            run.broken.note(format!("{what} counts {counted} requests of {requests}"));
        }
        let failures_only = what == "max_error_rate" || what == "error_rate" || ARMS.contains(&what);
        if failures_only && failed > failures {
            run.broken.note(format!("{what} counts {failed} failures of {failures}"));
        }
    };
    for row in flag["evidence"].as_array().unwrap() {
        more(row["check"].as_str().unwrap(), row, counts[CANARY]);
    }
    for (name, counts) in ARMS.into_iter().zip(counts) {
        more(name, &flag["arms"][name], counts);
    }
    if flag["phase"] == "rolled_back" {
        run.broken.note(format!("a healthy canary was rolled back: {}", flag["rollback"]["cause"]));
    }
}

/// Moves the percentage again and again, each time by a gateway that runs.
async fn change(run: Run) {
    let mut chance = Chance(99);
    for number in 0_u32.. {
        if run.stop.load(Ordering::SeqCst) {
            return;
        }
        sleep(chance.pause(50, 400)).await;
        let gateway = &run.fleet[usize::try_from(chance.below(run.fleet.len() as u64)).unwrap()];
        let reason = format!("change {number}");
        let percentage = 20.0 + f64::from(number % 40);
        if let Ok(flag) = gateway.set(percentage, &reason).await {
            let flag = flag.get("flag").unwrap_or(&flag);
            run.acknowledged.lock().unwrap().push((reason, flag["generation"].as_u64().unwrap()));
        }
    }
}

/// Waits until all gateways say the same of the rollout and of the evidence.
async fn agree(run: &Run) {
    eventually("all gateways agree", || async {
        let mut said = BTreeSet::new();
        for gateway in run.fleet.iter() {
            let Ok(flag) = gateway.flag().await else { return false };
            let judged = harm(&flag).map(|row| row["requests"].clone());
            said.insert(json!([flag["generation"], flag["percentage"], flag["phase"], judged]).to_string());
        }
        said.len() == 1
    })
    .await;
}

/// Holds the audit trail against what was acknowledged.
async fn history(run: &Run, acknowledged: &[(String, u64)]) {
    let events = run.fleet[0].all_events().await;
    let generations: Vec<_> = events.iter().map(|event| event["generation"].as_u64().unwrap()).collect();
    if !generations.is_sorted_by(|newer, older| newer > older) {
        run.broken.note("generations in the history do not grow".to_owned());
    }
    let reasons: BTreeSet<_> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    for (reason, generation) in acknowledged {
        if !reasons.contains(reason.as_str()) || generations.first().is_none_or(|newest| newest < generation) {
            run.broken.note(format!("`{reason}`, acknowledged as generation {generation}, is lost"));
        }
    }
    if let Err(problem) = run.fleet[0].verify().await {
        run.broken.note(format!("the audit trail is not whole: {problem}"));
    }
}
