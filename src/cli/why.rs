//! `tidegate why`.

use std::fmt::Write as _;

use crate::api::{Estimate, Evidence, FlagStatus, Why};
use crate::cli::WhyArgs;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, share, table};
use crate::cli::show::{bad, brief, waits_for};

pub(crate) fn why(args: &WhyArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    let flag = client.flag(&args.flag)?;
    let why = client.why(&args.flag)?;
    if client.json {
        return print_json(&why);
    }
    let Some(why) = why else {
        return print(&format!("{} is {}: the judge has not looked at its canary yet", flag.key, flag.phase));
    };
    print(&text(&flag, &why))
}

fn text(flag: &FlagStatus, why: &Why) -> String {
    let mut text = format!("{} is {}: the verdict on its canary is {}\n", flag.key, flag.phase, why.verdict);
    if let Some(rollback) = &flag.rollback {
        let _ = writeln!(text, "rolled back at {} by {}: {}", rollback.at, rollback.by, rollback.cause);
        if let Some(reason) = &rollback.reason {
            let _ = writeln!(text, "{reason}");
        }
    }
    let _ = write!(text, "{}\n\n", why.summary);
    let counted = if why.stream == "error_rate" { "failures" } else { "slow" };
    let head = ["", "arm", "requests", counted, "rate", "at least", "at most"].map(str::to_owned).to_vec();
    text.push_str(&table(&[head, row("stable", &why.stable), row("canary", &why.canary)], 2));
    let points = |difference: f64| format!("{:+.2}", difference * 100.0);
    if why.stable.requests > 0 && why.canary.requests > 0 {
        let (low, high) = (points(why.difference.low), points(why.difference.high));
        let _ = write!(text, "\n  the canary's rate is {low} to {high} points above stable's");
    }
    let _ = write!(text, "\n  intervals hold at every moment, with {:.0} %", why.confidence * 100.0);
    let evidence = brief(why.evidence);
    let _ = write!(text, "\n  evidence against the canary: {evidence} of the {:.0} that roll back", why.limit);
    for evidence in &why.checks {
        let Evidence { check, verdict, value, limit, failures, requests, .. } = evidence;
        let _ = match check.as_str() {
            "harm_budget" => {
                write!(text, "\n    {check}: {verdict}, {failures} of the {limit} failures that users may meet")
            }
            _ => write!(
                text,
                "\n    {check}: {verdict}, {} of {limit:.0}, on {failures} {} in {requests} requests{}",
                brief(*value),
                bad(check),
                waits_for(evidence)
            ),
        };
    }
    if let (Some(first), Some(last)) = (&why.first, &why.last) {
        let shares: Vec<_> = why.shares.iter().map(|share| format!("{share} %")).collect();
        let _ = write!(text, "\n  outcomes from {first} to {last}, with the canary at {}", shares.join(", "));
    }
    if !why.samples.is_empty() {
        let what = if why.stream == "error_rate" { "failed" } else { "slow" };
        let _ = write!(text, "\n  {what} requests to look up: {}", why.samples.join(" "));
    }
    text
}

fn row(name: &str, estimate: &Estimate) -> Vec<String> {
    vec![
        String::new(),
        name.to_owned(),
        estimate.requests.to_string(),
        estimate.failures.to_string(),
        share(estimate.rate),
        share(estimate.low),
        share(estimate.high),
    ]
}
