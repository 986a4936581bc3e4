//! How much a failing canary gets before a fleet takes it out, beside a single gateway with the same traffic.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::eventually;
use crate::figures::median;
use crate::gateway::Gateway;
use crate::load::{Load, User, Users};
use crate::upstream::Upstreams;

/// Requests a second through all gateways together.
const RATE: f64 = 200.0;

/// The canary's share, in percent.
const SHARE: f64 = 20.0;

/// How many of a thousand of the failing canary's answers are failures.
const FAILING: u64 = 300;

/// How long both arms are well before.
const WELL: Duration = Duration::from_secs(2);

/// What was under way at the rollback has ended by then.
const AFTER: Duration = Duration::from_millis(700);

/// How much more a fleet may need than one gateway, by the medians.
const AT_MOST: f64 = 1.25;

const CANARY: usize = 1;

/// One fleet with its traffic.
#[derive(Debug)]
struct Side {
    upstreams: Upstreams,
    gateways: Vec<Arc<Gateway>>,
}

impl Side {
    async fn start(gateways: usize, store: &str) -> Self {
        let upstreams = Upstreams::start().await;
        let gateways = Gateway::fleet(gateways, &upstreams, store, SHARE).await;
        Self { upstreams, gateways }
    }

    /// What the canary got from its breaking down on: outcomes in the evidence when it was found worse, and requests until its
    /// end.
    async fn round(&self, users: &Users) -> [f64; 2] {
        let (begun, _) = self.upstreams.counts(CANARY);
        let load = Load::start(&self.gateways, RATE / self.gateways.len() as f64, users);
        sleep(WELL).await;
        let (before, _) = self.upstreams.counts(CANARY);
        self.upstreams.fail(CANARY, FAILING);
        for gateway in &self.gateways {
            gateway.until("phase", &json!("rolled_back")).await;
        }
        sleep(AFTER).await;
        let (after, _) = self.upstreams.counts(CANARY);
        load.stop().await;
        let flag = self.gateways[0].flag().await.unwrap();
        let rows = flag["rollback"]["evidence"].as_array().unwrap();
        let judged = rows.iter().find(|row| row["check"] == "harm_budget").unwrap()["requests"].as_u64().unwrap();
        self.upstreams.fail(CANARY, 0);
        eventually("it is resumed", || async { self.gateways[0].act("resume", "another round").await.is_ok() }).await;
        for gateway in &self.gateways {
            gateway.until("phase", &json!("manual")).await;
        }
        // The trial began when the last rollback was lifted, with the first of the requests of this round.
        [judged.saturating_sub(before - begun) as f64, (after - before) as f64]
    }
}

#[tokio::main]
pub(crate) async fn prove(gateways: usize, rounds: usize) -> Vec<String> {
    let cluster = Cluster::start();
    let one = Side::start(1, &cluster.database("one").await).await;
    let fleet = Side::start(gateways, &cluster.database("fleet").await).await;
    let users: Users = Arc::new(|number| User { name: format!("user-{number}"), traced: false, variant: None });
    let mut sides = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for _ in 0..rounds {
        for (figures, side) in sides.iter_mut().zip([&one, &fleet]) {
            for (figures, figure) in figures.iter_mut().zip(side.round(&users).await) {
                figures.push(figure);
            }
        }
    }
    println!(
        "a canary with {SHARE} % of {RATE} requests a second begins to fail {} % of them; {rounds} rounds in turn;",
        FAILING / 10
    );
    println!("what it got from then on: median [least, most]\n");
    println!("{:<14} {:>34} {:>34}", "", "outcomes judged when found worse", "requests until its end");
    let shown = |values: &[f64]| {
        let range = |(least, most): (f64, f64), one: &f64| (least.min(*one), most.max(*one));
        let (least, most) = values.iter().fold((f64::MAX, 0.0), range);
        format!("{:.1} [{least:.0}, {most:.0}]", median(values))
    };
    for (name, [judged, requests]) in ["one gateway".to_owned(), format!("{gateways} gateways")].iter().zip(&sides) {
        println!("{name:<14} {:>34} {:>34}", shown(judged), shown(requests));
    }
    let [judged, requests] = [0, 1].map(|figure| median(&sides[1][figure]) / median(&sides[0][figure]));
    println!("\nthe fleet judges {judged:.2} of the outcomes of one gateway, at most {AT_MOST} as promised,");
    println!("and lets {requests:.2} of its requests through\n");
    if judged > AT_MOST {
        vec![format!("split evidence is slower: {judged:.2} times the outcomes")]
    } else {
        Vec::new()
    }
}
