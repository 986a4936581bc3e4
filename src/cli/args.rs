//! What commands take that work on this machine.

mod asking;
mod change;
mod trial;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::access::{Role, TokenName};
use crate::backend::{Fault, Mode};
use crate::telemetry::LogFormat;

pub(crate) use crate::cli::args::asking::{
    AdminArgs, ApprovalsArgs, DiffsArgs, EXPORT_HELP, ExplainArgs, ExportArgs, HistoryArgs, ReloadArgs, STATUS_HELP,
    StatusArgs, WhyArgs,
};
pub(crate) use crate::cli::args::change::{
    ActionArgs, ApproveArgs, AskingArgs, BetaArgs, BetaCommand, BetaEditArgs, BetaListArgs, ChangeArgs, DangerousArgs,
    ResumeArgs, SetArgs, WithdrawArgs,
};
pub(crate) use crate::cli::args::trial::{COMPARE_HELP, CompareArgs, SIMULATE_HELP, SimulateArgs};

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What is logged: a level, or levels by module.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "info")]
    pub(crate) log: String,
    /// How log lines look.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormatArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormatArg {
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
pub(crate) struct ConfigArg {
    /// The configuration; without it tidegate.toml, if there is one.
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Start although flag files are bad: routes to a flag are then served by the next best route.
    #[arg(long)]
    pub(crate) tolerate_bad_flags: bool,
    /// Take over from the gateway that runs, at the `listen.handover` of the configuration: its sockets, its rollouts and
    /// their evidence. It goes on if this one cannot start, and else ends once its last request has.
    #[arg(long)]
    pub(crate) upgrade: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// Which implementation: sync or async.
    pub(crate) mode: Mode,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    pub(crate) listen: SocketAddr,
    /// The database; without it the one in the configuration.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Misbehave on purpose: `error=30%`, `delay=200ms`, `query=10ms` (each transaction takes longer), or several with
    /// a comma between.
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Option<Fault>,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The database; without it the one in the configuration.
    #[arg(long, value_name = "URL", env = "TIDEGATE_DATABASE__URL", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// One flag file, a directory of flag files, or a tidegate.toml and the flags that it names; without it ./tidegate.toml.
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    pub(crate) command: NotifyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NotifyCommand {
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
pub(crate) const TOKEN_HELP: &str = "Roles: `viewer` reads, `tester` may also choose the arm of requests of their own, `operator` \
    changes rollouts. Example:\n  tidegate token new ann --role operator --file tokens.toml\nand in tidegate.toml:\n  \
    [admin]\n  token_file = \"tokens.toml\"";

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
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
pub(crate) struct TokenFileArg {
    /// The file of tokens; without it, the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
}
