//! What commands take that change a rollout.

use clap::{Args, Subcommand};

use crate::cli::args::AdminArgs;
use crate::flag::{FlagKey, Percentage};

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// The share of users on canary, 0 to 100.
    pub(crate) percent: Percentage,
    #[command(flatten)]
    pub(crate) asking: AskingArgs,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BetaArgs {
    #[command(subcommand)]
    pub(crate) command: BetaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BetaCommand {
    /// Put users on the list, whatever the files say, until they are removed.
    #[command(after_help = "Example: tidegate beta add async-database carol dave --reason \"they asked\"")]
    Add(BetaEditArgs),
    /// Take users off the list, whatever the files say, until they are added.
    Remove(BetaEditArgs),
    /// Show who is on the list and who was taken off it, a page at a time.
    List(BetaListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BetaEditArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// The users' targeting keys.
    #[arg(required = true)]
    pub(crate) user: Vec<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BetaListArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// How many users a page has.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) limit: usize,
    /// Where the page begins: what the page before gave.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Go through all pages.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ActionArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// What waits for a second operator, as `tidegate approvals` lists it.
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WithdrawArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// What waits, as `tidegate approvals` lists it.
    pub(crate) id: String,
    /// Who you are, for the audit trail.
    #[arg(long, env = "USER", hide_env_values = true, hide = true)]
    pub(crate) actor: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// Resume at this percentage instead of the one before.
    #[arg(long)]
    pub(crate) percentage: Option<Percentage>,
    #[command(flatten)]
    pub(crate) asking: AskingArgs,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DangerousArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    #[command(flatten)]
    pub(crate) asking: AskingArgs,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AskingArgs {
    /// Do not ask. Without a terminal nothing is asked anyway.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Why, for the audit trail.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Who you are, for the audit trail.
    #[arg(long, env = "USER", hide_env_values = true, hide = true)]
    pub(crate) actor: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}
