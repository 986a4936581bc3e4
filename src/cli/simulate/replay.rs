//! A release that really was, judged again under the present guard or another, beside other methods.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::api::{Event, Second};
use crate::cli::SimulateArgs;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, table};
use crate::cli::simulate::made_up::{guard_of, present_guard};
use crate::flag::FlagKey;
use crate::judge::{Absolute, Check, Counts, Guard, Sample, Stream};
use crate::rollout::settings;
use crate::simulation::{METHODS, Method, ReplaySecond, Stop, replay, replay_rival};

/// How many events are looked through for rollbacks: as many as the admin API gives.
const EVENTS: u32 = 1000;

/// What each method would have done.
#[derive(Debug, Serialize)]
struct Replayed {
    flag: String,
    release: String,
    from: String,
    to: String,
    seconds: usize,
    /// All requests to the canary in that time.
    canary_requests: u64,
    /// Those of their failures that users met.
    failures: u64,
    /// The cause of the rollback that ended it, if one did.
    rolled_back: Option<String>,
    methods: Vec<MethodStop>,
}

#[derive(Debug, Serialize)]
struct MethodStop {
    method: String,
    /// When it stops, in RFC 3339; nothing if never.
    at: Option<String>,
    after_s: Option<u64>,
    /// Requests to the canary until then, or all.
    canary_requests: u64,
    /// Those of their failures that users met.
    failures: u64,
    cause: Option<String>,
}

pub(crate) fn run(args: &SimulateArgs, flag: &FlagKey) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    let seconds = client.seconds(flag, args.release.as_deref(), None)?.seconds;
    let rollbacks = client.events(Some(flag), None, EVENTS)?.events;
    let Some((seconds, ended_by)) = last_trial(seconds, &rollbacks) else {
        bail!("nothing is recorded of {flag}; seconds with requests are kept while its canary is on trial");
    };
    let (Some(first), Some(last)) = (seconds.first(), seconds.last()) else { return Ok(()) };
    let (start, release) = (first.at, first.release.clone());
    let moment = |at: i64| Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string());
    let (from, to) = (moment(start), moment(last.at));
    let replayed = gathered(start, &seconds);
    let all = replayed.iter().fold(Counts::default(), |sum, second| sum.plus(second.traffic));

    let mut stops = Vec::new();
    let mut judge = |name: String, guard: &Guard| stops.push((name, replay(&settings(guard), &replayed)));
    let present = match (present_guard(args, flag), &args.guard) {
        (Ok((path, guard)), _) => {
            judge(shown(&path), &guard);
            guard
        }
        (Err(error), None) => return Err(error),
        (Err(_), Some(_)) => Guard::default(),
    };
    if let Some(path) = &args.guard {
        judge(shown(path), &guard_of(args, path)?);
    }
    for method in METHODS.into_iter().filter(|method| *method != Method::Judge) {
        stops.push((method.as_str().to_owned(), replay_rival(method, present.false_rollback, &replayed)));
    }

    let method = |(method, stop): (String, Option<Stop>)| MethodStop {
        method,
        at: stop.and_then(|stop| Some(moment(start + i64::try_from(stop.at.as_secs()).ok()?))),
        after_s: stop.map(|stop| stop.at.as_secs()),
        canary_requests: stop.map_or(all, |stop| stop.traffic).requests,
        failures: stop.map_or(all, |stop| stop.traffic).failures,
        cause: stop.and_then(|stop| stop.cause).map(|cause| cause.as_str().to_owned()),
    };
    let replayed = Replayed {
        flag: flag.to_string(),
        release,
        from,
        to,
        seconds: replayed.len(),
        canary_requests: all.requests,
        failures: all.failures,
        rolled_back: ended_by,
        methods: stops.into_iter().map(method).collect(),
    };
    if client.json { print_json(&replayed) } else { print(&text(&replayed)) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The seconds after the last rollback but one, if the last one ended them, and its cause: each rollback ends a trial, and
/// resuming begins another.
fn last_trial(seconds: Vec<Second>, events: &[Event]) -> Option<(Vec<Second>, Option<String>)> {
    let last = seconds.iter().map(|second| second.generation).max()?;
    let rollbacks = || events.iter().filter(|event| event.action == "rollback");
    let begun = rollbacks().map(|event| event.generation).filter(|generation| *generation <= last).max().unwrap_or(0);
    let ended = rollbacks().filter(|event| event.generation > last).min_by_key(|event| event.generation);
    let release = |event: &&Event| seconds.last().is_some_and(|second| second.release == event.new.release);
    let cause = ended.filter(release).and_then(|event| event.rollback.as_ref()).map(|rollback| rollback.cause.clone());
    Some((seconds.into_iter().filter(|second| second.generation >= begun).collect(), cause))
}

/// The seconds of all gateways, each once.
fn gathered(start: i64, seconds: &[Second]) -> Vec<ReplaySecond> {
    let mut all: Vec<ReplaySecond> = Vec::new();
    for second in seconds {
        let at = Duration::from_secs(u64::try_from(second.at - start).unwrap_or(0));
        let counts = |[requests, failures]: [u64; 2]| Counts { requests, failures };
        if all.last().is_none_or(|last| last.at != at) {
            all.push(ReplaySecond { at, ..ReplaySecond::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        let share = second.percentage / 100.0;
        last.samples.extend(second.counts.streams.iter().filter_map(|row| {
            let stream = Stream::ALL.into_iter().find(|stream| stream.as_str() == row.stream)?;
            Some(Sample { stream, share, stable: counts(row.stable), canary: counts(row.canary) })
        }));
        last.absolute.extend(second.counts.limits.iter().filter_map(|row| {
            let is = |absolute: &Absolute| Check::as_str(absolute.check()) == row.check;
            Some((Absolute::BOTH.into_iter().find(is)?, counts(row.canary)))
        }));
        last.traffic = last.traffic.plus(counts(second.counts.traffic));
    }
    all
}

fn text(replayed: &Replayed) -> String {
    let Replayed { flag, release, from, to, seconds, canary_requests, failures, rolled_back, methods } = replayed;
    let ended = match rolled_back {
        Some(cause) => format!("It was rolled back: {cause}."),
        None => "It was not rolled back.".to_owned(),
    };
    let head = ["", "stops at", "after", "requests to it", "failed", "by"].map(str::to_owned).to_vec();
    let row = |stop: &MethodStop| {
        let span = |seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        vec![
            stop.method.clone(),
            stop.at.clone().unwrap_or_else(|| "never".to_owned()),
            stop.after_s.map_or_else(|| "-".to_owned(), |seconds| format!("{:#}", span(seconds))),
            stop.canary_requests.to_string(),
            stop.failures.to_string(),
            stop.cause.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(methods.iter().map(row)).collect();
    format!(
        "{flag}, release {release}: {seconds} s with requests, from {from} to {to};\n\
         {canary_requests} requests to the canary, {failures} failures that users met. {ended}\n\n{}\n\n\
         What was a failure and what was slow is as it was counted then. failed: failures that users met until the stop.",
        table(&rows, 2)
    )
}
