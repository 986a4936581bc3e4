//! The commands that ask a running gateway, or change a rollout, and show what came of it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use anyhow::bail;

use crate::api::{
    ArmStatus, ChainReport, Changed, Event, Evidence, FlagStatus, Instance, InstanceList, RampStatus, RampStepStatus,
};
use crate::cli::client::Client;
use crate::cli::output::{millis, print, print_json, share, table};
use crate::cli::{ChangeArgs, HistoryArgs, SetArgs, StatusArgs};
use crate::flag::{FlagKey, Percentage};

/// How often `status --watch` looks again.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// How many events are exported at a time.
const EXPORT_PAGE: u32 = 1000;

/// Clears a terminal and goes to its top left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(crate) fn status(client: &Client, args: &StatusArgs) -> anyhow::Result<()> {
    if !args.watch {
        return print(&status_text(client, args.flag.as_ref())?);
    }
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        // A gateway that restarts is worth waiting for: the next look may find it.
        let text = status_text(client, args.flag.as_ref()).unwrap_or_else(|error| format!("{error:#}"));
        print(&format!("{clear}{text}"))?;
        thread::park_timeout(WATCH_PERIOD);
    }
}

fn status_text(client: &Client, flag: Option<&FlagKey>) -> anyhow::Result<String> {
    let flags = match flag {
        Some(key) => {
            let flag = client.flag(key)?;
            if client.json {
                return Ok(serde_json::to_string_pretty(&flag)?);
            }
            vec![flag]
        }
        None => {
            let list = client.flags()?;
            if client.json {
                return Ok(serde_json::to_string_pretty(&list)?);
            }
            list.flags
        }
    };
    let problems = client.readiness()?.problems.into_iter().map(|problem| format!("! {problem}"));
    let mut parts: Vec<_> = problems.chain(flags.iter().map(flag_text)).collect();
    if flags.is_empty() {
        parts.push("there are no flags".to_owned());
    }
    let fleet = client.instances()?;
    if fleet.instances.len() > 1 {
        parts.push(fleet_text(&fleet));
    }
    Ok(parts.join("\n\n"))
}

fn fleet_text(fleet: &InstanceList) -> String {
    let head = ["gateway", "version", "flag files", "since", "last heard of"].map(str::to_owned).to_vec();
    let row = |instance: &Instance| {
        let Instance { id, name, version, flag_set_version, started, lag_ms, alive } = instance;
        let heard = match (*id == fleet.this, alive) {
            (true, _) => "this one".to_owned(),
            (false, true) => format!("{:.1} s ago", *lag_ms as f64 / 1000.0),
            (false, false) => format!("{} s ago: gone", lag_ms / 1000),
        };
        vec![name.clone(), version.clone(), flag_set_version.clone(), started.clone(), heard]
    };
    let rows: Vec<_> = std::iter::once(head).chain(fleet.instances.iter().map(row)).collect();
    table(&rows, 5)
}

fn flag_text(flag: &FlagStatus) -> String {
    let mut text = format!(
        "{}  {}  canary at {} %  release {}  generation {}  beta users {}\n",
        flag.key, flag.phase, flag.percentage, flag.release, flag.generation, flag.beta_users
    );
    let head = ["", "arm", "backend", "requests", "failures", "errors", "p50", "p99"].map(str::to_owned).to_vec();
    let rows = [head, arm_row("stable", &flag.arms.stable), arm_row("canary", &flag.arms.canary)];
    text.push_str(&table(&rows, 3));
    for evidence in &flag.evidence {
        let Evidence { check, value, limit, requests, failures, verdict, canary_requests_to_go } = evidence;
        if check == "harm_budget" {
            let _ = write!(text, "\n  {check}: {verdict}, {failures} of the {limit} failures that users may meet");
            continue;
        }
        let bad = if check.contains("latency") { "slow" } else { "failures" };
        let _ = write!(
            text,
            "\n  {check}: {verdict}, evidence {} of the {limit:.0} that roll back, on {failures} {bad} in {requests} requests",
            brief(*value),
        );
        if let (Some(requests), "inconclusive") = (canary_requests_to_go, verdict.as_str()) {
            let _ = write!(text, "; about {requests} more would tell");
        }
    }
    for arm in [&flag.arms.stable, &flag.arms.canary] {
        for server in arm.servers.iter().filter(|server| !server.healthy || server.ejected) {
            let how = if server.healthy { "set aside for failing requests" } else { "fails its health check" };
            let _ = write!(text, "\n  {} server {}: {how}", arm.backend, server.name);
        }
    }
    if !flag.arms.canary.available {
        text.push_str("\n  canary unavailable: none of its servers can be used, stable serves its users");
    }
    if let Some(rollback) = &flag.rollback {
        let _ = write!(
            text,
            "\n  rolled back at {} by {}: {}, {} of {} canary requests failed",
            rollback.at, rollback.by, rollback.cause, rollback.failures, rollback.requests
        );
        if let Some(reason) = &rollback.reason {
            let _ = write!(text, " ({reason})");
        }
    }
    if let Some(ramp) = &flag.ramp {
        let _ = write!(text, "\n  ramp: {}", ramp_text(ramp));
    }
    if let Some(percentage) = flag.resume_percentage {
        let _ = write!(text, "\n  `tidegate resume {}` goes back to {percentage} %", flag.key);
    }
    let meant = flag.resume_percentage.unwrap_or(flag.percentage);
    let on_ramp = flag.ramp.as_ref().is_some_and(|ramp| ramp.active);
    if flag.enabled && !on_ramp && (meant - flag.file_percentage).abs() > f64::EPSILON {
        let _ = write!(text, "\n  drift: the file says {} %, the rollout {meant} %", flag.file_percentage);
    }
    text
}

/// The steps with the one that it stands on marked, and what it waits for.
fn ramp_text(ramp: &RampStatus) -> String {
    let step = |(index, step): (usize, &RampStepStatus)| {
        let share = format!("{} %", step.percentage);
        if index + 1 == ramp.step { format!("[{share}]") } else { share }
    };
    let steps: Vec<_> = ramp.steps.iter().enumerate().map(step).collect();
    let next = ramp.next_at.as_ref().map_or_else(String::new, |at| format!(", not before {at}"));
    format!("{}  {}{next}", steps.join(" → "), ramp.detail)
}

/// Evidence, which goes from nearly nothing to more than anybody reads.
fn brief(evidence: f64) -> String {
    if (0.01..1e6).contains(&evidence) { format!("{evidence:.2}") } else { format!("{evidence:.1e}") }
}

fn arm_row(name: &str, arm: &ArmStatus) -> Vec<String> {
    vec![
        String::new(),
        name.to_owned(),
        arm.backend.clone(),
        arm.requests.to_string(),
        arm.failures.to_string(),
        share(arm.error_rate),
        millis(arm.p50_ms),
        millis(arm.p99_ms),
    ]
}

pub(crate) fn set(args: &SetArgs) -> anyhow::Result<()> {
    let SetArgs { flag, percent, change } = args;
    let client = Client::new(&change.admin);
    show_change(&client, &client.set(flag, *percent, change.reason.as_deref(), change.actor.as_deref())?)
}

pub(crate) fn act(
    action: &str,
    flag: &FlagKey,
    percentage: Option<Percentage>,
    change: &ChangeArgs,
) -> anyhow::Result<()> {
    let client = Client::new(&change.admin);
    let changed = client.act(action, flag, percentage, change.reason.as_deref(), change.actor.as_deref())?;
    show_change(&client, &changed)
}

fn show_change(client: &Client, changed: &Changed) -> anyhow::Result<()> {
    if client.json {
        return print_json(changed);
    }
    let FlagStatus { key, phase, percentage, generation, .. } = &changed.flag;
    let unsaved = if changed.saved { "" } else { "; it is in force, and will be written once the store works again" };
    print(&format!("{key} is {phase}, canary at {percentage} %, generation {generation}{unsaved}"))
}

pub(crate) fn history(client: &Client, args: &HistoryArgs) -> anyhow::Result<()> {
    if args.verify {
        return verify(client, args.noted.as_deref());
    }
    if args.export {
        return export(client, args.flag.as_ref());
    }
    let events = client.events(args.flag.as_ref(), args.before.map(|id| ("before", id)), args.limit)?;
    if client.json {
        return print_json(&events);
    }
    let head = ["when", "who", "flag", "what", "change", "why"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(events.events.iter().map(event_row)).collect();
    print(&table(&rows, 6))
}

fn verify(client: &Client, noted: Option<&str>) -> anyhow::Result<()> {
    let report = client.verify(noted)?;
    if client.json {
        print_json(&report)?;
    } else {
        for problem in &report.problems {
            print(&format!("! {problem}"))?;
        }
    }
    let ChainReport { events, unchained, head, problems } = &report;
    if !problems.is_empty() {
        bail!("the audit trail is not whole: {} of what it says cannot be trusted", problems.len());
    }
    if client.json {
        return Ok(());
    }
    let old =
        if *unchained == 0 { String::new() } else { format!(", {unchained} of them from before there were hashes") };
    print(&format!("{events} events{old}: none was changed or taken out"))?;
    head.as_ref().map_or(Ok(()), |head| print(&format!("newest hash  {head}")))
}

fn export(client: &Client, flag: Option<&FlagKey>) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let page = client.events(flag, Some(("after", after)), EXPORT_PAGE)?;
        for event in &page.events {
            print(&serde_json::to_string(event)?)?;
            after = event.id;
        }
        if page.next.is_none() {
            return Ok(());
        }
    }
}

fn event_row(event: &Event) -> Vec<String> {
    let state = |percentage: f64, phase: &str| format!("{percentage} % {phase}");
    let new = state(event.new.percentage, &event.new.phase);
    let change = match &event.old {
        Some(old) => format!("{} → {new}", state(old.percentage, &old.phase)),
        None => new,
    };
    let judged = event.rollback.as_ref().filter(|rollback| rollback.reason.is_none()).map(|rollback| {
        format!("{}: {} of {} canary requests failed", rollback.cause, rollback.failures, rollback.requests)
    });
    let why = event.reason.clone().or(judged).unwrap_or_default();
    vec![event.at.clone(), event.actor.clone(), event.flag.clone(), event.action.clone(), change, why]
}
