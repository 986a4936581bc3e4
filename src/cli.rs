//! The command line: what each command is called, takes and teaches.

mod approvals;
mod args;
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

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::args::{
    ActionArgs, AdminArgs, ApprovalsArgs, ApproveArgs, AskingArgs, BackendArgs, BetaArgs, BetaCommand, BetaEditArgs,
    BetaListArgs, COMPARE_HELP, ChangeArgs, CheckArgs, CompareArgs, DangerousArgs, DiffsArgs, EXPORT_HELP, ExplainArgs,
    ExportArgs, HistoryArgs, LogArgs, MigrateArgs, NotifyArgs, NotifyCommand, ReloadArgs, ResumeArgs, SIMULATE_HELP,
    STATUS_HELP, ServeArgs, SetArgs, SimulateArgs, StatusArgs, TOKEN_HELP, TokenArgs, TokenCommand, TokenFileArg,
    WhyArgs, WithdrawArgs,
};
use crate::cli::client::Client;
use crate::telemetry::chain;

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

/// What `completions --help` ends with.
const COMPLETIONS_HELP: &str = "Examples:\n  source <(tidegate completions bash)\n  \
    tidegate completions zsh > ~/.zfunc/_tidegate\n  \
    tidegate completions fish > ~/.config/fish/completions/tidegate.fish";

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
