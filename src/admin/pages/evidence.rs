//! The evidence against a canary, on its way to the line at which it is rolled back.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::text::{count, decimal, moment, share};
use crate::api::{Estimate, Evidence, FlagStatus, Why};

/// The check that counts failures instead of weighing evidence.
const HARM_BUDGET: &str = "harm_budget";

/// How far a check has come, from 0 at the start to 1 at the rollback: by the logarithm, since evidence multiplies.
pub(crate) fn progress(evidence: &Evidence) -> f64 {
    let Evidence { check, value, limit, .. } = evidence;
    let share = if check == HARM_BUDGET { value / limit } else { value.ln() / limit.ln() };
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

/// What a check asks, in words.
pub(crate) fn question(check: &str) -> &str {
    match check {
        "error_rate" => "Fails more than stable",
        "max_error_rate" => "Fails more than its own limit",
        "latency_p50" => "Slower than stable, at the median",
        "latency_p90" => "Slower than stable, at the 90th percentile",
        "latency_p99" => "Slower than stable, at the 99th percentile",
        "max_latency" => "Slower than its own limit",
        HARM_BUDGET => "Failures that users met",
        "canary_unavailable" => "No server of the canary could be used",
        "manual" => "By hand",
        other => other,
    }
}

/// What a check counts.
fn counted(check: &str) -> &'static str {
    if check.contains("latency") { "slow" } else { "failed" }
}

/// Every check with a bar, and what it rests on.
pub(crate) fn bars(flag: &FlagStatus) -> Markup {
    html! {
        @if flag.evidence.is_empty() {
            p.faint { "The judge has not looked at this canary yet." }
        } @else {
            ul.checks {
                @for evidence in &flag.evidence { li { (bar(evidence)) } }
            }
        }
    }
}

fn bar(evidence: &Evidence) -> Markup {
    let Evidence { check, value, limit, requests, failures, verdict, canary_requests_to_go } = evidence;
    let share = progress(evidence) * 100.0;
    let told = if check == HARM_BUDGET {
        format!("{} of {} failures", decimal(*value), decimal(*limit))
    } else {
        format!("evidence {} of {}", decimal(*value), decimal(*limit))
    };
    html! {
        div.check-head {
            span { (question(check)) " " code { (check) } }
            span.verdict data-verdict=(verdict) { (verdict) }
        }
        svg.bar role="meter" aria-label=(question(check)) aria-valuemin="0" aria-valuemax="100"
            aria-valuenow=(format!("{share:.0}")) aria-valuetext=(format!("{told}, {verdict}"))
            viewBox="0 0 100 8" preserveAspectRatio="none" {
            rect.track x="0" y="1" width="100" height="6" {}
            rect.fill data-verdict=(verdict) x="0" y="1" width=(format!("{share:.1}")) height="6" {}
            line.limit x1="99.6" x2="99.6" y1="0" y2="8" {}
        }
        div.check-foot.faint {
            span { (told) " that roll back" }
            span { (count(*failures)) " " (counted(check)) " of " (count(*requests)) " requests" }
            @if let (Some(requests), "inconclusive") = (canary_requests_to_go, verdict.as_str()) {
                span { "about " (count(*requests)) " more would tell" }
            }
        }
    }
}

/// The furthest check alone, for a card.
pub(crate) fn foremost(flag: &FlagStatus) -> Markup {
    let furthest = flag.evidence.iter().rev().max_by(|a, b| progress(a).total_cmp(&progress(b)));
    html! { @if let Some(evidence) = furthest { div.foremost { (bar(evidence)) } } }
}

/// The verdict in words, with the numbers behind it.
pub(crate) fn why(why: &Why, now: Timestamp) -> Markup {
    let Why { stable, canary, difference, confidence, samples, shares, first, last, .. } = why;
    let most = [stable, canary].into_iter().filter(|arm| arm.requests > 0).map(|arm| arm.high).fold(0.0, f64::max);
    let slow = why.stream != "error_rate";
    let what = if slow { "slow answers" } else { "failed requests" };
    html! {
        p.summary { (why.summary) }
        div.scroll {
            table.numbers {
                caption { "Rates of " (what) ", with intervals that hold at all times at once with " (share(*confidence)) }
                thead { tr { th scope="col" { "Arm" } th.n scope="col" { "Rate" } th scope="col" { "Interval" }
                    th.n scope="col" { @if slow { "Slow" } @else { "Failed" } } th.n scope="col" { "Requests" } } }
                tbody {
                    @for (name, arm) in [("stable", stable), ("canary", canary)] {
                        tr {
                            th scope="row" { span.arm data-arm=(name) { (name) } }
                            @if arm.requests > 0 {
                                td.n { (share(arm.rate)) }
                                td { (interval(arm, most, name)) }
                            } @else {
                                td.n { "–" } td { "–" }
                            }
                            td.n { (count(arm.failures)) }
                            td.n { (count(arm.requests)) }
                        }
                    }
                }
            }
        }
        @if stable.requests > 0 && canary.requests > 0 {
            p { "The canary's rate is between " b { (points(difference.low)) } " and " b { (points(difference.high)) }
                " percentage points above stable's." }
        }
        details {
            summary { "What it rests on" }
            dl.facts {
                @if !shares.is_empty() {
                    dt { "Shares on canary" }
                    dd { (shares.iter().map(|share| format!("{share} %")).collect::<Vec<_>>().join(", ")) }
                }
                @if let Some(first) = first { dt { "First outcome" } dd { (moment(first, now)) } }
                @if let Some(last) = last { dt { "Last outcome" } dd { (moment(last, now)) } }
                @if !samples.is_empty() {
                    dt { "Latest " (what) ", as logs name them" }
                    dd { @for id in samples { code { (id) } " " } }
                }
            }
        }
    }
}

/// A difference of rates in percentage points, with its sign.
fn points(difference: f64) -> String {
    let text = decimal(difference * 100.0);
    if difference > 0.0 { format!("+{text}") } else { text }
}

fn interval(arm: &Estimate, most: f64, name: &str) -> Markup {
    let place = |rate: f64| if most > 0.0 { (rate / most * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    let (low, high) = (place(arm.low), place(arm.high));
    html! {
        div.interval {
            svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                rect.track x="0" y="4" width="100" height="2" {}
                rect.range data-arm=(name) x=(format!("{low:.1}")) y="2" width=(format!("{:.1}", (high - low).max(1.0)))
                    height="6" {}
                rect.rate x=(format!("{:.1}", (place(arm.rate) - 0.5).clamp(0.0, 99.0))) y="0" width="1" height="10" {}
            }
            span { (share(arm.low)) " to " (share(arm.high)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: f64, limit: f64, expected: f64) {
        let evidence = Evidence {
            check: name.to_owned(),
            value,
            limit,
            requests: 10,
            failures: 1,
            verdict: "inconclusive".to_owned(),
            canary_requests_to_go: None,
        };
        assert!((progress(&evidence) - expected).abs() < 1e-9, "{name} {value} of {limit}: {}", progress(&evidence));
    }

    #[test]
    fn evidence_goes_by_its_logarithm() {
        check("error_rate", 1.0, 1000.0, 0.0);
        check("error_rate", 0.2, 1000.0, 0.0);
        check("error_rate", 0.0, 1000.0, 0.0);
        check("error_rate", 10.0, 1000.0, 1.0 / 3.0);
        check("error_rate", 5000.0, 1000.0, 1.0);
        check("harm_budget", 50.0, 100.0, 0.5);
        check("harm_budget", 0.0, 0.0, 0.0);
    }
}
