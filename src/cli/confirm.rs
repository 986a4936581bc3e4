//! Asking before what is hard to take back, with the numbers that it should rest on. Only a person at a terminal is asked:
//! what scripts do stays as it is.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::bail;

use crate::api::{ArmStatus, FlagStatus};
use crate::cli::AskingArgs;
use crate::cli::client::Client;
use crate::cli::output::{millis, share, table};
use crate::cli::show::{brief, rolled_back};
use crate::flag::{FlagKey, Percentage};

/// So many points up at once are worth a question: users by the tenth, who may all meet what only few have tried.
const MUCH: f64 = 10.0;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verb {
    /// Everyone on canary.
    Promote,
    /// The canary out of traffic.
    RollBack,
    /// The canary at a percentage.
    Set(Percentage),
    /// A pause or a latch lifted, at a percentage of the asker's or at the one before.
    Resume(Option<Percentage>),
}

impl Verb {
    /// What it would do to `flag`, if a person should be asked.
    fn question(self, flag: &FlagStatus) -> Option<String> {
        let now = flag.percentage;
        match self {
            Self::Promote => Some(format!("`promote` puts everyone on the canary: {now} % → 100 %.")),
            Self::RollBack => {
                Some(format!("`rollback` takes the canary out of traffic, until somebody resumes it: {now} % → 0 %."))
            }
            Self::Set(percentage) => (percentage.as_percent() - now > MUCH)
                .then(|| format!("`set` puts many more users on the canary: {now} % → {percentage}.")),
            Self::Resume(percentage) => flag.rollback.as_ref().map(|_| {
                let to = percentage.map(Percentage::as_percent).or(flag.resume_percentage).unwrap_or_default();
                format!("`resume` lifts the rollback, and the evidence begins anew: {now} % → {to} %.")
            }),
        }
    }
}

/// Asks the person at the terminal, if there is one and the verb is worth it. Gives the generation that was looked at, if the
/// change should only be made on that one.
///
/// # Errors
///
/// If the answer is no, or the gateway cannot be asked for the numbers.
pub(crate) fn confirm(client: &Client, key: &FlagKey, verb: Verb, asking: &AskingArgs) -> anyhow::Result<Option<u64>> {
    if asking.yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let flag = client.flag(key)?;
    let Some(question) = verb.question(&flag) else { return Ok(None) };
    let mut terminal = io::stderr().lock();
    write!(terminal, "{}\n{question}\nGo on? [y/N] ", numbers(&flag))?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        bail!("nothing is changed; --yes goes on without asking");
    }
    // Whoever takes a canary out means it, whatever else has changed meanwhile.
    Ok((verb != Verb::RollBack).then_some(flag.generation))
}

/// What is known of the canary.
fn numbers(flag: &FlagStatus) -> String {
    let FlagStatus { key, phase, percentage, release, .. } = flag;
    let head = ["", "", "requests", "failures", "errors", "p99"].map(str::to_owned).to_vec();
    let row = |name: &str, arm: &ArmStatus| {
        let ArmStatus { backend, requests, failures, error_rate, p99_ms, .. } = arm;
        let name = format!("  {name}");
        vec![name, backend.clone(), requests.to_string(), failures.to_string(), share(*error_rate), millis(*p99_ms)]
    };
    let rows = [head, row("stable", &flag.arms.stable), row("canary", &flag.arms.canary)];
    let mut lines = vec![format!("{key} is {phase}, canary at {percentage} % of release {release}"), table(&rows, 2)];
    lines.extend(flag.evidence.iter().map(|evidence| {
        let (check, verdict, limit) = (&evidence.check, &evidence.verdict, evidence.limit);
        format!("  {check}: {verdict}, {} of the {limit:.0} that roll back", brief(evidence.value))
    }));
    lines.extend(rolled_back(flag).map(|line| format!("  {line}")));
    lines.join("\n")
}
