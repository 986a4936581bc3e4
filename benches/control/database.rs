//! The database stopped, restarted, made to hang and filled up under load: no request fails, changes are refused with the reason,
//! a canary that goes bad meanwhile is taken out all the same, and what was acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::gateway::Gateway;
use crate::load::{Load, User, Users};
use crate::upstream::Upstreams;
use crate::{eventually, now};

/// Gateways, and requests a second through each.
const GATEWAYS: usize = 3;
const RATE: f64 = 60.0;

/// The canary's share, in percent.
const SHARE: f64 = 30.0;

/// How many of a thousand of the failing canary's answers are failures.
const FAILING: u64 = 500;

const CANARY: usize = 1;

/// The room of the small disk, in MiB: a new cluster takes some 60 of it.
const DISK: u32 = 160;

/// How many changes are tried until a full disk refuses one.
const UNTIL_FULL: usize = 2000;

/// What is done to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Restart,
    Stop,
    Hang,
    Fill,
}

impl Harm {
    const ALL: [Self; 4] = [Self::Restart, Self::Stop, Self::Hang, Self::Fill];

    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restarted",
            Self::Stop => "stopped",
            Self::Hang => "hung",
            Self::Fill => "full",
        }
    }

    fn begin(self, cluster: &Cluster) {
        match self {
            Self::Restart => cluster.restart(),
            Self::Stop => cluster.stop(),
            Self::Hang => cluster.signal("STOP"),
            Self::Fill => cluster.fill(true),
        }
    }

    fn end(self, cluster: &Cluster) {
        match self {
            Self::Restart => {}
            Self::Stop => assert!(cluster.begin()),
            Self::Hang => cluster.signal("CONT"),
            Self::Fill => {
                cluster.fill(false);
                // A server that cannot write its log ends, as it has to. Whoever runs it starts it again.
                if !cluster.is_up() {
                    assert!(cluster.begin());
                }
            }
        }
    }
}

/// A row of the table.
#[derive(Debug, Default)]
struct Row {
    requests: u64,
    failed: u64,
    acknowledged: usize,
    refused: usize,
    reason: String,
    rolled_back: Option<Duration>,
    stored: Option<Duration>,
}

#[tokio::main]
pub(crate) async fn prove(only: Option<&str>) -> Vec<String> {
    let mut broken = Vec::new();
    println!(
        "{GATEWAYS} gateways, {RATE} requests a second through each; the canary fails half of its requests in the outage\n"
    );
    println!(
        "{:<16} {:>9} {:>7} {:>13} {:>8} {:>14} {:>11}  refused since",
        "database", "requests", "failed", "acknowledged", "refused", "out after s", "stored s"
    );
    for harm in Harm::ALL.into_iter().filter(|harm| only.is_none_or(|only| harm.name() == only)) {
        let cluster = if harm == Harm::Fill { Cluster::on_small_disk(DISK) } else { Some(Cluster::start()) };
        let Some(cluster) = cluster else {
            println!("{:<16} not done: nobody may mount a file system here", harm.name());
            continue;
        };
        let row = outage(harm, &cluster, &mut broken).await;
        let seconds = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.2}", time.as_secs_f64()));
        println!(
            "{:<16} {:>9} {:>7} {:>13} {:>8} {:>14} {:>11}  {}",
            harm.name(),
            row.requests,
            row.failed,
            row.acknowledged,
            row.refused,
            seconds(row.rolled_back),
            seconds(row.stored),
            row.reason
        );
    }
    println!();
    broken
}

async fn outage(harm: Harm, cluster: &Cluster, broken: &mut Vec<String>) -> Row {
    let upstreams = Upstreams::start().await;
    let fleet = Gateway::fleet(GATEWAYS, &upstreams, &cluster.database("outage").await, SHARE).await;
    let users: Users = Arc::new(|number| User { name: format!("user-{number}"), traced: false, variant: None });
    let load = Load::start(&fleet, RATE, &users);
    let (mut row, mut acknowledged) = (Row::default(), Vec::new());
    let mut set = async |row: &mut Row, number: usize| {
        let reason = format!("change {number}");
        match fleet[number % GATEWAYS].set(SHARE + (number % 20) as f64, &reason).await {
            Ok(_) => acknowledged.push(reason),
            Err(problem) => {
                row.refused += 1;
                row.reason = problem;
            }
        }
    };
    for number in 1..10 {
        set(&mut row, number).await;
    }
    if row.refused > 0 {
        broken.push(format!("a change was refused before the outage: {}", row.reason));
    }
    sleep(Duration::from_secs(2)).await;

    harm.begin(cluster);
    let tries = if harm == Harm::Fill { UNTIL_FULL } else { 2 * GATEWAYS };
    for number in 0..tries {
        set(&mut row, 10 + number).await;
        if harm == Harm::Fill && row.refused > GATEWAYS {
            break;
        }
    }
    if harm != Harm::Restart && row.refused == 0 {
        broken.push(format!("{}: no change was refused", harm.name()));
    }
    let breaks = now();
    upstreams.fail(CANARY, FAILING);
    for gateway in &fleet {
        gateway.until("phase", &json!("rolled_back")).await;
    }
    row.rolled_back = Some(breaks.elapsed());
    sleep(Duration::from_secs(1)).await;
    upstreams.fail(CANARY, 0);

    harm.end(cluster);
    let back = now();
    for gateway in &fleet {
        eventually("nothing is wrong any more", || async {
            gateway.get("/ready").await.is_ok_and(|ready| ready["problems"] == json!([]))
        })
        .await;
        gateway.until("phase", &json!("rolled_back")).await;
    }
    row.stored = Some(back.elapsed());
    let events = fleet[0].all_events().await;
    check(harm, &events, &acknowledged, broken);
    broken.extend(fleet[0].verify().await.err().map(|problem| format!("{}: {problem}", harm.name())));
    eventually("changes are taken again", || async { fleet[1].act("resume", "it is over").await.is_ok() }).await;
    for gateway in &fleet {
        gateway.until("phase", &json!("manual")).await;
    }
    let results = load.stop().await;
    if results.failed() > 0 {
        broken.push(format!("{}: {} requests failed: {}", harm.name(), results.failed(), results.told()));
    }
    Row { requests: results.asked(), failed: results.failed(), acknowledged: acknowledged.len(), ..row }
}

fn check(harm: Harm, events: &[Value], acknowledged: &[String], broken: &mut Vec<String>) {
    let reasons: BTreeSet<_> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    for lost in acknowledged.iter().filter(|reason| !reasons.contains(reason.as_str())) {
        broken.push(format!("{}: `{lost}` was acknowledged and is lost", harm.name()));
    }
    if !events.iter().any(|event| event["action"] == "rollback" && event["actor"] == "judge") {
        broken.push(format!("{}: the rollback is not in the history", harm.name()));
    }
}
