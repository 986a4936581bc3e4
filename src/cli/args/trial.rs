//! What commands take that try the judge, or both variants.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::cli::args::{AdminArgs, ConfigArg};
use crate::cli::compare::{self, Work};
use crate::flag::FlagKey;
use crate::judge::Rate;

/// What `compare --help` ends with.
pub(crate) const COMPARE_HELP: &str = "An interrupt (Ctrl-C) ends it early and keeps what was measured. Examples:\n  \
    tidegate compare --concurrency 1,10,100 --query 10ms --database postgres://tidegate@127.0.0.1/interview\n  \
    tidegate compare --rate 200 --duration 30s --svg compare.svg --output compare.json\n  \
    tidegate compare --stable http://10.0.2.11:8000 --canary http://10.0.2.21:8000 --path /api/orders";

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A stable service that runs already, with --canary; without both, the built-in ones are started.
    #[arg(long, value_name = "URL", requires = "canary")]
    pub(crate) stable: Option<String>,
    /// A canary service that runs already.
    #[arg(long, value_name = "URL", requires = "stable")]
    pub(crate) canary: Option<String>,
    /// What to get from services that run already.
    #[arg(long, value_name = "PATH", requires = "stable")]
    pub(crate) path: Option<String>,
    /// The built-in services' database; without it the one in the configuration.
    #[arg(long, value_name = "URL", conflicts_with = "stable")]
    pub(crate) database: Option<String>,
    /// What is asked of the built-in services.
    #[arg(long, value_enum, default_value = "mixed")]
    pub(crate) work: Work,
    /// How much longer each of the built-in services' transactions takes: a slow query.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "0ms")]
    pub(crate) query: Duration,
    /// Numbers of clients, each measured by itself.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,10,100",
          value_parser = clients)]
    pub(crate) concurrency: Vec<usize>,
    /// Requests a second, whether or not those before were answered (an open loop); without it each client waits for
    /// its answer (a closed loop).
    #[arg(long, value_name = "NUMBER", value_parser = requests_per_second, conflicts_with = "think")]
    pub(crate) rate: Option<f64>,
    /// How long each client of a closed loop waits after an answer.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "0ms")]
    pub(crate) think: Duration,
    /// How long each turn is measured.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "5s")]
    pub(crate) duration: Duration,
    /// How long each turn runs before it is measured.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "1s")]
    pub(crate) warmup: Duration,
    /// Turns of each variant at each number of clients; the confidence intervals come from them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Draw a chart into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write the results as JSON into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Tell no progress.
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
}

/// A number of clients.
pub(crate) fn clients(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "a number from 1 to 10000".to_owned())
}

/// What `simulate --help` ends with.
pub(crate) const SIMULATE_HELP: &str = "A judge for other programs, JSON lines; one reply for each line of batches:\n  \
    -> {\"op\":\"start\",\"run\":\"a\",\"config\":{\"alpha\":0.001,\"delta\":0.002,\"rho\":1.25,\"streams\":[\"fail\"],\"tick_ms\":100,\n      \
    \"history\":{\"n\":20000,\"fail\":21,\"slow\":0}}}\n  \
    -> {\"op\":\"batches\",\"run\":\"a\",\"rows\":[[tick,gateway,share,n_s,fail_s,slow_s,n_c,fail_c,slow_c],...]}\n  \
    <- {\"run\":\"a\",\"stop\":null or tick,\"log_e\":number}\n  \
    -> {\"op\":\"end\",\"run\":\"a\"}";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["stdin", "suite", "canary_errors", "slower", "replay"]))]
pub(crate) struct SimulateArgs {
    /// Judge what another program tells on standard input.
    #[arg(long, conflicts_with_all = ["suite", "canary_errors", "slower", "replay"])]
    pub(crate) stdin: bool,
    /// Run the releases that the judge is proven on, beside other methods, and print the tables of docs/judge.md.
    #[arg(long, conflicts_with_all = ["canary_errors", "slower", "replay"])]
    pub(crate) suite: bool,
    /// Judge what the gateway recorded of this flag's last release again, by its file's guard and by `--guard`.
    #[arg(long, value_name = "FLAG", conflicts_with_all = ["canary_errors", "slower"])]
    pub(crate) replay: Option<FlagKey>,
    /// Another release to replay than the last.
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<String>,
    /// A sample of the suite only.
    #[arg(long, requires = "suite")]
    pub(crate) quick: bool,
    /// Only the suite's releases whose names hold this text.
    #[arg(long, value_name = "TEXT", requires = "suite")]
    pub(crate) only: Option<String>,
    /// Make up a release whose canary fails at this rate: how soon is it stopped?
    #[arg(long, value_name = "PERCENT", value_parser = rate)]
    pub(crate) canary_errors: Option<Rate>,
    /// Make up one whose canary takes so many times as long as stable, and fails as often unless `--canary-errors` says
    /// otherwise. Stable's latencies are log-normal, the slowest hundredth three times the median; `max_latency` is not tried.
    #[arg(long, value_name = "TIMES", value_parser = times)]
    pub(crate) slower: Option<f64>,
    /// The rate at which stable fails.
    #[arg(long, value_name = "PERCENT", value_parser = rate, default_value = "0.1%")]
    pub(crate) stable_errors: Rate,
    /// The canary's share of requests.
    #[arg(long, value_name = "PERCENT", value_parser = rate, default_value = "5%")]
    pub(crate) share: Rate,
    /// Requests a second, to both together.
    #[arg(long, value_name = "NUMBER", value_parser = requests_per_second, default_value = "200")]
    pub(crate) rps: f64,
    /// The flag file whose guard judges; without it the default guard does.
    #[arg(long, value_name = "FILE")]
    pub(crate) guard: Option<PathBuf>,
    /// How many points above stable's rate the canary may fail, instead of the guard's.
    #[arg(long, value_name = "PERCENT", value_parser = rate)]
    pub(crate) tolerance_points: Option<Rate>,
    /// How much of stable's rate it may fail on top of that, instead of the guard's.
    #[arg(long, value_name = "PERCENT", value_parser = rate)]
    pub(crate) tolerance_relative: Option<Rate>,
    /// The probability of rolling back a healthy canary, instead of the guard's.
    #[arg(long, value_name = "PROBABILITY", value_parser = probability)]
    pub(crate) false_rollback: Option<Rate>,
    /// How many times each release is tried; without it as often as gives sound figures.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) tries: Option<u64>,
    /// The seed of chance: the same seed gives the same figures.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// A rate in percent, as in a flag file; the sign may be left out.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    percent.and_then(Rate::from_percent).ok_or_else(|| "a rate is a percentage from 0 to 100 like 5%".to_owned())
}

pub(crate) fn probability(text: &str) -> Result<Rate, String> {
    let probability = text.parse().ok().filter(|value| *value > 0.0 && *value < 1.0);
    probability.and_then(Rate::from_share).ok_or_else(|| "a probability is above 0 and below 1".to_owned())
}

pub(crate) fn requests_per_second(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|value| *value > 0.0 && *value <= 1e6);
    number.ok_or_else(|| "a number above 0, up to a million".to_owned())
}

fn times(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text).parse().ok().filter(|value| (0.01..=100.0).contains(value));
    number.ok_or_else(|| "a number from 0.01 to 100, like 1.5".to_owned())
}
