//! A flag at a glance, and the parts that its card and its page share.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::pages::chart::{Chart, Mark, Series};
use crate::admin::pages::evidence;
use crate::admin::pages::session::Visitor;
use crate::admin::pages::text::{count, decimal, millis, moment, percent, plain, share};
use crate::admin::pages::trend::{History, Point, Window};
use crate::admin::pages::waiting::waiting;
use crate::api::{ArmStatus, FlagStatus, Rollback};

/// A card of the overview.
pub(crate) fn card(flag: &FlagStatus, visitor: &Visitor, history: &History, now: Timestamp) -> Markup {
    html! {
        article.card aria-labelledby=(format!("flag-{}", flag.key)) {
            div.card-head {
                h2 id=(format!("flag-{}", flag.key)) { a href=(format!("/flags/{}", flag.key)) { (flag.key) } }
                (phase(flag))
            }
            @if !flag.description.is_empty() { p.faint { (flag.description) } }
            (notices(flag, now))
            (waiting(flag, visitor, now))
            (split(flag))
            div.columns {
                div { (arms(flag)) (evidence::foremost(flag)) }
                div { (errors(history, Window::Recent, &[])) }
            }
            @if let Some(ramp) = &flag.ramp { p { b { "Ramp: " } (ramp.detail) } }
            p.faint { "release " (flag.release) " · generation " (flag.generation)
                @if !flag.owner.is_empty() { " · owner " (flag.owner) } }
        }
    }
}

/// The phase in words.
pub(crate) fn phase(flag: &FlagStatus) -> Markup {
    let words = match flag.phase.as_str() {
        "rolled_back" => "rolled back",
        other => other,
    };
    html! { span.phase data-phase=(flag.phase) { (words) } }
}

/// What somebody should know before anything else.
pub(crate) fn notices(flag: &FlagStatus, now: Timestamp) -> Markup {
    let waits = flag.ramp.as_ref().is_some_and(|ramp| ramp.waits_for.as_deref() == Some("approval"));
    html! {
        @match &flag.rollback {
            Some(unread) if unread.is_unread() => {
                p.notice.bad { "The store cannot be read, so nobody knows whether this is rolled back: everyone is on stable until "
                    "it can. It goes on by itself then." }
            }
            Some(rollback) => { (rolled_back(flag, rollback, now)) }
            None => {}
        }
        @if !flag.enabled { p.notice { "Switched off in the flag file: everyone is on stable." } }
        @if !flag.arms.canary.available {
            p.notice.bad { "No server of " code { (flag.arms.canary.backend) } " can be used: stable serves its users." }
        }
        @if waits { p.notice { "The ramp waits for somebody to approve the next step." } }
        @if flag.phase == "paused" {
            p.notice { "Paused at " (percent(flag.percentage)) ". The canary is still judged." }
        }
    }
}

fn rolled_back(flag: &FlagStatus, rollback: &Rollback, now: Timestamp) -> Markup {
    html! {
        div.notice.bad {
            p {
                b { "Rolled back" } " by " b { (rollback.by) } " at " (moment(&rollback.at, now)) ": "
                (evidence::question(&rollback.cause)) ". "
                (rollback.found()) "."
                @if let Some(reason) = &rollback.reason { " “" (reason) "”" }
            }
            p { "Everyone is on stable until somebody resumes it"
                @if let Some(percentage) = flag.resume_percentage { ", at " (percent(percentage)) " or below" }
                ", or the flag file names a new release." }
        }
    }
}

/// Who gets what, as a bar.
pub(crate) fn split(flag: &FlagStatus) -> Markup {
    let canary = flag.percentage.clamp(0.0, 100.0);
    html! {
        div.split {
            p.share { b { (percent(flag.percentage)) } " of users on canary"
                @if flag.beta_users > 0 && flag.phase != "rolled_back" && flag.enabled {
                    span.faint { ", and " (count(flag.beta_users as u64)) " beta users" }
                } }
            svg viewBox="0 0 100 6" preserveAspectRatio="none" role="img"
                aria-label=(format!("{} on canary, {} on stable", percent(canary), percent(100.0 - canary))) {
                rect.stable x="0" y="0" width="100" height="6" {}
                rect.canary x="0" y="0" width=(plain(canary)) height="6" {}
            }
            @if let Some(meant) = flag.drift() {
                p.faint { "Drift: the flag file says " (percent(flag.file_percentage)) ", the rollout " (percent(meant)) "." }
            }
        }
    }
}

/// Both arms side by side.
pub(crate) fn arms(flag: &FlagStatus) -> Markup {
    html! {
        div.scroll {
            table.numbers {
                caption.unseen { "Both arms in generation " (flag.generation) }
                thead { tr {
                    th scope="col" { "Arm" } th.n scope="col" { "Requests" } th.n scope="col" { "Failed" }
                    th.n scope="col" { "Errors" } th.n scope="col" { "p50" } th.n scope="col" { "p99" }
                } }
                tbody {
                    (arm("stable", &flag.arms.stable))
                    (arm("canary", &flag.arms.canary))
                }
            }
        }
        @for arm in [&flag.arms.stable, &flag.arms.canary] {
            @for server in arm.servers.iter().filter(|server| !server.healthy || server.ejected) {
                p.notice { "Server " code { (server.name) } " of " (arm.backend) " "
                    @if server.healthy { "is set aside for failing requests." } @else { "fails its health check." } }
            }
        }
    }
}

fn arm(name: &str, arm: &ArmStatus) -> Markup {
    html! {
        tr {
            th scope="row" { span.arm data-arm=(name) { (name) } " " span.faint { (arm.backend) } }
            td.n { (count(arm.requests)) }
            td.n { (count(arm.failures)) }
            td.n { @if arm.requests == 0 { "–" } @else { (share(arm.error_rate)) } }
            td.n { (arm.p50_ms.map_or_else(|| "–".to_owned(), millis)) }
            td.n { (arm.p99_ms.map_or_else(|| "–".to_owned(), millis)) }
        }
    }
}

/// One value of each arm's samples.
fn pair(history: &History, value: fn(&Point) -> Option<f64>, none: Option<f64>) -> [Series; 2] {
    let of = |points: &[(f64, Option<Point>)]| {
        points.iter().map(|(place, point)| (*place, point.as_ref().map_or(none, value))).collect()
    };
    [
        Series { name: "stable", class: "line stable", points: of(&history.stable) },
        Series { name: "canary", class: "line canary", points: of(&history.canary) },
    ]
}

fn since(window: Window) -> &'static str {
    match window {
        Window::Recent => "10 min",
        Window::Day => "24 h",
    }
}

/// Both arms' error rates over time.
pub(crate) fn errors(history: &History, window: Window, marks: &[Mark]) -> Markup {
    let series = pair(history, |point| Some(point.error_rate), None).into();
    let since = since(window);
    Chart { title: "Error rate", series, write: share, least: 0.01, most: 1.0, level: None, since, marks }.render()
}

/// All charts of a flag's page.
pub(crate) fn charts(history: &History, window: Window, marks: &[Mark]) -> Markup {
    let since = since(window);
    let per_second = |rate: f64| format!("{}/s", decimal(rate));
    let traffic = Chart {
        title: "Requests",
        series: pair(history, |point| Some(point.rate), Some(0.0)).into(),
        write: per_second,
        least: 1.0,
        most: f64::INFINITY,
        level: None,
        since,
        marks,
    };
    let latency = |title, value| Chart {
        title,
        series: pair(history, value, None).into(),
        write: millis,
        least: 1.0,
        most: f64::INFINITY,
        level: None,
        since,
        marks,
    };
    let of_all = |title, name, class, points: &[(f64, Option<f64>)], level| Chart {
        title,
        series: vec![Series { name, class, points: points.to_vec() }],
        write: share,
        least: 1.0,
        most: 1.0,
        level,
        since,
        marks,
    };
    let line = Some((1.0, "the canary is rolled back here"));
    let evidence = of_all("Way to a rollback", "nearest check", "line evidence", &history.evidence, line);
    let users = of_all("Users on canary", "share", "line canary", &history.share, None);
    html! {
        div.charts {
            (traffic.render())
            (errors(history, window, marks))
            (users.render())
            (latency("Latency p50", |point| point.p50_ms).render())
            (latency("Latency p99", |point| point.p99_ms).render())
            (evidence.render())
        }
    }
}
