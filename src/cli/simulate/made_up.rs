//! Tables of made-up releases: one that the caller describes, or the suite that proves the judge.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::bail;

use crate::cli::SimulateArgs;
use crate::cli::check::tell;
use crate::cli::output::{print, share, table};
use crate::config::{Config, environment};
use crate::flag::FlagKey;
use crate::flag_file::load_file;
use crate::judge::{Aside, Guard, Rate, Tolerance};
use crate::simulation::{
    Calm, Change, Lineup, METHODS, Method, Race, Size, TICK, Traffic, Tries, World, calms, changes, history,
};

/// How many times a described release is tried.
const TRIES: u64 = 400;

/// How long one with nothing wrong in it is watched: ten minutes.
const WATCHED_TICKS: u64 = 6_000;

/// How long a bad one is: half an hour.
const BAD_TICKS: u64 = 18_000;

/// The suite's probability of a false stop where it measures delays: the default of flag files.
const ALPHA: f64 = 0.001;

/// How many tries there are at that. 20 of 20,000 are to be expected at most; a bound that is broken by half gives 30, which is
/// more than twice the spread above that, and one that is broken by as much again is past any doubt.
const MANY: u64 = 20_000;

/// How long each of them lasts: two minutes.
const RARE_TICKS: u64 = 1_200;

/// Other tries than those at the large one.
const RARE_SEED: u64 = 0x5EED;

/// The one at which it looks for false stops: large enough for a broken bound to show.
const LARGE_ALPHA: f64 = 0.02;

/// Tells how soon the described canary would be stopped, how many it would hurt and how often a good one would be stopped.
pub(crate) fn describe(args: &SimulateArgs) -> anyhow::Result<()> {
    let guard = guard(args)?;
    let canary = args.canary_errors.unwrap_or(args.stable_errors);
    let (stable, rps, canary_share) = (args.stable_errors.as_share(), args.rps, args.share.as_share());
    let history = history(stable);
    let world = |canary: Rate, slower| {
        let fails = canary.as_share();
        let world = World::new("", history, move |_, traffic| {
            traffic.push(Traffic { slower, ..Traffic::plain(rps, canary_share, stable, fails) });
        });
        if args.slower.is_some() { world.with_latency(guard.latency_tolerance) } else { world }
    };
    let (bad, good) = (world(canary, args.slower.unwrap_or(1.0)), world(args.stable_errors, 1.0));
    // A factor just below 1, by rounding, would be none.
    let kept = (guard.tolerance.allowed(1.0) - guard.tolerance.allowed(0.0)).max(1.0);
    let factor = args.tolerance_relative.map_or(kept, |relative| 1.0 + relative.as_share());
    let points = args.tolerance_points.map_or(guard.tolerance.allowed(0.0), Rate::as_share);
    let Some(tolerance) = Tolerance::new(points, factor) else {
        bail!("`--tolerance-points` must be below 100 %");
    };
    let false_rollback = args.false_rollback.unwrap_or(guard.false_rollback);
    let tries = args.tries.unwrap_or(TRIES);
    let race = Race {
        world: &bad,
        tolerance,
        max_error_rate: Some(guard.max_error_rate),
        false_rollback,
        harm_budget: guard.harm_budget,
        min_requests: guard.min_requests,
        aside: Aside::ONE_USER,
        change: 0,
        ticks: BAD_TICKS,
        tries,
        seed: args.seed,
        lineup: Lineup::All,
    };
    let stops = race.run(threads());
    let calm = Race { world: &good, change: WATCHED_TICKS, ticks: WATCHED_TICKS, ..race };
    let wrong = calm.run(threads());

    let head = ["method", "stopped", "after, mean", "9 of 10 by", "requests to it", "failed", "wrong"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for ((method, bad), good) in METHODS.into_iter().zip(&stops).zip(&wrong) {
        let seconds = |ticks: f64| format!("{:.1} s", ticks * TICK.as_secs_f64());
        let dash = || "-".to_owned();
        rows.push(vec![
            method.as_str().to_owned(),
            share(bad.seen()),
            bad.mean(|delay| delay.ticks).map_or_else(dash, seconds),
            bad.ninth_decile(|delay| delay.ticks).map_or_else(dash, |ticks| seconds(ticks as f64)),
            number(bad.mean(|delay| delay.canary.requests)),
            number(bad.mean(|delay| delay.canary.failures)),
            share(good.false_stops(method, &calm, false_rollback.as_share())),
        ]);
    }
    let slower = args.slower.map_or_else(String::new, |times| format!(" and takes {times} times as long"));
    print(&format!(
        "stable fails at {}, the canary at {canary}{slower}; {} of {rps} requests a second go to it; {tries} tries of 30 min\n",
        args.stable_errors, args.share,
    ))?;
    print(&table(&rows, 1))?;
    print(
        "\nfailed: users that the canary failed until the stop. wrong: stops of a canary that is as good as stable, in 10 min.",
    )
}

fn guard(args: &SimulateArgs) -> anyhow::Result<Guard> {
    args.guard.as_ref().map_or_else(|| Ok(Guard::default()), |path| guard_of(args, path))
}

/// The guard of the flag file at `path`.
pub(crate) fn guard_of(args: &SimulateArgs, path: &Path) -> anyhow::Result<Guard> {
    let read = || {
        let mut expected = Config::load(args.config.config.as_deref(), &environment())?.expectations();
        expected.flags.clear();
        load_file(path, &expected)
    };
    match read() {
        // All flags of a file of flagd's have the same.
        Ok(definitions) => Ok(definitions.into_iter().next().map(|definition| definition.guard).unwrap_or_default()),
        Err(problems) => {
            tell(&problems)?;
            bail!("{} is no flag file to simulate", path.display());
        }
    }
}

/// The flag's own file, in the directory that the configuration names, and its guard.
pub(crate) fn present_guard(args: &SimulateArgs, flag: &FlagKey) -> anyhow::Result<(PathBuf, Guard)> {
    let config = Config::load(args.config.config.as_deref(), &environment());
    let Ok(config) = config else { bail!("the configuration cannot be read; `tidegate check` tells why") };
    let path = config.flags.path.join(format!("{flag}.toml"));
    if !path.exists() {
        bail!("{} is not there; name a flag file with `--guard`", path.display());
    }
    let guard = guard_of(args, &path)?;
    Ok((path, guard))
}

/// Runs the suite and prints its tables.
pub(crate) fn suite(args: &SimulateArgs) -> anyhow::Result<()> {
    let (size, budget, most, tries, many) =
        if args.quick { (Size::Quick, 1e5, 60, 100, 200) } else { (Size::Full, 5e5, 400, 1000, MANY) };
    let alpha = Rate::from_share(ALPHA).unwrap_or(Rate::ZERO);
    let asked = |world: &World| args.only.as_ref().is_none_or(|text| world.name.contains(text.as_str()));
    let changes: Vec<_> = changes(size).into_iter().filter(|case| asked(&case.world)).collect();
    let calms: Vec<_> = calms(size).into_iter().filter(|case| asked(&case.world)).collect();
    if changes.is_empty() && calms.is_empty() {
        bail!("no release of the suite has that text in its name; without `--only` all are run, and named");
    }
    if !changes.is_empty() {
        delays(&changes, (budget, most, args.tries), alpha, args.seed)?;
    }
    if !calms.is_empty() {
        false_stops(&calms, args.tries.unwrap_or(tries), alpha, args.seed)?;
        rare_false_stops(&calms, args.tries.unwrap_or(many), alpha, args.seed)?;
    }
    Ok(())
}

/// How far each change is seen: as often as `budget` ticks allow, up to `most` times, or as often as was asked for.
fn delays(cases: &[Change], effort: (f64, u64, Option<u64>), alpha: Rate, seed: u64) -> anyhow::Result<()> {
    let (budget, most, tries) = effort;
    print(&format!("Canary requests from the change to the stop, alpha = {ALPHA}; (n %): seen in so many\n"))?;
    let mut rows = vec![heads(&["release", "W", "goal", "must", "tries"], &[""])];
    let (mut all, mut within_goal, mut within_bound) = (0, 0, 0);
    for case in cases {
        let mut race = case.race(alpha, budget, most, seed);
        race.tries = tries.unwrap_or(race.tries);
        let run = race.run(threads());
        let (goal, bound) = (case.goal(ALPHA), case.bound(ALPHA));
        let judged = run.first().and_then(|tries| tries.mean(|delay| delay.canary.requests)).unwrap_or(f64::INFINITY);
        all += 1;
        within_goal += u32::from(judged <= goal);
        within_bound += u32::from(judged <= bound);
        let mut row = vec![case.world.name.clone()];
        row.extend([case.needed(ALPHA), goal, bound].map(|value| number(Some(value))));
        row.push(race.tries.to_string());
        row.extend(run.iter().map(delay));
        rows.push(row);
    }
    print(&table(&rows, 1))?;
    print(&format!(
        "\nThe judge is within 1.3 W + 2 + a tick in {within_goal} of {all}, within 1.5 W + 3 + two ticks in {within_bound}.\n"
    ))
}

fn delay(tries: &Tries) -> String {
    let seen = tries.seen();
    let mean = number(tries.mean(|delay| delay.canary.requests));
    if seen < 0.995 { format!("{mean} ({:.0} %)", seen * 100.0) } else { mean }
}

fn false_stops(cases: &[Calm], tries: u64, alpha: Rate, seed: u64) -> anyhow::Result<()> {
    print(&format!("False stops in {tries} tries, at alpha = {LARGE_ALPHA} and at {ALPHA}\n"))?;
    let mut rows = vec![heads(&["release"], &[" 2 %", " 0.1 %"])];
    for case in cases {
        let race = case.race(alpha, tries, seed, Lineup::All);
        let run = race.run(threads());
        let mut row = vec![case.world.name.clone()];
        for (method, tries) in METHODS.into_iter().zip(&run) {
            row.extend([LARGE_ALPHA, ALPHA].map(|alpha| share(tries.false_stops(method, &race, alpha))));
        }
        rows.push(row);
    }
    print(&table(&rows, 1))
}

/// The judge alone at its small alpha, often enough for a bound that is broken by half to show.
fn rare_false_stops(cases: &[Calm], tries: u64, alpha: Rate, seed: u64) -> anyhow::Result<()> {
    print(&format!("\nFalse stops of the judge in {tries} tries of {RARE_TICKS} ticks, at alpha = {ALPHA}\n"))?;
    let mut rows = vec![vec!["release".to_owned(), "stops".to_owned(), "share".to_owned()]];
    for case in cases {
        let calm = case.race(alpha, tries, seed ^ RARE_SEED, Lineup::Judge);
        let race = Race { change: RARE_TICKS, ticks: RARE_TICKS, ..calm };
        let [judge, ..] = race.run(threads());
        let stopped = judge.false_stops(Method::Judge, &race, ALPHA);
        rows.push(vec![case.world.name.clone(), format!("{:.0}", stopped * tries as f64), share(stopped)]);
    }
    print(&table(&rows, 1))
}

/// A table's head: `first`, then each method with each of `kinds`.
fn heads(first: &[&str], kinds: &[&str]) -> Vec<String> {
    let methods =
        METHODS.into_iter().flat_map(|method| kinds.iter().map(move |kind| format!("{}{kind}", method.as_str())));
    first.iter().map(|head| (*head).to_owned()).chain(methods).collect()
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") },
    )
}

fn threads() -> u64 {
    thread::available_parallelism().map_or(1, NonZero::get) as u64
}
