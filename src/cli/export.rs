//! `tidegate export`.

use std::io::{self, Write as _};

use anyhow::bail;

use crate::api::{FlagdExport, NotExported};
use crate::cli::ExportArgs;
use crate::cli::check::tell;
use crate::cli::client::Client;
use crate::cli::output::print_json;
use crate::config::{Config, environment};
use crate::diagnostic::Diagnostic;
use crate::flag::{Generation, Rollout};
use crate::flag_file::load;
use crate::rollout::flagd_export;

pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let exported = if args.offline { offline(args)? } else { Client::new(&args.admin)?.export(&args.flag)? };
    if args.admin.json {
        print_json(&exported)?;
    } else {
        print_json(&exported.flagd)?;
    }
    if exported.not_exported.is_empty() {
        return Ok(());
    }
    let mut stderr = io::stderr().lock();
    for NotExported { flag, rule, line, why } in &exported.not_exported {
        match (rule, line) {
            (Some(rule), Some(line)) => writeln!(stderr, "{flag}: rule {rule} on line {line} is left out: {why}")?,
            _ => writeln!(stderr, "{flag} is left out: {why}")?,
        }
    }
    let count = exported.not_exported.len();
    bail!("what was written does not decide as Tidegate does: {count} left out, told above");
}

/// What the files say, as new rollouts.
fn offline(args: &ExportArgs) -> anyhow::Result<FlagdExport> {
    let refused = |problems: Vec<Diagnostic>| -> anyhow::Error {
        let told = tell(&problems);
        told.err().map_or_else(|| anyhow::anyhow!("nothing can be exported before this is mended"), Into::into)
    };
    let config = Config::load(args.config.config.as_deref(), &environment()).map_err(refused)?;
    let mut expected = config.expectations();
    expected.flags.clear();
    let directory = args.flags.as_ref().unwrap_or(&config.flags.path);
    let definitions = load(directory, &expected).map_err(refused)?;
    for key in &args.flag {
        if !definitions.iter().any(|definition| definition.flag.key == *key) {
            bail!("there is no flag `{key}`: no file in {} has it", directory.display());
        }
    }
    let wanted = definitions.iter().map(|definition| &definition.flag);
    let wanted = wanted.filter(|flag| args.flag.is_empty() || args.flag.contains(&flag.key));
    let flags: Vec<_> = wanted.map(|flag| (flag, Rollout::begin(flag, Generation::FIRST))).collect();
    Ok(flagd_export(flags.iter().map(|(flag, rollout)| (*flag, rollout))))
}
