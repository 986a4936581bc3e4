//! Tidegate beside a bare pingora proxy: requests a second, CPU time a request, and latency.
//!
//! Both are built alike and run on the first processor; the load and the upstream run on the second. They take turns for
//! some rounds, so that the machine's moods touch both. Run it with `cargo bench --bench gateway`, and with
//! `--profile dist --features mimalloc` for what is shipped; `-- ROUNDS CONNECTIONS REQUESTS` changes the defaults.
//!
//! `-- reload [ROUNDS]` measures Tidegate alone, with and without five million beta users being loaded meanwhile.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod bare;
mod load;
mod reload;

use std::env;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load::{Measured, median};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFAULT_ROUNDS: usize = 5;
const DEFAULT_CONNECTIONS: usize = 64;
const DEFAULT_REQUESTS: usize = 100_000;

/// The processor of the proxies.
const PROXY_CPU: &str = "0";

/// The processor of the load and the upstream.
const LOAD_CPU: &str = "1";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", listen, upstream] => bare::run(listen, upstream),
        ["upstream", listen] => upstream(listen),
        ["reload", rounds @ ..] => reloads(rounds.first().map_or(DEFAULT_ROUNDS, |text| text.parse().unwrap())),
        numbers => {
            let number = |index: usize, default| numbers.get(index).map_or(default, |text| text.parse().unwrap());
            let rounds = number(0, DEFAULT_ROUNDS);
            compare(rounds, number(1, DEFAULT_CONNECTIONS), number(2, DEFAULT_REQUESTS));
        }
    }
}

/// The backend of both proxies: it answers at once, with a small body.
#[tokio::main(flavor = "current_thread")]
async fn upstream(listen: &str) {
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    axum::serve(listener, Router::new().fallback(async || "a small answer")).await.unwrap();
}

#[tokio::main(flavor = "current_thread")]
async fn compare(rounds: usize, connections: usize, requests: usize) {
    let own_id = std::process::id().to_string();
    assert!(
        Command::new("taskset")
            .args(["-cp", LOAD_CPU, &own_id])
            .stdout(Stdio::null())
            .status()
            .await
            .unwrap()
            .success()
    );
    let directory = tempfile::tempdir().unwrap();
    let program = env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let (backend, bare) = (free_address(), free_address());
    let _upstream = spawn(LOAD_CPU, program, &["upstream", &backend], directory.path());
    let bare_process = spawn(PROXY_CPU, program, &["bare", &bare, &backend], directory.path());
    let (tidegate_process, tidegate) = start_tidegate(directory.path(), &backend).await;
    for address in [&backend, &bare, &tidegate] {
        load::wait_for(address).await;
    }

    println!(
        "{requests} requests over {connections} connections, {rounds} rounds, in turn; medians, and [lowest, highest]"
    );
    let mut measured: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        let turn = [(&bare, &bare_process), (&tidegate, &tidegate_process)];
        for (index, (address, process)) in turn.into_iter().enumerate() {
            let result = load::run(address, process.id().unwrap(), connections, requests).await;
            // The first round warms connections, caches and branch predictors.
            if round > 0 {
                measured[index].push(result);
            }
        }
    }
    let [bare, tidegate] = &measured;
    type Figure = (&'static str, fn(&Measured) -> f64);
    let figures: [Figure; 5] = [
        ("requests/s", |measured| measured.requests_per_second),
        ("CPU µs/request", |measured| measured.cpu_us),
        ("p50 ms", |measured| measured.p50_ms),
        ("p99 ms", |measured| measured.p99_ms),
        ("peak memory MiB", |measured| measured.peak_memory_mib),
    ];
    println!("{:<16} {:>28} {:>28} {:>24}", "", "bare pingora", "tidegate", "tidegate / bare");
    for (name, figure) in figures {
        let of = |measured: &[Measured]| measured.iter().map(figure).collect::<Vec<_>>();
        let ratios = bare.iter().zip(tidegate).map(|(bare, tidegate)| figure(tidegate) / figure(bare)).collect();
        println!("{name:<16} {:>28} {:>28} {:>24}", shown(of(bare)), shown(of(tidegate)), shown(ratios));
    }
}

/// Measures requests with and without a reload of the beta list, in turn.
#[tokio::main(flavor = "current_thread")]
async fn reloads(rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let program = env::current_exe().unwrap();
    let backend = free_address();
    let _upstream = spawn(LOAD_CPU, program.to_str().unwrap(), &["upstream", &backend], directory.path());
    std::fs::create_dir(directory.path().join("flags")).unwrap();
    std::fs::write(directory.path().join("flags/list.txt"), reload::list(0)).unwrap();
    let (_process, http, admin) = start_with(directory.path(), &backend, "[beta]\nusers_file = \"list.txt\"\n").await;
    load::wait_for(&http).await;
    println!("latencies in ms from when each request was due, 2000 requests a second; one line for each measurement");
    println!(
        "{:<8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>12}",
        "reload", "requests", "p50", "p99", "p99.9", "max", "in force ms"
    );
    let mut tails = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        let with = round % 2 == 1;
        let next = reload::prepare(directory.path(), round + 1);
        let reload::Phase { requests, p50, p99, p999, max, reload } =
            reload::measure(&http, &admin, directory.path(), &next, with).await;
        let (name, reload) =
            (if with { "yes" } else { "no" }, reload.map_or_else(String::new, |ms| format!("{ms:.0}")));
        println!("{name:<8} {requests:>9} {p50:>8.2} {p99:>8.2} {p999:>8.2} {max:>8.2} {reload:>12}");
        tails[usize::from(with)].push(p999);
    }
    let [mut without, mut with] = tails;
    println!(
        "p99.9, median of {rounds}: {:.2} ms without, {:.2} ms with a reload",
        median(&mut without),
        median(&mut with)
    );
}

fn shown(mut values: Vec<f64>) -> String {
    let middle = median(&mut values);
    format!("{middle:.2} [{:.2}, {:.2}]", values.first().unwrap(), values.last().unwrap())
}

/// An address that was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn spawn(cpu: &str, program: &str, arguments: &[&str], directory: &Path) -> Child {
    let mut command = Command::new("taskset");
    command.args(["-c", cpu, program]).args(arguments).current_dir(directory).env_clear();
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).stdout(Stdio::piped()).spawn().unwrap()
}

async fn start_tidegate(directory: &Path, backend: &str) -> (Child, String) {
    std::fs::create_dir(directory.join("flags")).unwrap();
    let (process, http, _) = start_with(directory, backend, "").await;
    (process, http)
}

/// Starts a gateway whose flag file has `more`, and gives the addresses of gateway and admin API.
async fn start_with(directory: &Path, backend: &str, more: &str) -> (Child, String, String) {
    let flags = directory.join("flags");
    let config = format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [backends.sync]\nservers = [\"{backend}\"]\n[backends.async]\nservers = [\"{backend}\"]\n"
    );
    std::fs::write(directory.join("tidegate.toml"), config).unwrap();
    let flag = format!("release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 10\n{more}");
    std::fs::write(flags.join("async-database.toml"), flag).unwrap();
    let mut process = spawn(PROXY_CPU, env!("CARGO_BIN_EXE_tidegate"), &["serve"], directory);
    let mut greeting = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut addresses = Vec::new();
    while addresses.len() < 2 {
        let line = tokio::time::timeout(Duration::from_secs(60), greeting.next_line()).await.unwrap().unwrap().unwrap();
        let address = line.trim().strip_prefix("gateway").or_else(|| line.trim().strip_prefix("admin"));
        addresses.extend(address.map(|address| address.trim().trim_start_matches("http://").to_owned()));
    }
    // Whoever reads the greeting goes on reading it, so that nothing is ever written into a closed pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = greeting.next_line().await {} });
    let [http, admin] = addresses.try_into().unwrap();
    (process, http, admin)
}
