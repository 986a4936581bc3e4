//! Changes that wait for a second operator, with the buttons that approve or withdraw them.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::layout::csrf;
use crate::admin::pages::session::Visitor;
use crate::admin::pages::text::{moment, percent};
use crate::api::{Approval, FlagStatus};

/// What waits of a flag.
pub(crate) fn waiting(flag: &FlagStatus, visitor: &Visitor, now: Timestamp) -> Markup {
    html! {
        @for approval in &flag.approvals { (one(approval, visitor, now)) }
    }
}

fn one(approval: &Approval, visitor: &Visitor, now: Timestamp) -> Markup {
    let Approval { id, flag, action, from_percentage, percentage, actor, reason, at, expires, .. } = approval;
    let path = |verb: &str| format!("/flags/{flag}/approvals/{id}/{verb}");
    html! {
        div.notice {
            p {
                b { (actor) } " wants to " b { (action) } ": " (percent(*from_percentage)) " → " b { (percent(*percentage)) }
                " of users on canary" @if let Some(reason) = reason { ", “" (reason) "”" } ". It waits for another operator, asked for "
                (moment(at, now)) ", until " (moment(expires, now)) "."
            }
            @if visitor.operates() {
                div.actions {
                    @if *actor != visitor.actor.name {
                        form method="post" action=(path("approve")) {
                            (csrf(visitor))
                            button.primary type="submit" aria-label=(format!("Approve: {flag} {action}")) { "Approve" }
                        }
                    }
                    form method="post" action=(path("withdraw")) {
                        (csrf(visitor))
                        button type="submit" aria-label=(format!("Withdraw: {flag} {action}")) { "Withdraw" }
                    }
                }
            }
        }
    }
}
