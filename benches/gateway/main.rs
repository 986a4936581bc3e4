//! Tidegate beside bare pingora, nginx, `HAProxy`, Envoy and Traefik: requests a second, processor time, latency and memory.
//!
//! All run on the first processor, each with one thread for traffic; the load and the upstream run on the second. They take
//! turns for some rounds, so that the machine's moods touch all. Peers that are not on the machine are left out; `NGINX`,
//! `HAPROXY`, `ENVOY` and `TRAEFIK` say where a program is that is not in `PATH`. Tidegate and bare pingora are built alike,
//! unless `TIDEGATE` names another build of it.
//!
//! `cargo bench --profile dist --features mimalloc --bench gateway` measures what is shipped, and
//!
//! - `-- [ROUNDS] [WORD…]` those kinds of load whose names have all the words, e.g. `-- 5 small HTTP/1.1`,
//! - `-- builds ROUNDS NAME=PATH…` other builds of Tidegate beside this one, in many short turns,
//! - `-- memory` what idle connections and slow streams cost,
//! - `-- reload [ROUNDS]` Tidegate alone, with and without five million beta users being loaded meanwhile.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod bare;
mod gateways;
mod load;
mod memory;
mod process;
mod reload;
mod scenario;
mod upstream;

use std::env;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::gateways::{Gateway, LOAD_CPU, free_address, own_program, spawn, start_all, start_builds, tidegate};
use crate::load::{Measured, median};
use crate::scenario::{Protocol, Scenario};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFAULT_ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", listen, upstream] => bare::run(listen, upstream),
        ["upstream", listen] => upstream::run(listen),
        ["memory"] => memory(),
        ["builds", rounds, builds @ ..] => compare_builds(rounds.parse().unwrap(), builds),
        ["reload", rounds @ ..] => reloads(rounds.first().map_or(DEFAULT_ROUNDS, |text| text.parse().unwrap())),
        [rounds, words @ ..] if rounds.parse::<usize>().is_ok() => compare(rounds.parse().unwrap(), words),
        words => compare(DEFAULT_ROUNDS, words),
    }
}

/// The upstream, on the processor of the load.
async fn start_upstream(directory: &Path) -> (Child, String) {
    let address = free_address();
    let upstream = spawn(LOAD_CPU, own_program(), &["upstream", &address], directory);
    assert!(load::wait_for(&address).await, "the upstream does not listen");
    (upstream, address)
}

/// Keeps this program off the gateways' processor.
async fn stand_aside() {
    let own_id = std::process::id().to_string();
    let mut command = Command::new("taskset");
    let moved = command.args(["-cp", LOAD_CPU, &own_id]).stdout(Stdio::null()).status().await.unwrap();
    assert!(moved.success(), "taskset could not move this program to processor {LOAD_CPU}");
}

#[tokio::main(flavor = "current_thread")]
async fn compare(rounds: usize, words: &[&str]) {
    stand_aside().await;
    let directory = tempfile::tempdir().unwrap();
    let (_upstream, backend) = start_upstream(directory.path()).await;
    let all = start_all(directory.path(), &backend).await;
    let all_words = |scenario: &Scenario| words.iter().all(|word| scenario.name().contains(word));
    take_turns(rounds, &all, Scenario::all().into_iter().filter(all_words)).await;
}

#[tokio::main(flavor = "current_thread")]
async fn compare_builds(rounds: usize, builds: &[&str]) {
    stand_aside().await;
    let directory = tempfile::tempdir().unwrap();
    let (_upstream, backend) = start_upstream(directory.path()).await;
    let all = start_builds(directory.path(), &backend, builds).await;
    take_turns(rounds, &all, Scenario::short().into_iter()).await;
}

async fn take_turns(rounds: usize, all: &[Gateway], scenarios: impl Iterator<Item = Scenario>) {
    println!(
        "{rounds} rounds, in turn; medians, and [lowest, highest] of the processor time beside bare pingora's in that round"
    );
    for scenario in scenarios {
        let mut measured: Vec<Vec<Measured>> = all.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for (index, gateway) in all.iter().enumerate() {
                let address = if scenario.protocol == Protocol::H1 { &gateway.http1 } else { &gateway.http2 };
                let result = load::run(address, gateway.id(), &scenario).await;
                // The first round warms connections, caches and branch predictors.
                if round > 0 {
                    measured[index].push(result);
                }
            }
        }
        println!("\n{} requests: {}", scenario.requests, scenario.name());
        show(all, &measured);
    }
}

fn show(all: &[Gateway], measured: &[Vec<Measured>]) {
    println!(
        "{:<14} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9}  CPU / bare pingora",
        "", "requests/s", "CPU µs", "p50 ms", "p99 ms", "p99.9 ms", "peak MiB"
    );
    for (gateway, results) in all.iter().zip(measured) {
        let middle = |figure: fn(&Measured) -> f64| median(&mut results.iter().map(figure).collect::<Vec<_>>());
        let mut ratios: Vec<f64> = results.iter().zip(&measured[0]).map(|(it, bare)| it.cpu_us / bare.cpu_us).collect();
        let ratio = median(&mut ratios);
        println!(
            "{:<14} {:>10.0} {:>8.1} {:>8.2} {:>8.2} {:>8.2} {:>9.1}  {ratio:.2} [{:.2}, {:.2}]",
            gateway.name,
            middle(|it| it.requests_per_second),
            middle(|it| it.cpu_us),
            middle(|it| it.p50_ms),
            middle(|it| it.p99_ms),
            middle(|it| it.p999_ms),
            middle(|it| it.peak_memory_mib),
            ratios.first().unwrap(),
            ratios.last().unwrap(),
        );
    }
}

#[tokio::main(flavor = "current_thread")]
async fn memory() {
    stand_aside().await;
    let directory = tempfile::tempdir().unwrap();
    let (_upstream, backend) = start_upstream(directory.path()).await;
    memory::measure(directory.path(), &backend).await;
}

/// Measures requests with and without a reload of the beta list, in turn.
#[tokio::main(flavor = "current_thread")]
async fn reloads(rounds: usize) {
    stand_aside().await;
    let directory = tempfile::tempdir().unwrap();
    let (_upstream, backend) = start_upstream(directory.path()).await;
    std::fs::create_dir(directory.path().join("flags")).unwrap();
    let lists = [1, 2].map(|round| reload::prepare(directory.path(), round));
    std::fs::write(directory.path().join("flags/list.txt"), reload::list(0)).unwrap();
    let flag = "[beta]\nusers_file = \"list.txt\"\n";
    let (gateway, admin) = tidegate(directory.path(), &backend, "", flag).await;
    println!("latencies in ms from when each request was due, 2000 requests a second; one line for each measurement");
    println!(
        "{:<8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>12}",
        "reload", "requests", "p50", "p99", "p99.9", "max", "in force ms"
    );
    let mut tails = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        // Which of both comes first changes, so that neither always follows the other's aftermath.
        let with = round % 4 == 1 || round % 4 == 2;
        let next = with.then(|| lists[round / 2 % 2].as_path());
        let reload::Phase { requests, p50, p99, p999, max, reload } =
            reload::measure(&gateway.http1, &admin, directory.path(), next).await;
        let (name, reload) =
            (if with { "yes" } else { "no" }, reload.map_or_else(String::new, |ms| format!("{ms:.0}")));
        println!("{name:<8} {requests:>9} {p50:>8.2} {p99:>8.2} {p999:>8.2} {max:>8.2} {reload:>12}");
        tails[usize::from(with)].push(p999);
    }
    let mut ratios: Vec<f64> = tails[1].iter().zip(&tails[0]).map(|(with, without)| with / without).collect();
    let ratio = median(&mut ratios);
    let (lowest, highest) = (ratios.first().unwrap(), ratios.last().unwrap());
    let [mut without, mut with] = tails;
    println!(
        "p99.9, median of {rounds}: {:.2} ms without, {:.2} ms with a reload; with / without in pairs {ratio:.2} [{lowest:.2}, {highest:.2}]",
        median(&mut without),
        median(&mut with)
    );
}
