//! From the acknowledgement of a change to the last request that any gateway decides the old way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::figures::{HEAD, Times};
use crate::gateway::Gateway;
use crate::load::{Connection, Load, User, Users};
use crate::upstream::Upstreams;
use crate::{Chance, eventually, now};

/// What the ninety-ninth percentile has to stay under.
const GOAL: Duration = Duration::from_millis(250);

/// Requests a second through each gateway.
const RATE: f64 = 100.0;

/// The shares that the rollout goes between, in percent.
const LOW: f64 = 10.0;
const HIGH: f64 = 60.0;

const STABLE: usize = 0;
const CANARY: usize = 1;

/// How many users ask.
const USERS: usize = 60;

#[tokio::main]
pub(crate) async fn prove(gateways: usize, changes: usize) -> Vec<String> {
    let (cluster, upstreams) = (Cluster::start(), Upstreams::start().await);
    let fleet = Gateway::fleet(gateways, &upstreams, &cluster.database("propagate").await, LOW).await;
    let users = users(&fleet[0]).await;
    let load = Load::start(&fleet, RATE, &users);
    settled(&upstreams, STABLE, gateways).await;

    let (mut sets, mut rollbacks, mut chance) = (Times::default(), Times::default(), Chance(7));
    let mut broken = Vec::new();
    for number in 0..changes {
        sleep(chance.pause(20, 120)).await;
        let up = number % 2 == 0;
        let asked = fleet[number % gateways].set(if up { HIGH } else { LOW }, "propagate").await;
        let (acknowledged, new) = (now(), if up { CANARY } else { STABLE });
        broken.extend(asked.err().map(|error| format!("a change was refused: {error}")));
        sets.push(lateness(&upstreams, new, acknowledged, gateways).await);
    }
    fleet[0].set(HIGH, "propagate").await.unwrap();
    settled(&upstreams, CANARY, gateways).await;
    for number in 0..changes.div_ceil(10) {
        sleep(chance.pause(20, 120)).await;
        let rolled_back = fleet[number % gateways].act("rollback", "propagate").await;
        let acknowledged = now();
        if !rolled_back.is_ok_and(|answer| answer["saved"] == true) {
            broken.push("a rollback was not saved".to_owned());
        }
        rollbacks.push(lateness(&upstreams, STABLE, acknowledged, gateways).await);
        fleet[(number + 1) % gateways].until("phase", &json!("rolled_back")).await;
        fleet[(number + 1) % gateways].act("resume", "propagate").await.unwrap();
        settled(&upstreams, CANARY, gateways).await;
    }
    let results = load.stop().await;

    println!(
        "{gateways} gateways, {RATE} requests a second through each; from the acknowledgement to the last request"
    );
    println!("that any of them decided the old way\n{HEAD}");
    println!("{}\n{}", sets.row("set, between 10 % and 60 %"), rollbacks.row("rollback"));
    println!("{} requests, {} failed\n", results.asked(), results.failed());
    for (name, times) in [("set", &sets), ("rollback", &rollbacks)] {
        if times.quantile(0.99) >= GOAL {
            broken.push(format!("the p99 of `{name}` is not below {} ms", GOAL.as_millis()));
        }
    }
    if results.failed() > 0 {
        broken.push(format!("{} requests failed: {}", results.failed(), results.told()));
    }
    let flipped = results.flipped.load(Ordering::SeqCst);
    if flipped > 0 {
        broken.push(format!("{flipped} requests of users whom no change concerns got another variant"));
    }
    broken
}

/// Users whose decision changes between both shares, and some who are on stable under both. The former are traced.
async fn users(gateway: &Gateway) -> Users {
    let mut connection = Connection::open(gateway.place().unwrap().http).await.unwrap();
    let mut variants = [Vec::new(), Vec::new()];
    for (variants, share) in variants.iter_mut().zip([HIGH, LOW]) {
        gateway.set(share, "to find users").await.unwrap();
        for user in 0..4 * USERS {
            variants.push(connection.ask("/api/v1/x", &format!("user-{user}")).await.unwrap().variant);
        }
    }
    let [high, low] = variants;
    let user = |(index, (high, low)): (usize, (&String, &String))| {
        let traced = high != low;
        // A rollback concerns those on canary, too.
        let stays = high == "sync" && low == "sync";
        let user = User { name: format!("user-{index}"), traced, variant: stays.then_some("sync") };
        (traced || stays).then_some(user)
    };
    let all = high.iter().zip(&low).enumerate().filter_map(user);
    let (moving, staying): (Vec<_>, Vec<_>) = all.partition(|user| user.traced);
    let users: Vec<_> = moving.into_iter().take(USERS).chain(staying.into_iter().take(USERS / 10)).collect();
    Arc::new(move |number| users[usize::try_from(number).unwrap() % users.len()].clone())
}

/// Waits until all gateways decide for `arm`.
async fn settled(upstreams: &Upstreams, arm: usize, gateways: usize) {
    eventually("all gateways decide the new way", || async { upstreams.all_send_to(arm, gateways) }).await;
}

async fn lateness(upstreams: &Upstreams, new: usize, acknowledged: Instant, gateways: usize) -> Duration {
    settled(upstreams, new, gateways).await;
    upstreams.last_after(1 - new, acknowledged, gateways)
}
