//! A ramp's steps, and where the rollout stands on them.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::text::{ago, count, decimal, percent, span};
use crate::api::{RampStatus, RampStepStatus};

/// The steps and what the ramp waits for.
pub(crate) fn ramp(ramp: &RampStatus, now: Timestamp) -> Markup {
    let next = ramp.next_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
    html! {
        p { (ramp.detail)
            @if let Some(next) = next { " · next step " b { (ago(now.duration_since(next))) } } }
        ol.ramp {
            @for (index, step) in ramp.steps.iter().enumerate() {
                @let place = place(index + 1, ramp);
                li data-place=(place) aria-current=[(place == "here").then_some("step")] {
                    b { (percent(step.percentage)) }
                    span.faint { (conditions(step)) }
                    span.unseen { ", " (words(place)) }
                }
            }
        }
        @if ramp.active && ramp.step > 0 { (behind(ramp)) }
    }
}

fn place(number: usize, ramp: &RampStatus) -> &'static str {
    match number.cmp(&ramp.step) {
        std::cmp::Ordering::Less => "done",
        std::cmp::Ordering::Equal => "here",
        std::cmp::Ordering::Greater => "ahead",
    }
}

fn words(place: &str) -> &str {
    match place {
        "done" => "behind",
        "here" => "the rollout is here",
        _ => "still to come",
    }
}

fn conditions(step: &RampStepStatus) -> String {
    let held = (step.hold_s > 0.0).then(|| span(step.hold_s));
    let approved = step.approve.then(|| "approval".to_owned());
    held.into_iter().chain(approved).collect::<Vec<_>>().join(", then ")
}

/// What the step has behind it.
fn behind(ramp: &RampStatus) -> Markup {
    let hold = ramp.steps.get(ramp.step.saturating_sub(1)).map_or(0.0, |step| step.hold_s);
    html! {
        dl.facts {
            dt { "Held" } dd { (span(ramp.held_s)) @if hold > 0.0 { " of " (span(hold)) } }
            dt { "Canary requests" } dd { (count(ramp.requests)) " of " (count(ramp.min_requests)) }
            @if let (Some(value), Some(needed)) = (ramp.evidence, ramp.evidence_needed) {
                dt { "Evidence that it is not worse" } dd { (decimal(value)) " of " (decimal(needed)) }
            }
        }
    }
}
