//! What a comparison found: as a table, and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::CompareArgs;
use crate::cli::compare::load::{Tally, Work};
use crate::cli::compare::process::{Target, Usage};
use crate::cli::compare::statistics::{mean, ratio};
use crate::cli::output::table;

/// One variant at one concurrency.
#[derive(Debug)]
pub(crate) struct Cell {
    variant: String,
    concurrency: usize,
    rounds: Vec<Round>,
    whole: Option<Tally>,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    p99_ms: f64,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    connections: Option<u64>,
    threads: Option<u64>,
}

impl Cell {
    pub(crate) fn new(variant: &str, concurrency: usize) -> Self {
        Self { variant: variant.to_owned(), concurrency, rounds: Vec::new(), whole: None }
    }

    /// Adds a round that was measured for `duration`.
    pub(crate) fn add(&mut self, tally: Tally, usage: Usage, duration: Duration) -> anyhow::Result<()> {
        self.rounds.push(Round {
            per_second: tally.answers as f64 / duration.as_secs_f64(),
            p99_ms: quantile(&tally.latencies, 0.99),
            cpu_seconds: usage.cpu_seconds,
            memory_bytes: usage.memory_bytes,
            connections: usage.connections,
            threads: usage.threads,
        });
        match &mut self.whole {
            Some(whole) => whole.add(&tally)?,
            None => self.whole = Some(tally),
        }
        Ok(())
    }

    fn result(&self) -> Option<Measured> {
        let whole = self.whole.as_ref()?;
        let rates: Vec<f64> = self.rounds.iter().map(|round| round.per_second).collect();
        let (per_second, half) = mean(&rates)?;
        let requests = whole.answers.saturating_add(whole.errors);
        let cpu: Option<f64> = self.rounds.iter().map(|round| round.cpu_seconds).sum();
        let latency = |share| quantile(&whole.latencies, share);
        Some(Measured {
            variant: self.variant.clone(),
            concurrency: self.concurrency,
            rounds: self.rounds.len(),
            per_second,
            per_second_half_interval: half,
            p50_ms: latency(0.5),
            p95_ms: latency(0.95),
            p99_ms: latency(0.99),
            p999_ms: latency(0.999),
            closed_loop_corrected_p99_ms: None,
            requests,
            errors: whole.errors,
            cpu_ms_per_request: cpu.map(|cpu| cpu * 1e3 / (requests.max(1) as f64)),
            memory_mib: self.rounds.iter().filter_map(|round| round.memory_bytes).max().map(|bytes| bytes as f64 / MIB),
            connections: self.rounds.iter().filter_map(|round| round.connections).max(),
            threads: self.rounds.iter().filter_map(|round| round.threads).max(),
        })
    }

    /// The 99th percentile as it would be had every client asked as often as it mostly does, whether or not it was answered: what a closed loop leaves out while it waits is put back (Tene: "How NOT to measure latency"; the
    /// correction is `HdrHistogram`'s).
    fn corrected_p99(&self) -> Option<f64> {
        let whole = self.whole.as_ref()?;
        let corrected = whole.latencies.clone_correct(whole.latencies.value_at_quantile(0.5).max(1));
        Some(quantile(&corrected, 0.99))
    }
}

const MIB: f64 = 1024.0 * 1024.0;

fn quantile(latencies: &Histogram<u64>, share: f64) -> f64 {
    latencies.value_at_quantile(share) as f64 / 1e3
}

/// What was measured of one variant at one concurrency.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) variant: String,
    pub(crate) concurrency: usize,
    rounds: usize,
    /// Good answers a second, on average of the rounds.
    pub(crate) per_second: f64,
    /// Half of its 95 % confidence interval.
    per_second_half_interval: Option<f64>,
    p50_ms: f64,
    p95_ms: f64,
    pub(crate) p99_ms: f64,
    p999_ms: f64,
    /// Of a closed loop only: an open loop's latencies need no correction, since each counts from when it was due.
    closed_loop_corrected_p99_ms: Option<f64>,
    requests: u64,
    errors: u64,
    /// Processor time of the service.
    cpu_ms_per_request: Option<f64>,
    /// The most that was resident.
    memory_mib: Option<f64>,
    /// The most connections to the database.
    connections: Option<u64>,
    threads: Option<u64>,
}

/// How the second variant stands to the first at one concurrency: factors, each with the bounds of its 95 % confidence
/// interval.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Factor {
    concurrency: usize,
    throughput: f64,
    throughput_interval: Option<(f64, f64)>,
    p99: f64,
    p99_interval: Option<(f64, f64)>,
    memory: Option<f64>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The variants, in the order of the factors.
    pub(crate) variants: Vec<String>,
    mode: &'static str,
    work: Option<Work>,
    path: Option<String>,
    rate: Option<f64>,
    think_ms: u128,
    query_ms: u128,
    warm_up_ms: u128,
    duration_ms: u128,
    /// Whether it was interrupted; what is here was measured in full.
    pub(crate) stopped_early: bool,
    pub(crate) measured: Vec<Measured>,
    factors: Vec<Factor>,
}

impl Report {
    pub(crate) fn new(args: &CompareArgs, targets: &[Target]) -> Self {
        Self {
            variants: targets.iter().map(|target| target.name.clone()).collect(),
            mode: if args.rate.is_some() { "open" } else { "closed" },
            work: args.path.is_none().then_some(args.work),
            path: args.path.clone(),
            rate: args.rate,
            think_ms: args.think.as_millis(),
            query_ms: args.query.as_millis(),
            warm_up_ms: args.warmup.as_millis(),
            duration_ms: args.duration.as_millis(),
            stopped_early: false,
            measured: Vec::new(),
            factors: Vec::new(),
        }
    }

    /// Adds what was measured at one concurrency, if anything was.
    pub(crate) fn add(&mut self, cells: &[Cell]) {
        for cell in cells {
            self.measured.extend(cell.result().map(|mut measured| {
                if self.mode == "closed" {
                    measured.closed_loop_corrected_p99_ms = cell.corrected_p99();
                }
                measured
            }));
        }
        if let [first, second] = cells {
            self.factors.extend(factor(first, second));
        }
    }

    /// The table that people read.
    pub(crate) fn table(&self) -> String {
        let head = [
            "clients",
            "variant",
            "answers/s",
            "± 95 %",
            "p50",
            "p95",
            "p99",
            "p99.9",
            "p99 corr.",
            "errors",
            "CPU/req",
            "memory",
            "conns",
            "threads",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let ms = |value: f64| if value < 100.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") };
        for cell in &self.measured {
            rows.push(vec![
                cell.concurrency.to_string(),
                cell.variant.clone(),
                format!("{:.0}", cell.per_second),
                or_dash(cell.per_second_half_interval.map(|half| format!("{half:.0}"))),
                ms(cell.p50_ms),
                ms(cell.p95_ms),
                ms(cell.p99_ms),
                ms(cell.p999_ms),
                or_dash(cell.closed_loop_corrected_p99_ms.map(ms)),
                cell.errors.to_string(),
                or_dash(cell.cpu_ms_per_request.map(|cpu| format!("{cpu:.2} ms"))),
                or_dash(cell.memory_mib.map(|mib| format!("{mib:.0} MiB"))),
                or_dash(cell.connections.map(|number| number.to_string())),
                or_dash(cell.threads.map(|number| number.to_string())),
            ]);
        }
        let mut text = table(&rows, 2);
        if let [first, second] = self.variants.as_slice() {
            for factor in &self.factors {
                let interval = |bounds: Option<(f64, f64)>| {
                    bounds.map_or_else(String::new, |(low, high)| format!(" (95 %: {low:.2} to {high:.2})"))
                };
                text.push_str(&format!(
                    "\n{} clients: {second} answers {:.2} times as many as {first}{}, at {:.2} times its p99{}{}",
                    factor.concurrency,
                    factor.throughput,
                    interval(factor.throughput_interval),
                    factor.p99,
                    interval(factor.p99_interval),
                    factor.memory.map_or_else(String::new, |memory| format!(", in {memory:.2} times its memory")),
                ));
            }
        }
        if self.stopped_early {
            text.push_str("\nstopped early: turns that were under way are left out");
        }
        text
    }
}

fn factor(first: &Cell, second: &Cell) -> Option<Factor> {
    let pairs = |of: fn(&Round) -> f64| -> Vec<(f64, f64)> {
        first.rounds.iter().map(of).zip(second.rounds.iter().map(of)).collect()
    };
    let (throughput, throughput_interval) = ratio(&pairs(|round| round.per_second))?;
    let (p99, p99_interval) = ratio(&pairs(|round| round.p99_ms))?;
    let memory = |cell: &Cell| cell.rounds.iter().filter_map(|round| round.memory_bytes).max();
    let memory = memory(first).zip(memory(second)).map(|(first, second)| second as f64 / (first.max(1) as f64));
    Some(Factor { concurrency: first.concurrency, throughput, throughput_interval, p99, p99_interval, memory })
}
