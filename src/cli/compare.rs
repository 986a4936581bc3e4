//! `tidegate compare`: load on both variants in turn, and what each made of it.
//!
//! The two take turns within every round, and which is first changes from round to round, so that whatever else the
//! machine does hits both alike.

mod chart;
mod load;
mod process;
mod report;
mod statistics;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, bail};
use tokio::sync::watch;

use crate::backend::Mode;
use crate::cli::CompareArgs;
use crate::cli::compare::load::{Load, Pace, Tally};
use crate::cli::compare::process::{Target, Usage};
use crate::cli::compare::report::{Cell, Report};
use crate::cli::output::{print, print_json};

pub(crate) use crate::cli::compare::load::Work;

/// Threads of the load: it may not be what is slow, and may not take the machine from what it measures either.
const THREADS: usize = 2;

pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let report = runtime.block_on(run(args))?;
    // What is still connected has had its time.
    runtime.shutdown_background();
    if let Some(path) = &args.svg {
        write(path, &chart::draw(&report))?;
    }
    if let Some(path) = &args.output {
        write(path, &serde_json::to_string_pretty(&report)?)?;
    }
    if args.json { print_json(&report) } else { print(&report.table()) }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

async fn run(args: &CompareArgs) -> anyhow::Result<Report> {
    let targets = targets(args).await?;
    let stop = stop_on_interrupt();
    let pace = match args.rate {
        Some(rate) => Pace::Open { per_second: rate },
        None => Pace::Closed { think: args.think },
    };
    let mut report = Report::new(args, &targets);
    for concurrency in &args.concurrency {
        let load = Load {
            concurrency: *concurrency,
            pace,
            work: args.work,
            path: args.path.clone(),
            warm_up: args.warmup,
            duration: args.duration,
        };
        let mut cells: Vec<Cell> = targets.iter().map(|target| Cell::new(&target.name, *concurrency)).collect();
        for round in 0..args.rounds {
            for turn in 0..targets.len() {
                let which = (turn + usize::try_from(round).unwrap_or_default()) % targets.len();
                let (Some(target), Some(cell)) = (targets.get(which), cells.get_mut(which)) else { continue };
                progress(
                    args,
                    &format!("{} clients, round {} of {}: {}", concurrency, round + 1, args.rounds, target.name),
                );
                let (tally, usage) = measure(target, &load, stop.clone()).await?;
                if *stop.borrow() {
                    // Half a turn would be held against the whole one of the other variant.
                    report.stopped_early = true;
                    break;
                }
                cell.add(tally, usage, args.duration)?;
            }
            if report.stopped_early {
                break;
            }
        }
        report.add(&cells);
        if report.stopped_early {
            progress(args, "stopped early; these are the results so far");
            break;
        }
    }
    Ok(report)
}

/// The two variants: services that run already, or the built-in backends, each a process of its own.
async fn targets(args: &CompareArgs) -> anyhow::Result<Vec<Target>> {
    match (&args.stable, &args.canary) {
        (Some(stable), Some(canary)) => Ok(vec![Target::there("stable", stable)?, Target::there("canary", canary)?]),
        (None, None) => {
            let mut targets = Vec::new();
            for mode in [Mode::Sync, Mode::Async] {
                targets.push(Target::start(mode, args).await?);
            }
            Ok(targets)
        }
        _ => bail!("compare two services of your own by both --stable and --canary, or the built-in ones by neither"),
    }
}

async fn measure(target: &Target, load: &Load, stop: watch::Receiver<bool>) -> anyhow::Result<(Tally, Usage)> {
    let (measuring, mut begun) = watch::channel(false);
    let watched = async {
        // Only what comes after the warm-up is counted.
        let _ = begun.wait_for(|begun| *begun).await;
        target.watch(load.duration, &stop).await
    };
    let (tally, usage) = tokio::join!(load::run(&target.address, load, measuring, stop.clone()), watched);
    Ok((tally?, usage))
}

/// Turns true at the first interrupt.
fn stop_on_interrupt() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        // Without the signal, the measurement merely goes on to its end.
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(true);
        }
        stop.closed().await;
    });
    stopped
}

fn progress(args: &CompareArgs, text: &str) {
    if !args.quiet {
        // If standard error is gone, nobody wants to know.
        let _ = writeln!(io::stderr(), "compare: {text}");
    }
}

/// A duration as a person writes it, which is not negative.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "write a duration like 10s or 250ms".to_owned())
}
