//! A flag's page: everything about it, and everything that can be done to it.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::action::Action;
use crate::admin::pages::card::{arms, charts, notices, phase, split};
use crate::admin::pages::chart::Mark;
use crate::admin::pages::evidence;
use crate::admin::pages::explain;
use crate::admin::pages::fleet;
use crate::admin::pages::form::Form;
use crate::admin::pages::history;
use crate::admin::pages::layout::Page;
use crate::admin::pages::ramp::ramp;
use crate::admin::pages::session::Visitor;
use crate::admin::pages::text::{count, moment, plain};
use crate::admin::pages::trend::{History, Window};
use crate::admin::pages::waiting::waiting;
use crate::admin::problem::AdminError;
use crate::api::{BetaPage, BetaUser, Event, Explanation, FlagStatus, InstanceList, Why};

/// All that is shown of a flag.
#[derive(Debug)]
pub(crate) struct Shown<'s> {
    /// The flag.
    pub(crate) flag: &'s FlagStatus,
    /// What the judge rests on.
    pub(crate) why: Option<&'s Why>,
    /// What the arms did.
    pub(crate) history: &'s History,
    /// Since when.
    pub(crate) window: Window,
    /// The newest events.
    pub(crate) events: &'s [Event],
    /// The first of its beta users.
    pub(crate) beta: &'s BetaPage,
    /// The gateways.
    pub(crate) fleet: &'s InstanceList,
    /// What was asked of it.
    pub(crate) form: &'s Form,
    /// What came of it.
    pub(crate) explanation: Option<&'s Result<Explanation, AdminError>>,
    /// What the store has to say, if it could not give the events.
    pub(crate) trouble: Option<&'s str>,
}

impl Shown<'_> {
    /// The page.
    pub(crate) fn page(&self, visitor: &Visitor, now: Timestamp) -> Page {
        let flag = self.flag;
        let body = html! {
            (self.head(visitor, now))
            div.page-grid {
                div.column {
                    (self.who_gets_what(visitor))
                    @if let Some(status) = &flag.ramp {
                        section.card aria-labelledby="ramp-title" {
                            h2 #ramp-title { "Ramp" }
                            div #ramp data-part { (ramp(status, now)) }
                        }
                    }
                    (self.beta(visitor, now))
                }
                div.column {
                    section.card aria-labelledby="evidence-title" {
                        h2 #evidence-title { "Evidence against the canary" }
                        div #evidence data-part {
                            (evidence::bars(flag))
                            @if let Some(why) = self.why { (evidence::why(why, now)) }
                        }
                    }
                }
                (self.over_time(now))
                (explain::section(&flag.key, self.form, self.explanation))
                section.card.later aria-labelledby="fleet-title" {
                    h2 #fleet-title { "Gateways" }
                    div #fleet data-part { (fleet::table(self.fleet, now)) }
                }
                section.card.wide.later aria-labelledby="history-title" {
                    h2 #history-title { "History" }
                    div #history data-part {
                        @if let Some(trouble) = self.trouble { p.alert { "The history cannot be read: " (trouble) } }
                        (history::table(self.events, false, now))
                    }
                    p { a href=(format!("/history?flag={}", flag.key)) { "All of it" } }
                }
            }
        };
        Page::live(flag.key.clone(), body)
    }

    fn head(&self, visitor: &Visitor, now: Timestamp) -> Markup {
        let flag = self.flag;
        let named = |became| self.form.get(became).and_then(Action::from_name);
        let (done, asked) = (named("done"), named("asked"));
        html! {
            @if let Some(done) = done {
                p.notice.good role="status" tabindex="-1" { b { (done.label()) } ": done. The rollout is as it is shown here." }
            }
            @if let Some(asked) = asked {
                p.notice role="status" tabindex="-1" { b { (asked.label()) } ": not done yet. It takes another operator, who sees it here." }
            }
            div #head data-part data-generation=(flag.generation) {
                div.card-head { h1 { (flag.key) } (phase(flag)) }
                @if !flag.description.is_empty() { p { (flag.description) } }
                p.faint { "release " b { (flag.release) } " · generation " (flag.generation)
                    @if !flag.owner.is_empty() { " · owner " (flag.owner) } }
                (notices(flag, now))
                (waiting(flag, visitor, now))
            }
        }
    }

    fn who_gets_what(&self, visitor: &Visitor) -> Markup {
        let flag = self.flag;
        html! {
            section.card aria-labelledby="split-title" {
                h2 #split-title { "Who gets what" }
                div #split data-part { (split(flag)) (arms(flag)) }
                @if visitor.operates() {
                    @if flag.phase != "rolled_back" { (slider(flag)) }
                    div #actions .actions data-part {
                        @for action in Action::offered(flag) {
                            a.button .grave[action.is_grave()] data-confirm
                                href=(format!("/flags/{}/{}", flag.key, action.as_str())) { (action.label()) }
                        }
                    }
                } @else {
                    p.faint { "You are a " (visitor.role) ": changing this takes a token of role operator." }
                }
            }
        }
    }

    fn over_time(&self, now: Timestamp) -> Markup {
        let marks = self.marks(now);
        let here = format!("/flags/{}", self.flag.key);
        let current = |window| (self.window == window).then_some("page");
        html! {
            section.card.wide aria-labelledby="charts-title" {
                div.card-head {
                    h2 #charts-title { "Over time" }
                    nav.choices aria-label="Span" {
                        a href=(format!("{here}#charts-title")) aria-current=[current(Window::Recent)] { "10 min" }
                        a href=(format!("{here}?span=day#charts-title")) aria-current=[current(Window::Day)] { "24 h" }
                    }
                }
                div #charts data-part {
                    (charts(self.history, self.window, &marks))
                    @if !marks.is_empty() {
                        p.faint { "Upright lines: " @for (index, mark) in marks.iter().enumerate() {
                            @if index > 0 { ", " } (mark.what) } "." }
                    }
                }
                p.faint { "Of all gateways. What was before the start of this one is from the store, which keeps no latencies." }
            }
        }
    }

    /// The events of the span that is shown.
    fn marks(&self, now: Timestamp) -> Vec<Mark> {
        let mark = |event: &Event| {
            let age = now.duration_since(event.at.parse().ok()?).as_secs_f64();
            let place = 1.0 - age / self.history.span_s;
            let what = format!("{} by {}", event.action, event.actor);
            (place > 0.0).then(|| Mark { place: place.min(1.0), what, is_rollback: event.action == "rollback" })
        };
        let mut marks: Vec<_> = self.events.iter().take(8).filter_map(mark).collect();
        marks.reverse();
        marks
    }

    fn beta(&self, visitor: &Visitor, now: Timestamp) -> Markup {
        let (flag, beta) = (self.flag, self.beta);
        let action = format!("/flags/{}/beta", flag.key);
        html! {
            section.card.later aria-labelledby="beta-title" {
                h2 #beta-title { "Beta users" }
                p.faint { "On canary whatever the percentage, while the flag is on and not rolled back." }
                div #beta data-part {
                    p { b { (count(beta.beta_users as u64)) } " on the list"
                        @if flag.beta_added + flag.beta_removed > 0 {
                            span.faint { ", " (flag.beta_added) " added and " (flag.beta_removed) " removed at runtime" } } }
                    ul.users {
                        @for user in &beta.users { (beta_user(user, visitor, &action, now)) }
                    }
                    @if beta.next.is_some() {
                        p.faint { "and more: " code { "tidegate beta list " (flag.key) } " shows all" }
                    }
                }
                @if visitor.operates() {
                    form method="get" action=(action) data-confirm {
                        label for="add" { "Add users" span.faint { " · with commas between" } }
                        div.actions {
                            input #add type="text" name="add_typed" autocomplete="off" spellcheck="false" required;
                            button type="submit" { "Add" }
                        }
                    }
                    form method="get" action=(action) data-confirm {
                        label for="remove" { "Remove users" }
                        div.actions {
                            input #remove type="text" name="remove_typed" autocomplete="off" spellcheck="false" required;
                            button type="submit" { "Remove" }
                        }
                    }
                }
            }
        }
    }
}

fn slider(flag: &FlagStatus) -> Markup {
    html! {
        form.percentage method="get" action=(format!("/flags/{}/set", flag.key)) data-confirm {
            label for="percentage" { "Move the canary to" }
            div.actions {
                input #slider type="range" min="0" max="100" step="1" value=(plain(flag.percentage.round()))
                    aria-label="Percentage of users on canary" aria-controls="percentage" hidden;
                span.number {
                    input #percentage type="number" name="percentage" min="0" max="100" step="0.001" inputmode="decimal"
                        required value=(plain(flag.percentage));
                    " %"
                }
                button.primary type="submit" { "Set" }
            }
        }
    }
}

fn beta_user(user: &BetaUser, visitor: &Visitor, action: &str, now: Timestamp) -> Markup {
    let removed = user.source == "removed";
    let place = match user.source.as_str() {
        "added" => "added",
        "removed" => "removed",
        _ => "from the files",
    };
    html! {
        li data-source=(user.source) {
            span { code { (user.user) } " " span.faint { (place)
                @if let Some(by) = &user.by { " by " (by) }
                @if let Some(at) = &user.at { ", " (moment(at, now)) } } }
            @if visitor.operates() {
                form method="get" action=(action) data-confirm {
                    input type="hidden" name=(if removed { "add" } else { "remove" }) value=(user.user);
                    @let verb = if removed { "Add again" } else { "Remove" };
                    button.small type="submit" aria-label=(format!("{verb} {}", user.user)) { (verb) }
                }
            }
        }
    }
}
