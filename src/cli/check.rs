//! `tidegate check`.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::json;

use crate::cli::CheckArgs;
use crate::cli::output::{print, print_json};
use crate::config::{Config, DEFAULT_PATH, environment};
use crate::diagnostic::Diagnostic;
use crate::flag_file::{Definition, load, load_file};
use crate::server;

pub(crate) fn check(args: CheckArgs) -> anyhow::Result<()> {
    let checked = read(args.path, args.config.config);
    if args.json {
        let problems: Vec<_> = checked.as_ref().err().into_iter().flatten().map(ToString::to_string).collect();
        print_json(&json!({"ok": problems.is_empty(), "problems": problems}))?;
    }
    match checked {
        Ok(definitions) if args.json => drop(definitions),
        Ok(definitions) => {
            for definition in &definitions {
                let flag = &definition.flag;
                let (stable, canary, percentage) = (&flag.stable, &flag.canary, flag.percentage);
                let share = match &flag.ramp {
                    Some(ramp) => format!("{} and up, in {} steps", ramp.first(), ramp.steps().len()),
                    None => percentage.to_string(),
                };
                print(&format!("{}: {stable}, and {canary} for {share}", definition.path.display()))?;
            }
            print("all is well")?;
        }
        Err(problems) => {
            if !args.json {
                tell(&problems)?;
            }
            let count = problems.len();
            bail!(
                "{count} problem{}; until mended, `serve` would not start and a reload would be refused",
                plural(count)
            );
        }
    }
    Ok(())
}

fn read(path: Option<PathBuf>, config: Option<PathBuf>) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    // Whoever names a configuration means it, and what it names.
    let is_config = |path: &PathBuf| path.file_name() == Some(OsStr::new(DEFAULT_PATH));
    let (config, path) = match path.clone().filter(is_config) {
        Some(named) => (config.or(Some(named)), None),
        None => (config, path),
    };
    let config = Config::load(config.as_deref(), &environment())?;
    config.admin.access()?;
    if let Err(problem) = server::check(&config) {
        return Err(vec![Diagnostic::of_file(Path::new(DEFAULT_PATH), problem)]);
    }
    let mut expected = config.expectations();
    match path {
        None => load(&config.flags.path, &expected),
        Some(path) if path.is_dir() => load(&path, &expected),
        Some(path) => {
            expected.flags.clear();
            load_file(&path, &expected)
        }
    }
}

/// Tells problems on standard error, each with the text that it is about.
pub(crate) fn tell(problems: &[Diagnostic]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    problems.iter().try_for_each(|problem| writeln!(stderr, "{}", problem.with_excerpt()))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
