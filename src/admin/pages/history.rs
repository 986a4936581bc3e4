//! The audit trail as a table.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::evidence::question;
use crate::admin::pages::text::{moment, percent};
use crate::api::{Event, NO_FLAG, RolloutState};

/// Events, newest first; of several flags if `of_all`.
pub(crate) fn table(events: &[Event], of_all: bool, now: Timestamp) -> Markup {
    html! {
        @if events.is_empty() {
            p.faint { "Nothing yet." }
        } @else {
            div.scroll {
                table.history {
                    caption.unseen { "What was changed, newest first" }
                    thead { tr {
                        th scope="col" { "When" } th scope="col" { "Who" }
                        @if of_all { th scope="col" { "Flag" } }
                        th scope="col" { "What" } th scope="col" { "Change" } th scope="col" { "Why" }
                    } }
                    tbody { @for event in events { (row(event, of_all, now)) } }
                }
            }
        }
    }
}

fn row(event: &Event, of_all: bool, now: Timestamp) -> Markup {
    html! {
        tr data-action=(event.action) {
            td { (moment(&event.at, now)) }
            td { b { (event.actor) } }
            @if event.flag == NO_FLAG {
                // It is about the gateway as a whole: there is no page to lead to, and no rollout to show.
                @if of_all { td {} }
                td { (event.action) }
                td {}
            } @else {
                @if of_all { td { a href=(format!("/flags/{}", event.flag)) { (event.flag) } } }
                td { (event.action) }
                td { (change(event.old.as_ref(), &event.new)) }
            }
            td { (why(event)) }
        }
    }
}

fn change(old: Option<&RolloutState>, new: &RolloutState) -> Markup {
    let state = |state: &RolloutState| format!("{} {}", percent(state.percentage), state.phase.replace('_', " "));
    html! {
        @match old {
            Some(old) if state(old) != state(new) => { (state(old)) " → " b { (state(new)) } }
            _ => { (state(new)) }
        }
        @if let Some(beta) = &new.beta { br; span.faint { (beta.summary()) } }
    }
}

fn why(event: &Event) -> Markup {
    html! {
        @match (&event.reason, &event.rollback) {
            (Some(reason), _) => { (reason) }
            (None, Some(rollback)) => {
                (question(&rollback.cause)) ": " (rollback.found())
            }
            (None, None) => {}
        }
    }
}
