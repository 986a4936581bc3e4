//! `tidegate serve` and `tidegate backend`.

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use tracing_appender::non_blocking::WorkerGuard;

use crate::backend;
use crate::cli::output::print;
use crate::cli::{BackendArgs, LogArgs, ServeArgs, check};
use crate::config::{Config, environment, notify_socket};
use crate::flag::FlagKey;
use crate::server::{Addresses, BadFlags, Place, ReadConfig, Start, StartError};
use crate::{server, telemetry};

/// Where clients look for the admin API without being told.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:8081";

/// The option that has a gateway take over from the one that runs.
const UPGRADE: &str = "--upgrade";

pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let _log = init_log(args.log)?;
    let path = args.config.config;
    let config = load(path.as_deref())?;
    let flag = config.expectations().flags.into_iter().next();
    // What the process was given in its environment stays; the file may say something else by then.
    let read: ReadConfig = Arc::new(move || Config::load(path.as_deref(), &environment()));
    let bad_flags = if args.tolerate_bad_flags { BadFlags::Tolerate } else { BadFlags::Refuse };
    let place = if args.upgrade { Place::Running } else { Place::New };
    let mut successor: Vec<_> = env::args_os().filter(|argument| argument != UPGRADE).collect();
    successor.push(UPGRADE.into());
    let start = Start { bad_flags, place, successor, manager: notify_socket() };
    // Somebody who cannot read the greeting can still be served.
    let announce = |addresses: &Addresses| drop(print(&greeting(addresses, flag.as_ref())));
    match server::serve(config, start, read, announce) {
        Err(StartError::Flags(problems)) => {
            check::tell(&problems)?;
            bail!("{}", StartError::Flags(problems));
        }
        Err(StartError::Tokens(problems)) => {
            check::tell(&problems)?;
            bail!("{}", StartError::Tokens(problems));
        }
        served => Ok(served?),
    }
}

pub(crate) fn backend(args: BackendArgs) -> anyhow::Result<()> {
    let _log = init_log(args.log)?;
    let config = load(args.config.config.as_deref())?;
    let settings = backend::Config {
        mode: args.mode,
        database_url: args.database.unwrap_or(config.database.url),
        migrate: config.database.migrate,
        pool: config.database.pool,
        ai: config.ai,
        fault: args.fault.unwrap_or_default(),
    };
    let mode = args.mode;
    server::serve_backend_alone(settings, args.listen, |address| {
        drop(print(&format!("the {mode} backend listens on http://{address}")));
    })?;
    Ok(())
}

fn init_log(args: LogArgs) -> anyhow::Result<WorkerGuard> {
    let LogArgs { log, log_format } = args;
    telemetry::init(&log, log_format.into()).map_err(|error| {
        anyhow::anyhow!("`--log {log}` cannot be used ({error}); write it like `info` or `tidegate=debug`")
    })
}

pub(crate) fn load(path: Option<&Path>) -> anyhow::Result<Config> {
    match Config::load(path, &environment()) {
        Ok(config) => Ok(config),
        Err(problems) => {
            check::tell(&problems)?;
            bail!("the configuration cannot be used; mend what is named above");
        }
    }
}

/// What was started where, and what to try: with `flag`, if a route names one.
fn greeting(addresses: &Addresses, flag: Option<&FlagKey>) -> String {
    let program = env::args().next().unwrap_or_else(|| "tidegate".to_owned());
    let admin = format!("{}://{}", if addresses.admin_tls { "https" } else { "http" }, addresses.admin);
    let elsewhere = if admin == DEFAULT_ADMIN { String::new() } else { format!(" --admin {admin}") };
    let http = addresses.http;
    let mut text = format!("tidegate {}\n  gateway  http://{http}\n", env!("CARGO_PKG_VERSION"));
    if let Some(https) = addresses.https {
        let _ = writeln!(text, "  with TLS https://{https}");
    }
    let _ = writeln!(text, "  admin    {admin}");
    for (name, address) in &addresses.builtin {
        let _ = writeln!(text, "  {name:<7}  http://{address} (built in)");
    }
    text.push_str("Try, from another terminal:\n");
    if !addresses.builtin.is_empty() {
        let _ = writeln!(
            text,
            "  curl -si http://{http}/api/v1/parse-jd -H 'content-type: application/json' -H 'x-user-id: alice' \
             -d '{{\"role\":\"backend engineer\",\"jobDescription\":\"Rust, PostgreSQL, async services\"}}'"
        );
    }
    if let Some(flag) = flag {
        let _ = writeln!(text, "  {program} explain {flag} --user alice{elsewhere}");
    }
    let _ = write!(text, "  {program} status --watch{elsewhere}");
    text
}
