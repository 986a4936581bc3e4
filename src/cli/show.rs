//! The commands that ask a running gateway, or change a rollout, and show what came of it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use anyhow::bail;

use crate::api::{
    Approval, ArmStatus, ChainReport, Changed, Event, Evidence, FlagStatus, Instance, InstanceList, NO_FLAG,
    RampStatus, RampStepStatus, Rollback,
};
use crate::cli::client::Client;
use crate::cli::confirm::{Verb, confirm};
use crate::cli::output::{millis, print, print_json, share, table};
use crate::cli::paint::{Paint, Tone};
use crate::cli::watch::watch;
use crate::cli::{ChangeArgs, DangerousArgs, HistoryArgs, ResumeArgs, SetArgs, StatusArgs};
use crate::flag::{FlagKey, Percentage};

/// How often `status --watch` looks again.
pub(crate) const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// How many events are exported at a time.
const EXPORT_PAGE: u32 = 1000;

pub(crate) fn status(client: &Client, args: &StatusArgs) -> anyhow::Result<()> {
    let paint = Paint::of_stdout(args.no_color);
    if !args.watch {
        print(&status_text(client, args.flag.as_ref(), paint)?)?;
        return if args.exit_code { all_is_well(client, args.flag.as_ref()) } else { Ok(()) };
    }
    if io::stdout().is_terminal() && !client.json {
        return watch(client, args.flag.as_ref(), paint);
    }
    loop {
        // A gateway that restarts is worth waiting for: the next look may find it.
        let text = status_text(client, args.flag.as_ref(), paint).unwrap_or_else(|error| format!("{error:#}"));
        print(&text)?;
        thread::park_timeout(WATCH_PERIOD);
    }
}

/// Fails if the flag that is meant, or any, is rolled back, or if there is a problem.
fn all_is_well(client: &Client, flag: Option<&FlagKey>) -> anyhow::Result<()> {
    let flags = match flag {
        Some(key) => vec![client.flag(key)?],
        None => client.flags()?.flags,
    };
    let rolled_back =
        flags.iter().filter(|flag| flag.rollback.is_some()).map(|flag| format!("{} is rolled back", flag.key));
    let wrong: Vec<_> = rolled_back.chain(client.readiness()?.problems).collect();
    if wrong.is_empty() { Ok(()) } else { bail!("not all is well: {}", wrong.join("; ")) }
}

fn status_text(client: &Client, flag: Option<&FlagKey>, paint: Paint) -> anyhow::Result<String> {
    let (flags, version) = match flag {
        Some(key) => {
            let flag = client.flag(key)?;
            if client.json {
                return Ok(serde_json::to_string_pretty(&flag)?);
            }
            (vec![flag], None)
        }
        None => {
            let list = client.flags()?;
            if client.json {
                return Ok(serde_json::to_string_pretty(&list)?);
            }
            (list.flags, Some(list.flag_set_version))
        }
    };
    let problems = client.readiness()?.problems;
    let problems = problems.iter().map(|problem| paint.text(Tone::Warning, &format!("! {problem}")));
    let mut parts: Vec<_> = problems.chain(flags.iter().map(|flag| flag_text(flag, paint))).collect();
    if flags.is_empty() {
        parts.push("there are no flags".to_owned());
    }
    let fleet = client.instances()?;
    if fleet.instances.len() > 1 {
        parts.push(fleet_text(&fleet));
    } else if let Some(version) = version {
        parts.push(format!("flag files {version}"));
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

fn flag_text(flag: &FlagStatus, paint: Paint) -> String {
    let mut text = format!(
        "{}  {}  canary at {} %  release {}  generation {}  beta users {}\n",
        paint.text(Tone::Strong, &flag.key),
        paint.phase(&flag.phase),
        flag.percentage,
        flag.release,
        flag.generation,
        flag.beta_users
    );
    let head = ["", "arm", "backend", "requests", "failures", "errors", "p50", "p99"].map(str::to_owned).to_vec();
    let rows = [head, arm_row("stable", &flag.arms.stable), arm_row("canary", &flag.arms.canary)];
    text.push_str(&table(&rows, 3));
    if flag.gateways > 1 {
        let _ = write!(text, "\n  requests of {} gateways, those that are gone since included", flag.gateways);
    }
    for evidence in &flag.evidence {
        let Evidence { check, value, limit, requests, failures, verdict, canary_requests_to_go } = evidence;
        if check == "harm_budget" {
            let _ = write!(text, "\n  {check}: {verdict}, {failures} of the {limit} failures that users may meet");
            continue;
        }
        let bad = bad(check);
        let _ = write!(
            text,
            "\n  {check}: {verdict}, evidence {} of the {limit:.0} that roll back, on {failures} {bad} in {requests} requests",
            brief(*value),
        );
        if let (Some(requests), "inconclusive") = (canary_requests_to_go, verdict.as_str()) {
            let _ = write!(text, "; about {requests} more would tell");
        }
        text.push_str(waits_for(evidence));
    }
    for line in servers(flag).into_iter().chain(rolled_back(flag)) {
        let _ = write!(text, "\n  {}", paint.text(Tone::Bad, &line));
    }
    if let Some(ramp) = &flag.ramp {
        let _ = write!(text, "\n  ramp: {}", ramp_text(ramp));
    }
    for line in waiting(flag) {
        let _ = write!(text, "\n  {}", paint.text(Tone::Warning, &line));
    }
    if let Some(percentage) = flag.resume_percentage {
        let _ = write!(text, "\n  `tidegate resume {}` goes back to {percentage} %", flag.key);
    }
    if let Some(line) = drift(flag) {
        let _ = write!(text, "\n  {}", paint.text(Tone::Warning, &line));
    }
    text
}

/// Why evidence that is enough rolls nothing back, if it does not.
pub(crate) fn waits_for(evidence: &Evidence) -> &'static str {
    let waits = evidence.verdict == "inconclusive" && evidence.value >= evidence.limit;
    if waits { "; it waits for `guard.min_requests`" } else { "" }
}

/// What a check counts.
pub(crate) fn bad(check: &str) -> &'static str {
    if check.contains("latency") { "slow" } else { "failures" }
}

/// The servers that get no requests, and why.
pub(crate) fn servers(flag: &FlagStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for arm in [&flag.arms.stable, &flag.arms.canary] {
        for server in arm.servers.iter().filter(|server| !server.healthy || server.ejected) {
            let how = if server.healthy { "set aside for failing requests" } else { "fails its health check" };
            lines.push(format!("{} server {}: {how}", arm.backend, server.name));
        }
    }
    if !flag.arms.canary.available {
        lines.push("canary unavailable: none of its servers can be used, stable serves its users".to_owned());
    }
    lines
}

/// What waits for a second operator.
pub(crate) fn waiting(flag: &FlagStatus) -> Vec<String> {
    let line = |Approval { id, flag, action, from_percentage, percentage, actor, expires, .. }: &Approval| {
        format!(
            "{actor} wants to {action}, {from_percentage} % → {percentage} %: another operator says `tidegate approve {flag} \
             {id}`, until {expires}"
        )
    };
    flag.approvals.iter().map(line).collect()
}

/// What the latch is for, while it holds.
pub(crate) fn rolled_back(flag: &FlagStatus) -> Option<String> {
    let rollback = flag.rollback.as_ref()?;
    let Rollback { at, by, cause, reason, .. } = rollback;
    if rollback.is_unread() {
        let reason = reason.as_deref().unwrap_or(cause);
        return Some(format!(
            "everyone is on stable since {at}: {reason}; it goes on by itself once the store is read"
        ));
    }
    let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    Some(format!("rolled back at {at} by {by}: {cause}, {}{reason}", rollback.found()))
}

/// How the rollout differs from what the file says, if it does.
pub(crate) fn drift(flag: &FlagStatus) -> Option<String> {
    flag.drift().map(|meant| format!("drift: the file says {} %, the rollout {meant} %", flag.file_percentage))
}

/// The steps with the one that it stands on marked, and what it waits for.
pub(crate) fn ramp_text(ramp: &RampStatus) -> String {
    let step = |(index, step): (usize, &RampStepStatus)| {
        let share = format!("{} %", step.percentage);
        if index + 1 == ramp.step { format!("[{share}]") } else { share }
    };
    let steps: Vec<_> = ramp.steps.iter().enumerate().map(step).collect();
    let next = ramp.next_at.as_ref().map_or_else(String::new, |at| format!(", not before {at}"));
    format!("{}  {}{next}", steps.join(" → "), ramp.detail)
}

/// Evidence, which goes from nearly nothing to more than anybody reads.
pub(crate) fn brief(evidence: f64) -> String {
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
    let SetArgs { flag, percent, asking, change } = args;
    let client = Client::new(&change.admin)?;
    let seen = confirm(&client, flag, Verb::Set(*percent), asking)?;
    show_change(&client, &client.set(flag, *percent, change.reason.as_deref(), change.actor.as_deref(), seen)?)
}

pub(crate) fn promote(args: &DangerousArgs) -> anyhow::Result<()> {
    let seen = confirm(&Client::new(&args.change.admin)?, &args.flag, Verb::Promote, &args.asking)?;
    act_on("promote", &args.flag, None, &args.change, seen)
}

pub(crate) fn roll_back(args: &DangerousArgs) -> anyhow::Result<()> {
    let seen = confirm(&Client::new(&args.change.admin)?, &args.flag, Verb::RollBack, &args.asking)?;
    act_on("rollback", &args.flag, None, &args.change, seen)
}

pub(crate) fn resume(args: &ResumeArgs) -> anyhow::Result<()> {
    let ResumeArgs { flag, percentage, asking, change } = args;
    let seen = confirm(&Client::new(&change.admin)?, flag, Verb::Resume(*percentage), asking)?;
    act_on("resume", flag, *percentage, change, seen)
}

/// What is asked of nobody first.
pub(crate) fn act(action: &str, flag: &FlagKey, change: &ChangeArgs) -> anyhow::Result<()> {
    act_on(action, flag, None, change, None)
}

fn act_on(
    action: &str,
    flag: &FlagKey,
    percentage: Option<Percentage>,
    change: &ChangeArgs,
    seen: Option<u64>,
) -> anyhow::Result<()> {
    let client = Client::new(&change.admin)?;
    let changed = client.act(action, flag, percentage, change.reason.as_deref(), change.actor.as_deref(), seen)?;
    show_change(&client, &changed)
}

pub(crate) fn show_change(client: &Client, changed: &Changed) -> anyhow::Result<()> {
    if client.json {
        print_json(changed)?;
    }
    if let Some(Approval { id, flag, action, percentage, expires, .. }) = &changed.approval {
        // A script may not go on as if it was done.
        bail!(
            "not done yet: `{action}` of {flag}, to {percentage} %, waits until {expires} for another operator, who says \
             `tidegate approve {flag} {id}`"
        );
    }
    if client.json {
        return Ok(());
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
    if events.events.is_empty() {
        return print(
            &args.flag.as_ref().map_or_else(|| "no events".to_owned(), |flag| format!("no events of `{flag}`")),
        );
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
    let mut change = match &event.old {
        None if event.flag == NO_FLAG => String::new(),
        Some(old) if state(old.percentage, &old.phase) != new => {
            format!("{} → {new}", state(old.percentage, &old.phase))
        }
        _ => new,
    };
    if let Some(beta) = &event.new.beta {
        let _ = write!(change, "; {}", beta.summary());
    }
    let judged = event.rollback.as_ref().filter(|rollback| rollback.reason.is_none()).map(|rollback| {
        let (cause, found) = (&rollback.cause, rollback.found());
        format!("{cause}: {found}")
    });
    let why = event.reason.clone().or(judged).unwrap_or_default();
    vec![event.at.clone(), event.actor.clone(), event.flag.clone(), event.action.clone(), change, why]
}
