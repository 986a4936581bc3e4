//! A decision and all that led to it.

use maud::{Markup, html};

use crate::admin::pages::form::Form;
use crate::admin::pages::layout::sentence;
use crate::admin::problem::AdminError;
use crate::api::{ConditionFinding, Explanation, RuleFinding};

/// The box that asks, and the answer if something was asked.
pub(crate) fn section(key: &str, form: &Form, answer: Option<&Result<Explanation, AdminError>>) -> Markup {
    let typed = |field| form.get(field).unwrap_or_default();
    let opened = ["header", "method", "path", "host"].iter().any(|field| form.get(field).is_some());
    html! {
        section.card.later #explain aria-labelledby="explain-title" {
            h2 #explain-title { "Who would get what?" }
            form method="get" action=(format!("/flags/{key}#explain")) data-explain {
                label for="user" { "User" span.faint { " · the targeting key that decisions stick to" } }
                div.actions {
                    input #user type="text" name="user" autocomplete="off" spellcheck="false" value=(typed("user"));
                    button type="submit" { "Explain" }
                }
                details open[opened] {
                    summary { "More of the request" }
                    div.fields {
                        label for="method" { "Method" }
                        input #method type="text" name="method" autocomplete="off" placeholder="GET" value=(typed("method"));
                        label for="path" { "Path" }
                        input #path type="text" name="path" autocomplete="off" placeholder="/" value=(typed("path"));
                        label for="host" { "Host" }
                        input #host type="text" name="host" autocomplete="off" value=(typed("host"));
                        label for="header" { "Headers, one a line" }
                        textarea #header name="header" rows="3" spellcheck="false" placeholder="x-app-version: 2.3.0" {
                            (typed("header"))
                        }
                    }
                }
            }
            div #explained role="status" {
                @match answer {
                    Some(Ok(explanation)) => { (explained(explanation)) }
                    Some(Err(error)) => { p.alert { (sentence(&error.detail())) } }
                    None => {}
                }
            }
        }
    }
}

fn explained(explanation: &Explanation) -> Markup {
    let Explanation { user, variant, arm, reason, bucket, steps, rules, canary_unavailable, .. } = explanation;
    html! {
        p.decision {
            @match user { Some(user) => { code { (user) } }, None => { "A request without a user" } }
            " is served by " span.arm data-arm=(arm) { b { (variant) } } ", the " (arm) " arm: " code { (reason) }
            @if let Some(bucket) = bucket { span.faint { " · bucket " (bucket) " of 100000" } }
        }
        @if *canary_unavailable {
            p.notice { "No server of the canary can be used now: stable serves whoever is on it." }
        }
        ol.layers {
            @for step in steps {
                li data-decided[step.decided] {
                    span.layer { (step.layer) }
                    span { (step.detail)
                        @if let (Some(file), Some(line)) = (&step.file, step.line) { " " code.faint { (file) ":" (line) } }
                        @if step.decided { b { " ← this decided" } }
                    }
                }
            }
        }
        @if !rules.is_empty() { ul.rules { @for rule in rules { (found(rule)) } } }
    }
}

fn found(rule: &RuleFinding) -> Markup {
    html! {
        li { "Rule " (rule.rule) " (line " (rule.line) ", serves " (rule.serve) ") "
            b { @if rule.matched { "matches" } @else { "does not match" } }
            ul { @for condition in &rule.conditions { (held(condition)) } } }
    }
}

fn held(condition: &ConditionFinding) -> Markup {
    html! {
        li { span.held data-held=(condition.held) { @if condition.held { "holds: " } @else { "does not hold: " } }
            code { (condition.condition) }
            @if let Some(value) = &condition.value { ", with " code { (value) } }
            @if !condition.parts.is_empty() { ul { @for part in &condition.parts { (held(part)) } } } }
    }
}
