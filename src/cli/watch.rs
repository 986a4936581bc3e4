//! `tidegate status --watch` on a terminal: each flag as a table that is redrawn in place.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;

use crate::api::{ArmStatus, Evidence, FlagStatus, RampStatus};
use crate::cli::client::Client;
use crate::cli::output::{millis, print, share};
use crate::cli::paint::{Paint, Tone};
use crate::cli::rates::{Rates, SPAN};
use crate::cli::show::{WATCH_PERIOD, bad, brief, drift, ramp_text, rolled_back, servers, waiting};
use crate::clock;
use crate::flag::FlagKey;

/// Clears a terminal.
const CLEAR: &str = "\x1b[2J";

/// Goes to its top left corner.
const HOME: &str = "\x1b[H";

/// Ends a line that is shorter than the one that it is drawn over.
const REST_OF_LINE: &str = "\x1b[K";

/// Clears what was drawn further below.
const REST_OF_SCREEN: &str = "\x1b[J";

/// How wide the columns are: what a row is called, and each arm.
const NAMES: usize = 16;
const ARM: usize = 22;

/// How long a bar is, in characters.
const BAR: usize = 20;

/// Redraws until it is interrupted, or nobody looks any more.
pub(crate) fn watch(client: &Client, flag: Option<&FlagKey>, paint: Paint) -> anyhow::Result<()> {
    let mut rates = BTreeMap::new();
    let mut begin = CLEAR;
    loop {
        // A gateway that restarts is worth waiting for: the next look may find it.
        let text = look(client, flag, paint, &mut rates).unwrap_or_else(|error| format!("{error:#}"));
        let text = text.replace('\n', &format!("{REST_OF_LINE}\n"));
        print(&format!("{begin}{HOME}{text}{REST_OF_LINE}{REST_OF_SCREEN}"))?;
        begin = "";
        thread::park_timeout(WATCH_PERIOD);
    }
}

fn look(
    client: &Client,
    flag: Option<&FlagKey>,
    paint: Paint,
    rates: &mut BTreeMap<String, Rates>,
) -> anyhow::Result<String> {
    let flags =
        flag.map_or_else(|| Ok(client.flags()?.flags), |key| Ok::<_, anyhow::Error>(vec![client.flag(key)?]))?;
    let now = clock::wall();
    for flag in &flags {
        if !rates.contains_key(&flag.key) {
            let key: FlagKey = flag.key.parse()?;
            let mut new = Rates::default();
            // Without the store there is no past to show, and the present goes on.
            if let Ok(list) = client.seconds(&key, None, Some(now.as_second() - SPAN)) {
                new.recall(&list.seconds);
            }
            rates.insert(flag.key.clone(), new);
        }
        if let Some(rates) = rates.get_mut(&flag.key) {
            rates.look(now.as_second(), flag);
        }
    }
    let head = format!("{}   {now:.0}   Ctrl-C ends", client.base());
    let mut parts = vec![paint.text(Tone::Faint, &head)];
    parts.extend(client.readiness()?.problems.iter().map(|problem| paint.text(Tone::Warning, &format!("! {problem}"))));
    let drawn = flags.iter().filter_map(|flag| Some(draw(flag, rates.get(&flag.key)?, now.as_second(), paint)));
    parts.extend(drawn);
    if flags.is_empty() {
        parts.push("there are no flags".to_owned());
    }
    Ok(parts.join("\n\n"))
}

/// One flag's table.
fn draw(flag: &FlagStatus, rates: &Rates, at: i64, paint: Paint) -> String {
    let FlagStatus { key, phase, percentage, release, generation, beta_users, .. } = flag;
    let mut text = format!(
        "{}   {}   canary at {}\n",
        paint.text(Tone::Strong, key),
        paint.phase(phase),
        paint.text(Tone::Strong, &format!("{percentage} %")),
    );
    let about = format!("release {release}   generation {generation}   beta users {beta_users}");
    let _ = writeln!(text, "{}", paint.text(Tone::Faint, &about));
    let (stable, canary) = (&flag.arms.stable, &flag.arms.canary);
    let heads = ["stable", "canary"].map(|arm| paint.text(Tone::Strong, &format!("{arm:>ARM$}"))).concat();
    let _ = write!(text, "\n  {:<NAMES$}{heads}", "");
    let mut row = |name: &str, of: &dyn Fn(&ArmStatus) -> String, tone: Option<Tone>| {
        let (stable, canary) = (of(stable), format!("{:>ARM$}", of(canary)));
        let canary = tone.map_or_else(|| canary.clone(), |tone| paint.text(tone, &canary));
        let _ = write!(text, "\n  {name:<NAMES$}{stable:>ARM$}{canary}");
    };
    let worse = (canary.error_rate > stable.error_rate).then_some(Tone::Bad);
    row("backend", &|arm| arm.backend.clone(), None);
    row("requests", &|arm| arm.requests.to_string(), None);
    row("failures", &|arm| arm.failures.to_string(), None);
    row("error rate", &|arm| share(arm.error_rate), worse);
    row("p50", &|arm| millis(arm.p50_ms), None);
    row("p99", &|arm| millis(arm.p99_ms), None);
    if !stable.servers.is_empty() || !canary.servers.is_empty() {
        let usable = |arm: &ArmStatus| {
            let well = arm.servers.iter().filter(|server| server.healthy && !server.ejected).count();
            format!("{well} of {} well", arm.servers.len())
        };
        row("servers", &usable, (!canary.available).then_some(Tone::Bad));
    }
    let [stable_line, canary_line] = rates.lines(at);
    let _ = write!(text, "\n\n  errors of the last {} minutes, up to {}", SPAN / 60, share(rates.top()));
    let _ = write!(text, "\n  {:<NAMES$}{}", "stable", paint.text(Tone::Good, &stable_line));
    let _ = write!(text, "\n  {:<NAMES$}{}", "canary", paint.text(Tone::Warning, &canary_line));
    if !flag.evidence.is_empty() {
        text.push_str("\n\n  evidence on its way to a rollback");
    }
    for evidence in &flag.evidence {
        let _ = write!(text, "\n  {}", evidence_row(evidence, paint));
    }
    if let Some(ramp) = &flag.ramp {
        let _ = write!(text, "\n\n  {:<NAMES$}{}", "ramp", ramp_text(ramp));
        if let Some(bar) = hold_bar(ramp) {
            let _ = write!(text, "\n  {:<NAMES$}{bar}", "this step");
        }
    }
    for line in servers(flag).into_iter().chain(rolled_back(flag)) {
        let _ = write!(text, "\n  {}", paint.text(Tone::Bad, &line));
    }
    for line in waiting(flag) {
        let _ = write!(text, "\n  {}", paint.text(Tone::Warning, &line));
    }
    if let Some(percentage) = flag.resume_percentage {
        let _ = write!(text, "\n  `tidegate resume {key}` goes back to {percentage} %");
    }
    if let Some(line) = drift(flag) {
        let _ = write!(text, "\n  {}", paint.text(Tone::Warning, &line));
    }
    text
}

fn evidence_row(evidence: &Evidence, paint: Paint) -> String {
    let Evidence { check, value, limit, requests, failures, verdict, canary_requests_to_go } = evidence;
    // Evidence multiplies, so that its logarithm goes from 0 to the limit's; a budget is used up failure by failure.
    let way = if check == "harm_budget" { value / limit } else { value.ln() / limit.ln() };
    let tone = match verdict.as_str() {
        "worse" => Tone::Bad,
        "inconclusive" if way >= 0.5 => Tone::Warning,
        _ => Tone::Good,
    };
    let told = if check == "harm_budget" {
        format!("{failures} of the {limit} failures that users may meet")
    } else {
        format!("{} of {limit:.0}, {failures} {} in {requests} requests", brief(*value), bad(check))
    };
    let to_go = match (canary_requests_to_go, verdict.as_str()) {
        (Some(requests), "inconclusive") => format!("; about {requests} more would tell"),
        _ => String::new(),
    };
    format!("{check:<NAMES$}{} {verdict}: {told}{to_go}", paint.text(tone, &bar(way)))
}

/// How far the step's time has run.
fn hold_bar(ramp: &RampStatus) -> Option<String> {
    let step = ramp.step.checked_sub(1).and_then(|index| ramp.steps.get(index)).filter(|_| ramp.active)?;
    Some(format!("{} {:.0} s of {:.0} s", bar(ramp.held_s / step.hold_s), ramp.held_s.min(step.hold_s), step.hold_s))
}

/// A bar that is full at 1.
fn bar(share: f64) -> String {
    // Also for a step without a time of its own, or evidence that has not begun.
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the bar's length")]
    let full = (share * BAR as f64).floor() as usize;
    format!("[{}{}]", "█".repeat(full), "·".repeat(BAR.saturating_sub(full)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_full_at_the_limit() {
        assert_eq!(bar(0.0), format!("[{}]", "·".repeat(20)));
        assert_eq!(bar(f64::NAN), bar(0.0));
        assert_eq!(bar(f64::NEG_INFINITY), bar(0.0));
        assert_eq!(bar(0.999), format!("[{}·]", "█".repeat(19)));
        assert_eq!(bar(7.0), format!("[{}]", "█".repeat(20)));
    }
}
