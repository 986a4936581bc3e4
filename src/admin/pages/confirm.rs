//! A change before it is made: what it would do, the numbers that speak for or against it, and why it is made.

use axum::http::StatusCode;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::MAX_REASON_CHARS;
use crate::admin::pages::action::{Action, effect};
use crate::admin::pages::card::{arms, notices, phase};
use crate::admin::pages::evidence;
use crate::admin::pages::form::Form;
use crate::admin::pages::layout::{Page, csrf, sentence};
use crate::admin::pages::session::Visitor;
use crate::admin::pages::text::plain;
use crate::admin::problem::AdminError;
use crate::api::{FlagStatus, Why};
use crate::rollout::Command;

/// What is to be confirmed.
#[derive(Debug)]
pub(crate) struct Confirmation<'c> {
    /// The flag as it is now.
    pub(crate) flag: &'c FlagStatus,
    /// What the judge has to say.
    pub(crate) why: Option<&'c Why>,
    /// What is to be done.
    pub(crate) action: Action,
    /// The same in full, unless the form made no sense.
    pub(crate) command: Option<&'c Command>,
    /// What was typed.
    pub(crate) form: &'c Form,
    /// Why it was not done when it was asked for before.
    pub(crate) error: Option<&'c AdminError>,
}

impl Confirmation<'_> {
    /// The page that asks.
    pub(crate) fn page(&self, visitor: &Visitor, now: Timestamp) -> Page {
        let status = self.error.map_or(StatusCode::OK, |error| error.status().0);
        let title = format!("{} {}", self.action.label(), self.flag.key);
        Page::new(title, self.body(visitor, now)).with_status(status)
    }

    fn body(&self, visitor: &Visitor, now: Timestamp) -> Markup {
        let Self { flag, why, action, command, form, error } = self;
        let back = format!("/flags/{}", flag.key);
        html! {
            section.card.narrow #confirm aria-labelledby="confirm-title" {
                div.card-head {
                    h1 #confirm-title { (action.label()) ": " (flag.key) "?" }
                    (phase(flag))
                }
                @if let Some(error) = error {
                    p.alert role="alert" {
                        @if matches!(error.status().0, StatusCode::PRECONDITION_FAILED) {
                            "Nothing was done: the rollout has changed since this page was shown. Below is how it is now; look \
                             again, then decide. (" (sentence(&error.detail())) ")"
                        } @else {
                            "Nothing was done. " (sentence(&error.detail()))
                        }
                    }
                }
                @if let Some(command) = command { p.effect { (effect(command, flag)) } }
                (notices(flag, now))
                (arms(flag))
                @if let Some(why) = why { p.summary { b { "The judge: " } (why.summary) } }
                (evidence::foremost(flag))
                form method="post" action=(format!("/flags/{}/{}", flag.key, action.as_str())) {
                    (csrf(visitor))
                    input type="hidden" name="generation" value=(flag.generation);
                    @if let Some(command) = command { (fields(command, flag)) }
                    label for="reason" { "Why? " span.faint { "Everybody reads it in the history." } }
                    input #reason type="text" name="reason" maxlength=(MAX_REASON_CHARS) autocomplete="off"
                        value=(form.get("reason").unwrap_or_default());
                    div.actions {
                        @if command.is_some() {
                            button type="submit" .primary .grave[action.is_grave()] { (action.label()) }
                        }
                        a.button data-close href=(back) { "Cancel" }
                    }
                }
                p.faint { "Made on generation " (flag.generation) ": if anything changes meanwhile, nothing is done." }
            }
        }
    }
}

/// What the command holds besides its name.
fn fields(command: &Command, flag: &FlagStatus) -> Markup {
    html! {
        @match command {
            Command::Set(percentage) => {
                input type="hidden" name="percentage" value=(plain(percentage.as_percent()));
            }
            Command::Resume(percentage) => {
                @if let Some(back) = flag.resume_percentage {
                    label for="percentage" { "At which percentage? " span.faint { "At most " (plain(back)) "." } }
                    input #percentage type="number" name="percentage" min="0" max=(plain(back)) step="0.001"
                        inputmode="decimal" value=(plain(percentage.map_or(back, |to| to.as_percent())));
                }
            }
            Command::Beta { add, remove, .. } => {
                @for user in add { input type="hidden" name="add" value=(user); }
                @for user in remove { input type="hidden" name="remove" value=(user); }
            }
            _ => {}
        }
    }
}
