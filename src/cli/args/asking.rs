//! What commands take that ask a running gateway.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{StringValueParser, TypedValueParser as _};
use http::uri::Authority;

use crate::cli::args::ConfigArg;
use crate::flag::FlagKey;

/// What every command needs that talks to a running gateway.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// The gateway's admin API.
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:8081", value_parser = url)]
    pub(crate) admin: String,
    /// Where it speaks TLS: a PEM file of those who vouch for it; without it, whom the system trusts.
    #[arg(long, env = "TIDEGATE_ADMIN_CA", value_name = "FILE")]
    pub(crate) admin_ca: Option<PathBuf>,
    /// A PEM file with a certificate to show there.
    #[arg(long, env = "TIDEGATE_ADMIN_CERT", value_name = "FILE", requires = "admin_key")]
    pub(crate) admin_cert: Option<PathBuf>,
    /// A PEM file with that certificate's private key.
    #[arg(long, env = "TIDEGATE_ADMIN_KEY", value_name = "FILE", requires = "admin_cert")]
    pub(crate) admin_key: Option<PathBuf>,
    /// The token to show there, if it asks for one.
    #[arg(long, env = "TIDEGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Print JSON, as the admin API gives it.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    /// The targeting key to decide for; without it, the one that the gateway finds in the request's headers, if any.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// A header of the request; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) header: Vec<String>,
    /// The request's method; without it GET.
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// The request's path, with its query; without it /.
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// The host that the request names.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) client: Option<IpAddr>,
    /// A file with the head of the request as it is sent: request line and headers; `-` is standard input. The other
    /// options go over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// Ask the flag files instead of a gateway: the decision is that of a new rollout.
    #[arg(long)]
    pub(crate) offline: bool,
    /// The directory of flag files; without it the one in the configuration.
    #[arg(long, value_name = "DIR", requires = "offline")]
    pub(crate) flags: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// What `export --help` ends with.
pub(crate) const EXPORT_HELP: &str = "Rules that flagd cannot be told are named on standard error and left out, and so are flags \
    whose percentage it cannot be told.\nExit code 0 if nothing is left out, 1 if something is (or nothing could be written).\n\
    Examples:\n  tidegate export --flagd > flags.flagd.json\n  tidegate export --flagd --offline async-database";

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The keys of the flags to write; without any, every flag.
    pub(crate) flag: Vec<FlagKey>,
    /// Write JSON for flagd (releases since March 2026), with the percentages and rollbacks in force.
    #[arg(long, required = true)]
    pub(crate) flagd: bool,
    /// Ask the flag files instead of a gateway: what is written is that of new rollouts.
    #[arg(long)]
    pub(crate) offline: bool,
    /// The directory of flag files; without it the one in the configuration.
    #[arg(long, value_name = "DIR", requires = "offline")]
    pub(crate) flags: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// What `status --help` ends with.
pub(crate) const STATUS_HELP: &str = "On a terminal, --watch draws a table in place: both arms side by side, their error rates over the last \
    minutes, the evidence on its way to a rollback, and where the ramp stands. Examples:\n  tidegate status --watch\n  \
    tidegate status async-database --json\n  tidegate status async-database --exit-code && ./deploy-next.sh";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The flag's key; without it, every flag.
    pub(crate) flag: Option<FlagKey>,
    /// Show it anew every second, until interrupted.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Fail if a canary is rolled back, or if there is a problem: for pipelines.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) exit_code: bool,
    /// No colours. Without a terminal there are none anyway.
    #[arg(long, env = "NO_COLOR", hide_env_values = true, value_parser = any_text())]
    pub(crate) no_color: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiffsArgs {
    /// The flag's key.
    pub(crate) flag: FlagKey,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ApprovalsArgs {
    /// The flag's key; without it, every flag.
    pub(crate) flag: Option<FlagKey>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Who you are, for the audit trail.
    #[arg(long, env = "USER", hide_env_values = true, hide = true)]
    pub(crate) actor: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The flag's key; without it, every flag.
    pub(crate) flag: Option<FlagKey>,
    /// How many events, the newest.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// The events before the one of this number.
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<i64>,
    /// Print every event as a line of JSON, oldest first.
    #[arg(long, conflicts_with_all = ["limit", "before", "verify"])]
    pub(crate) export: bool,
    /// Check that no event was changed or taken out, and print the newest one's hash.
    #[arg(long, conflicts_with_all = ["flag", "limit", "before"])]
    pub(crate) verify: bool,
    /// A hash that was noted earlier: the trail must still hold it, or its end was cut off.
    #[arg(long, value_name = "HASH", requires = "verify")]
    pub(crate) noted: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// A header of a request that is asked about.
pub(crate) fn header(text: &str) -> Result<String, &'static str> {
    let name = text.split_once([':', '=']).map(|(name, _)| name.trim());
    name.filter(|name| !name.is_empty()).map(|_| text.to_owned()).ok_or("write it like x-app-version=2.3.1")
}

/// Whether a variable is set to anything at all, as <https://no-color.org> has it; what the flag itself stands for is a word of clap's.
pub(crate) fn any_text() -> impl clap::builder::TypedValueParser<Value = bool> {
    StringValueParser::new().map(|text| !text.is_empty() && text != "false")
}

/// The URL of an admin API.
pub(crate) fn url(text: &str) -> Result<String, &'static str> {
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let authority = authority.map(|rest| rest.trim_end_matches('/'));
    if authority.is_some_and(|authority| authority.parse::<Authority>().is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("write it like http://127.0.0.1:8081, or https://")
    }
}
