//! The command line: what each command is called, takes and teaches.

mod approvals;
mod beta;
mod check;
mod client;
mod compare;
mod confirm;
mod diffs;
mod explain;
mod export;
mod manual;
mod migrate;
mod notify;
mod output;
mod paint;
mod rates;
mod reload;
mod schema;
mod serve;
mod show;
mod simulate;
mod token;
mod trust;
mod watch;
mod why;

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{StringValueParser, TypedValueParser as _};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use http::uri::Authority;

use crate::access::{Role, TokenName};
use crate::backend::{Fault, Mode};
use crate::cli::client::Client;
use crate::cli::compare::Work;
use crate::flag::{FlagKey, Percentage};
use crate::judge::Rate;
use crate::telemetry::{LogFormat, chain};

/// A canary gateway: splits traffic between two implementations of a service by flags, counts how every request ends,
/// and takes the canary out by itself when it is worse.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Begin with `tidegate serve`; then, from another terminal, `tidegate status --watch`.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway, the admin API, the judge, and the backends marked as built in.
    Serve(ServeArgs),
    /// Run one built-in backend on its own.
    #[command(after_help = "Example, for a drill: tidegate backend async --fault error=30%,delay=200ms")]
    Backend(BackendArgs),
    /// Bring the built-in backends' database up to date: schema and question bank.
    #[command(after_help = "It may be run at any time and by any number of starters at once. Example:\n  \
                            tidegate migrate --database postgres://tidegate@db.internal/interview")]
    Migrate(MigrateArgs),
    /// Read configuration and flags as `serve` would, and tell every problem with its place.
    #[command(after_help = "Exit code 0 if all is well, 1 if not. Examples:\n  tidegate check\n  \
                            tidegate check flags/async-database.toml\n  tidegate check --config deploy/tidegate.toml")]
    Check(CheckArgs),
    /// Print a JSON Schema of the flag file, for editors.
    #[command(after_help = "In a flag file, name it in the first line: #:schema ./flag.schema.json")]
    Schema,
    /// Tell which backend would serve a user, and why.
    #[command(after_help = "Examples:\n  tidegate explain async-database --user alice\n  \
                            tidegate explain async-database --header x-app-version=2.3.1 --path /api/v1/parse-jd\n  \
                            tidegate explain async-database --request head.txt --offline")]
    Explain(ExplainArgs),
    /// Write the flags as flagd has them, so that a flagd daemon or provider decides the same for every user.
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Show each flag: percentage, phase, both arms' requests and errors, and the evidence against the canary.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Tell what the judge's verdict on a canary rests on.
    #[command(after_help = "Example: tidegate why async-database")]
    Why(WhyArgs),
    /// Tell in what a canary answers otherwise than stable, by the copies that `[shadow]` of its flag file sends it.
    Diffs(DiffsArgs),
    /// Move the canary to a percentage of users.
    #[command(
        after_help = "Steps of 0.001 are as fine as it gets. On a terminal, more than 10 points up asks first. Examples:\n  \
                            tidegate set async-database 25\n  \
                            tidegate set async-database 50 --yes --reason \"quiet all morning\""
    )]
    Set(SetArgs),
    /// Put users on a flag's beta list or take them off it, or show who is on it.
    Beta(BetaArgs),
    /// Have nothing but people and the flag file move a rollout, until it is resumed. The canary is still judged.
    Pause(ActionArgs),
    /// Lift a pause or a rollback, at the percentage before it or at a lower one; or give a rollout back to its ramp.
    #[command(
        after_help = "On a terminal, lifting a rollback asks first. Examples:\n  tidegate resume async-database\n  \
                            tidegate resume async-database --percentage 1 --reason \"the pool is mended\""
    )]
    Resume(ResumeArgs),
    /// Open the gate that the ramp waits at; or, with an ID, have done what another operator asked for.
    #[command(after_help = "Examples:\n  tidegate approve async-database\n  tidegate approve async-database 1f0c9a2b")]
    Approve(ApproveArgs),
    /// List the changes that wait for a second operator.
    Approvals(ApprovalsArgs),
    /// Take back a change that waits for a second operator.
    Withdraw(WithdrawArgs),
    /// Go on to the ramp's next step now, whatever it waits for.
    Skip(ActionArgs),
    /// Put everyone on canary.
    #[command(after_help = "On a terminal it asks first, with the numbers. Example:\n  \
                            tidegate promote async-database --reason \"a week at 50 %\"")]
    Promote(DangerousArgs),
    /// Take the canary out of traffic, until someone resumes it or the flag file names a new release.
    #[command(after_help = "On a terminal it asks first; with --yes it does not. Example:\n  \
                            tidegate rollback async-database --yes --reason \"orders fail\"")]
    Rollback(DangerousArgs),
    /// Have a running gateway read its configuration again: all of it is put in force, or nothing. SIGHUP does the same.
    Reload(ReloadArgs),
    /// Show the audit trail: when, who, what, old and new, why.
    #[command(
        after_help = "Each event holds the hash of the one before, so `--verify` finds what was changed or taken out. \
                            Note the hash that it prints\nsomewhere else: with `--noted` it tells as well whether the end \
                            was cut off or all was written anew."
    )]
    History(HistoryArgs),
    /// Make, list and revoke the tokens that the admin API is used with.
    #[command(after_help = TOKEN_HELP)]
    Token(TokenArgs),
    /// Put load on both variants in turn: throughput, latency, errors, processor time, memory, connections.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// Try whether notifications arrive.
    Notify(NotifyArgs),
    /// Print the completions for a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page of Tidegate, or of one of its commands.
    #[command(after_help = "Examples:\n  tidegate man | man -l -\n  tidegate man status | man -l -")]
    Man {
        /// The command.
        command: Option<String>,
    },
    /// Try the judge on outcomes that are made up or come from another program.
    #[command(after_help = SIMULATE_HELP)]
    Simulate(SimulateArgs),
}

#[derive(Debug, Args)]
struct LogArgs {
    /// What is logged: a level, or levels by module.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "info")]
    log: String,
    /// How log lines look.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", default_value = "text")]
    log_format: LogFormatArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormatArg {
    Text,
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// The configuration; without it tidegate.toml, if there is one.
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Start although flag files are bad: routes to a flag are then served by the next best route.
    #[arg(long)]
    tolerate_bad_flags: bool,
    /// Take over from the gateway that runs, at the `listen.handover` of the configuration: its sockets, its rollouts and
    /// their evidence. It goes on if this one cannot start, and else ends once its last request has.
    #[arg(long)]
    upgrade: bool,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct BackendArgs {
    /// Which implementation: sync or async.
    mode: Mode,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// The database; without it the one in the configuration.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Misbehave on purpose: `error=30%`, `delay=200ms`, `query=10ms` (each transaction takes longer), or several with
    /// a comma between.
    #[arg(long, value_name = "FAULT")]
    fault: Option<Fault>,
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// The database; without it the one in the configuration.
    #[arg(long, value_name = "URL", env = "TIDEGATE_DATABASE__URL", hide_env_values = true)]
    database: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// One flag file, a directory of flag files, or a tidegate.toml and the flags that it names; without it ./tidegate.toml.
    path: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What every command needs that talks to a running gateway.
#[derive(Debug, Args)]
struct AdminArgs {
    /// The gateway's admin API.
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:8081", value_parser = url)]
    admin: String,
    /// Where it speaks TLS: a PEM file of those who vouch for it; without it, whom the system trusts.
    #[arg(long, env = "TIDEGATE_ADMIN_CA", value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// A PEM file with a certificate to show there.
    #[arg(long, env = "TIDEGATE_ADMIN_CERT", value_name = "FILE", requires = "admin_key")]
    admin_cert: Option<PathBuf>,
    /// A PEM file with that certificate's private key.
    #[arg(long, env = "TIDEGATE_ADMIN_KEY", value_name = "FILE", requires = "admin_cert")]
    admin_key: Option<PathBuf>,
    /// The token to show there, if it asks for one.
    #[arg(long, env = "TIDEGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Print JSON, as the admin API gives it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The flag's key.
    flag: FlagKey,
    /// The targeting key to decide for; without it, the one that the gateway finds in the request's headers, if any.
    #[arg(long)]
    user: Option<String>,
    /// A header of the request; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<String>,
    /// The request's method; without it GET.
    #[arg(long)]
    method: Option<String>,
    /// The request's path, with its query; without it /.
    #[arg(long)]
    path: Option<String>,
    /// The host that the request names.
    #[arg(long)]
    host: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// A file with the head of the request as it is sent: request line and headers; `-` is standard input. The other
    /// options go over it.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Ask the flag files instead of a gateway: the decision is that of a new rollout.
    #[arg(long)]
    offline: bool,
    /// The directory of flag files; without it the one in the configuration.
    #[arg(long, value_name = "DIR", requires = "offline")]
    flags: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What `export --help` ends with.
const EXPORT_HELP: &str = "Rules that flagd cannot be told are named on standard error and left out, and so are flags \
    whose percentage it cannot be told.\nExit code 0 if nothing is left out, 1 if something is (or nothing could be written).\n\
    Examples:\n  tidegate export --flagd > flags.flagd.json\n  tidegate export --flagd --offline async-database";

#[derive(Debug, Args)]
struct ExportArgs {
    /// The keys of the flags to write; without any, every flag.
    flag: Vec<FlagKey>,
    /// Write JSON for flagd (releases since March 2026), with the percentages and rollbacks in force.
    #[arg(long, required = true)]
    flagd: bool,
    /// Ask the flag files instead of a gateway: what is written is that of new rollouts.
    #[arg(long)]
    offline: bool,
    /// The directory of flag files; without it the one in the configuration.
    #[arg(long, value_name = "DIR", requires = "offline")]
    flags: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What `status --help` ends with.
const STATUS_HELP: &str = "On a terminal, --watch draws a table in place: both arms side by side, their error rates over the last \
    minutes, the evidence on its way to a rollback, and where the ramp stands. Examples:\n  tidegate status --watch\n  \
    tidegate status async-database --json\n  tidegate status async-database --exit-code && ./deploy-next.sh";

/// What `completions --help` ends with.
const COMPLETIONS_HELP: &str = "Examples:\n  source <(tidegate completions bash)\n  \
    tidegate completions zsh > ~/.zfunc/_tidegate\n  \
    tidegate completions fish > ~/.config/fish/completions/tidegate.fish";

#[derive(Debug, Args)]
struct StatusArgs {
    /// The flag's key; without it, every flag.
    flag: Option<FlagKey>,
    /// Show it anew every second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Fail if a canary is rolled back, or if there is a problem: for pipelines.
    #[arg(long, conflicts_with = "watch")]
    exit_code: bool,
    /// No colours. Without a terminal there are none anyway.
    #[arg(long, env = "NO_COLOR", hide_env_values = true, value_parser = any_text())]
    no_color: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct WhyArgs {
    /// The flag's key.
    flag: FlagKey,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct DiffsArgs {
    /// The flag's key.
    flag: FlagKey,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The flag's key.
    flag: FlagKey,
    /// The share of users on canary, 0 to 100.
    percent: Percentage,
    #[command(flatten)]
    asking: AskingArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct BetaArgs {
    #[command(subcommand)]
    command: BetaCommand,
}

#[derive(Debug, Subcommand)]
enum BetaCommand {
    /// Put users on the list, whatever the files say, until they are removed.
    #[command(after_help = "Example: tidegate beta add async-database carol dave --reason \"they asked\"")]
    Add(BetaEditArgs),
    /// Take users off the list, whatever the files say, until they are added.
    Remove(BetaEditArgs),
    /// Show who is on the list and who was taken off it, a page at a time.
    List(BetaListArgs),
}

#[derive(Debug, Args)]
struct BetaEditArgs {
    /// The flag's key.
    flag: FlagKey,
    /// The users' targeting keys.
    #[arg(required = true)]
    user: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct BetaListArgs {
    /// The flag's key.
    flag: FlagKey,
    /// How many users a page has.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    limit: usize,
    /// Where the page begins: what the page before gave.
    #[arg(long)]
    cursor: Option<String>,
    /// Go through all pages.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ActionArgs {
    /// The flag's key.
    flag: FlagKey,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct ApproveArgs {
    /// The flag's key.
    flag: FlagKey,
    /// What waits for a second operator, as `tidegate approvals` lists it.
    id: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct ApprovalsArgs {
    /// The flag's key; without it, every flag.
    flag: Option<FlagKey>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct WithdrawArgs {
    /// The flag's key.
    flag: FlagKey,
    /// What waits, as `tidegate approvals` lists it.
    id: String,
    /// Who you are, for the audit trail.
    #[arg(long, env = "USER", hide_env_values = true, hide = true)]
    actor: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ResumeArgs {
    /// The flag's key.
    flag: FlagKey,
    /// Resume at this percentage instead of the one before.
    #[arg(long)]
    percentage: Option<Percentage>,
    #[command(flatten)]
    asking: AskingArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct DangerousArgs {
    /// The flag's key.
    flag: FlagKey,
    #[command(flatten)]
    asking: AskingArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct AskingArgs {
    /// Do not ask. Without a terminal nothing is asked anyway.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Why, for the audit trail.
    #[arg(long)]
    reason: Option<String>,
    /// Who you are, for the audit trail.
    #[arg(long, env = "USER", hide_env_values = true, hide = true)]
    actor: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ReloadArgs {
    /// Who you are, for the audit trail.
    #[arg(long, env = "USER", hide_env_values = true, hide = true)]
    actor: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// The flag's key; without it, every flag.
    flag: Option<FlagKey>,
    /// How many events, the newest.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// The events before the one of this number.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Print every event as a line of JSON, oldest first.
    #[arg(long, conflicts_with_all = ["limit", "before", "verify"])]
    export: bool,
    /// Check that no event was changed or taken out, and print the newest one's hash.
    #[arg(long, conflicts_with_all = ["flag", "limit", "before"])]
    verify: bool,
    /// A hash that was noted earlier: the trail must still hold it, or its end was cut off.
    #[arg(long, value_name = "HASH", requires = "verify")]
    noted: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, Subcommand)]
enum NotifyCommand {
    /// Send a test to one of the configuration's channels, and tell what it answered.
    #[command(after_help = "Example: tidegate notify test ops")]
    Test {
        /// The channel: NAME of `[notify.NAME]`.
        channel: String,
        #[command(flatten)]
        config: ConfigArg,
    },
}

/// What `token --help` ends with.
const TOKEN_HELP: &str = "Roles: `viewer` reads, `tester` may also choose the arm of requests of their own, `operator` \
    changes rollouts. Example:\n  tidegate token new ann --role operator --file tokens.toml\nand in tidegate.toml:\n  \
    [admin]\n  token_file = \"tokens.toml\"";

#[derive(Debug, Args)]
struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, keep its hash in the file, and print it: it is not shown again.
    New {
        /// Whose it is: the actor in the audit trail.
        name: TokenName,
        /// What it allows: viewer, tester or operator.
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        file: TokenFileArg,
    },
    /// List the tokens in the file.
    List {
        #[command(flatten)]
        file: TokenFileArg,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a token away.
    Revoke {
        /// Whose it is.
        name: TokenName,
        #[command(flatten)]
        file: TokenFileArg,
    },
}

#[derive(Debug, Args)]
struct TokenFileArg {
    /// The file of tokens; without it, the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

/// What `compare --help` ends with.
const COMPARE_HELP: &str = "An interrupt (Ctrl-C) ends it early and keeps what was measured. Examples:\n  \
    tidegate compare --concurrency 1,10,100 --query 10ms --database postgres://tidegate@127.0.0.1/interview\n  \
    tidegate compare --rate 200 --duration 30s --svg compare.svg --output compare.json\n  \
    tidegate compare --stable http://10.0.2.11:8000 --canary http://10.0.2.21:8000 --path /api/orders";

#[derive(Debug, Args)]
struct CompareArgs {
    /// A stable service that runs already, with --canary; without both, the built-in ones are started.
    #[arg(long, value_name = "URL", requires = "canary")]
    stable: Option<String>,
    /// A canary service that runs already.
    #[arg(long, value_name = "URL", requires = "stable")]
    canary: Option<String>,
    /// What to get from services that run already.
    #[arg(long, value_name = "PATH", requires = "stable")]
    path: Option<String>,
    /// The built-in services' database; without it the one in the configuration.
    #[arg(long, value_name = "URL", conflicts_with = "stable")]
    database: Option<String>,
    /// What is asked of the built-in services.
    #[arg(long, value_enum, default_value = "mixed")]
    work: Work,
    /// How much longer each of the built-in services' transactions takes: a slow query.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "0ms")]
    query: Duration,
    /// Numbers of clients, each measured by itself.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,10,100",
          value_parser = clients)]
    concurrency: Vec<usize>,
    /// Requests a second, whether or not those before were answered (an open loop); without it each client waits for
    /// its answer (a closed loop).
    #[arg(long, value_name = "NUMBER", value_parser = requests_per_second, conflicts_with = "think")]
    rate: Option<f64>,
    /// How long each client of a closed loop waits after an answer.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "0ms")]
    think: Duration,
    /// How long each turn is measured.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "5s")]
    duration: Duration,
    /// How long each turn runs before it is measured.
    #[arg(long, value_name = "DURATION", value_parser = compare::span, default_value = "1s")]
    warmup: Duration,
    /// Turns of each variant at each number of clients; the confidence intervals come from them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Draw a chart into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the results as JSON into this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Tell no progress.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// A number of clients.
fn clients(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "a number from 1 to 10000".to_owned())
}

/// What `simulate --help` ends with.
const SIMULATE_HELP: &str = "A judge for other programs, JSON lines; one reply for each line of batches:\n  \
    -> {\"op\":\"start\",\"run\":\"a\",\"config\":{\"alpha\":0.001,\"delta\":0.002,\"rho\":1.25,\"streams\":[\"fail\"],\"tick_ms\":100,\n      \
    \"history\":{\"n\":20000,\"fail\":21,\"slow\":0}}}\n  \
    -> {\"op\":\"batches\",\"run\":\"a\",\"rows\":[[tick,gateway,share,n_s,fail_s,slow_s,n_c,fail_c,slow_c],...]}\n  \
    <- {\"run\":\"a\",\"stop\":null or tick,\"log_e\":number}\n  \
    -> {\"op\":\"end\",\"run\":\"a\"}";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["stdin", "suite", "canary_errors", "slower", "replay"]))]
struct SimulateArgs {
    /// Judge what another program tells on standard input.
    #[arg(long, conflicts_with_all = ["suite", "canary_errors", "slower", "replay"])]
    stdin: bool,
    /// Run the releases that the judge is proven on, beside other methods, and print the tables of docs/judge.md.
    #[arg(long, conflicts_with_all = ["canary_errors", "slower", "replay"])]
    suite: bool,
    /// Judge what the gateway recorded of this flag's last release again, by its file's guard and by `--guard`.
    #[arg(long, value_name = "FLAG", conflicts_with_all = ["canary_errors", "slower"])]
    replay: Option<FlagKey>,
    /// Another release to replay than the last.
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// A sample of the suite only.
    #[arg(long, requires = "suite")]
    quick: bool,
    /// Only the suite's releases whose names hold this text.
    #[arg(long, value_name = "TEXT", requires = "suite")]
    only: Option<String>,
    /// Make up a release whose canary fails at this rate: how soon is it stopped?
    #[arg(long, value_name = "PERCENT", value_parser = rate)]
    canary_errors: Option<Rate>,
    /// Make up one whose canary takes so many times as long as stable, and fails as often unless `--canary-errors` says
    /// otherwise. Stable's latencies are log-normal, the slowest hundredth three times the median; `max_latency` is not tried.
    #[arg(long, value_name = "TIMES", value_parser = times)]
    slower: Option<f64>,
    /// The rate at which stable fails.
    #[arg(long, value_name = "PERCENT", value_parser = rate, default_value = "0.1%")]
    stable_errors: Rate,
    /// The canary's share of requests.
    #[arg(long, value_name = "PERCENT", value_parser = rate, default_value = "5%")]
    share: Rate,
    /// Requests a second, to both together.
    #[arg(long, value_name = "NUMBER", value_parser = requests_per_second, default_value = "200")]
    rps: f64,
    /// The flag file whose guard judges; without it the default guard does.
    #[arg(long, value_name = "FILE")]
    guard: Option<PathBuf>,
    /// How many points above stable's rate the canary may fail, instead of the guard's.
    #[arg(long, value_name = "PERCENT", value_parser = rate)]
    tolerance_points: Option<Rate>,
    /// How much of stable's rate it may fail on top of that, instead of the guard's.
    #[arg(long, value_name = "PERCENT", value_parser = rate)]
    tolerance_relative: Option<Rate>,
    /// The probability of rolling back a healthy canary, instead of the guard's.
    #[arg(long, value_name = "PROBABILITY", value_parser = probability)]
    false_rollback: Option<Rate>,
    /// How many times each release is tried; without it as often as gives sound figures.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tries: Option<u64>,
    /// The seed of chance: the same seed gives the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    admin: AdminArgs,
}

/// A rate in percent, as in a flag file; the sign may be left out.
fn rate(text: &str) -> Result<Rate, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    percent.and_then(Rate::from_percent).ok_or_else(|| "a rate is a percentage from 0 to 100 like 5%".to_owned())
}

fn probability(text: &str) -> Result<Rate, String> {
    let probability = text.parse().ok().filter(|value| *value > 0.0 && *value < 1.0);
    probability.and_then(Rate::from_share).ok_or_else(|| "a probability is above 0 and below 1".to_owned())
}

fn requests_per_second(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|value| *value > 0.0 && *value <= 1e6);
    number.ok_or_else(|| "a number above 0, up to a million".to_owned())
}

fn times(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text).parse().ok().filter(|value| (0.01..=100.0).contains(value));
    number.ok_or_else(|| "a number from 0.01 to 100, like 1.5".to_owned())
}

/// A header of a request that is asked about.
fn header(text: &str) -> Result<String, &'static str> {
    let name = text.split_once([':', '=']).map(|(name, _)| name.trim());
    name.filter(|name| !name.is_empty()).map(|_| text.to_owned()).ok_or("write it like x-app-version=2.3.1")
}

/// Whether a variable is set to anything at all, as <https://no-color.org> has it; what the flag itself stands for is a word of clap's.
fn any_text() -> impl clap::builder::TypedValueParser<Value = bool> {
    StringValueParser::new().map(|text| !text.is_empty() && text != "false")
}

/// The URL of an admin API.
fn url(text: &str) -> Result<String, &'static str> {
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let authority = authority.map(|rest| rest.trim_end_matches('/'));
    if authority.is_some_and(|authority| authority.parse::<Authority>().is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("write it like http://127.0.0.1:8081, or https://")
    }
}

/// Does what the command line says.
///
/// # Errors
///
/// If it is refused or fails: [`report`] tells it, and the exit code is 1.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::Backend(args) => serve::backend(args),
        Command::Migrate(args) => migrate::migrate(args),
        Command::Check(args) => check::check(args),
        Command::Schema => schema::schema(),
        Command::Explain(args) => explain::explain(&args),
        Command::Export(args) => export::export(&args),
        Command::Status(args) => show::status(&Client::new(&args.admin)?, &args),
        Command::Why(args) => why::why(&args),
        Command::Diffs(args) => diffs::diffs(&args),
        Command::Token(args) => token::token(args),
        Command::Compare(args) => compare::compare(&args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::History(args) => show::history(&Client::new(&args.admin)?, &args),
        Command::Set(args) => show::set(&args),
        Command::Beta(args) => beta::beta(&args),
        Command::Pause(args) => show::act("pause", &args.flag, &args.change),
        Command::Resume(args) => show::resume(&args),
        Command::Approve(args) => approvals::approve(&args),
        Command::Approvals(args) => approvals::approvals(&args),
        Command::Withdraw(args) => approvals::withdraw(&args),
        Command::Skip(args) => show::act("skip", &args.flag, &args.change),
        Command::Promote(args) => show::promote(&args),
        Command::Rollback(args) => show::roll_back(&args),
        Command::Notify(args) => notify::notify(&args),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { command } => manual::man(command.as_deref()),
    }
}

/// Tells an error on standard error, in one line.
pub fn report(error: &anyhow::Error) {
    // If standard error is gone, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "tidegate: {}", chain(error.as_ref()));
}
