//! The dashboard: rollouts for people with a browser.
//!
//! A page is whole without a script: every figure is in its HTML, and everything that can be done is a form that leads to a
//! page which asks once more. The script fetches the page anew and puts what has changed in its place, and opens
//! confirmations in place.

mod action;
mod card;
mod chart;
mod confirm;
mod evidence;
mod explain;
mod flag;
mod fleet;
mod form;
mod history;
mod layout;
mod past;
mod ramp;
mod session;
mod text;
mod trend;
mod waiting;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use maud::html;
use tokio::sync::watch;

use crate::access::Role;
use crate::admin::door::Peer;
use crate::admin::pages::action::Action;
use crate::admin::pages::card::card;
use crate::admin::pages::confirm::Confirmation;
use crate::admin::pages::flag::Shown;
use crate::admin::pages::form::Form;
use crate::admin::pages::layout::{Assets, FLAGS_TITLE, HISTORY_TITLE, Page, harden, refused, sentence};
use crate::admin::pages::session::{Visitor, safe_path, see_other};
use crate::admin::pages::trend::{Trends, Window};
use crate::admin::problem::AdminError;
use crate::admin::{AdminState, MAX_BODY_BYTES, Shared, events, explained, flag_key, make, status};
use crate::api::{Changed, Explanation, FlagStatus, InstanceList};
use crate::clock;
use crate::flag::{FlagKey, Generation};
use crate::rollout::Request;
use crate::store::Page as Events;
use crate::telemetry::chain;

/// How many events a flag's page shows, and a page of the history.
const EVENTS: u32 = 12;
const HISTORY: u32 = 50;

/// How many users of a beta list a flag's page shows.
const BETA_USERS: usize = 20;

/// What the dashboard keeps while the gateway runs.
#[derive(Debug)]
pub(crate) struct Dashboard {
    assets: Assets,
    trends: Trends,
    /// What forms are proved with where nobody has a token.
    key: [u8; 32],
}

impl Default for Dashboard {
    fn default() -> Self {
        // Both are random but for six bits each.
        let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let mut key = [0; 32];
        for (place, byte) in key.iter_mut().zip(halves.iter().flat_map(|half| half.as_bytes())) {
            *place = *byte;
        }
        Self { assets: Assets::default(), trends: Trends::default(), key }
    }
}

impl AdminState {
    /// Samples what charts show until `shutdown` turns true.
    pub async fn sample_until(self, shutdown: watch::Receiver<bool>) {
        self.pages.trends.sample_until(self.recorder, self.rollouts, shutdown).await;
    }
}

/// The pages.
pub(crate) fn router(state: &AdminState) -> Router<AdminState> {
    let for_visitors = Router::new()
        .route("/", get(overview))
        .route("/flags/{key}", get(flag_page))
        .route("/flags/{key}/{action}", get(confirm).post(perform))
        .route("/flags/{key}/approvals/{id}/{verb}", post(second))
        .route("/history", get(history_page))
        .route("/live", get(events::stream))
        .route("/logout", post(log_out))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), session::enter));
    Router::new()
        .route("/login", get(login).post(log_in))
        .route("/assets/{name}", get(asset))
        .method_not_allowed_fallback(wrong_method)
        .merge(for_visitors)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::map_response(harden))
}

async fn overview(State(state): Shared, Extension(visitor): Extension<Visitor>) -> Response {
    let now = clock::wall();
    let mut flags = state.rollouts.flags();
    let waits =
        |flag: &FlagStatus| flag.ramp.as_ref().is_some_and(|ramp| ramp.waits_for.as_deref() == Some("approval"));
    // What somebody should look at comes first.
    flags.sort_by_key(|flag| match flag.phase.as_str() {
        "rolled_back" => 0,
        _ if waits(flag) => 1,
        "paused" => 2,
        "ramping" | "manual" => 3,
        _ => 4,
    });
    let fleet = fleet(&state);
    let body = html! {
        h1.unseen { (FLAGS_TITLE) }
        div #flags .cards data-part {
            @for flag in &flags { (card(flag, &visitor, &state.pages.trends.of(flag, Window::Recent), now)) }
            @if flags.is_empty() { p { "There are no flags in force." } }
        }
        section.card aria-labelledby="fleet-title" {
            h2 #fleet-title { "Gateways" }
            div #fleet data-part { (fleet::table(&fleet, now)) }
        }
    };
    Page::live(FLAGS_TITLE, body).into_response(&state, Some(&visitor))
}

fn fleet(state: &AdminState) -> InstanceList {
    InstanceList { this: state.rollouts.instance().id, instances: state.rollouts.instances() }
}

async fn flag_page(
    State(state): Shared,
    Extension(visitor): Extension<Visitor>,
    key: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let shown = show(&state, &visitor, key, query.unwrap_or_default().as_bytes()).await;
    shown.unwrap_or_else(|error| refused(&state, Some(&visitor), &error))
}

async fn show(
    state: &AdminState,
    visitor: &Visitor,
    key: Result<Path<String>, PathRejection>,
    query: &[u8],
) -> Result<Response, AdminError> {
    let (key, form) = (flag_key(&key?)?, Form::parse(query)?);
    let flag = status(state, &key)?;
    let window = if form.get("span") == Some("day") { Window::Day } else { Window::Recent };
    let (events, trouble) = match state.rollouts.events(Some(&key), Events::Newest, EVENTS).await {
        Ok(events) => (events, None),
        Err(error) => (Vec::new(), Some(chain(&error))),
    };
    let unknown = || AdminError::UnknownFlag(key.to_string());
    let beta = state.rollouts.beta_page(&key, None, BETA_USERS).ok_or_else(unknown)?;
    let beta = beta.map_err(|error| AdminError::Invalid(error.to_string()))?;
    let explanation = explain_asked(state, &key, &form);
    let shown = Shown {
        flag: &flag,
        why: state.rollouts.why(&key).flatten().as_ref(),
        history: &state.pages.trends.of(&flag, window),
        window,
        events: &events,
        beta: &beta,
        fleet: &fleet(state),
        form: &form,
        explanation: explanation.as_ref(),
        trouble: trouble.as_deref(),
    }
    .page(visitor, clock::wall());
    Ok(shown.into_response(state, Some(visitor)))
}

/// The decision about the request that a form describes, if it describes one.
fn explain_asked(state: &AdminState, key: &FlagKey, form: &Form) -> Option<Result<Explanation, AdminError>> {
    let parts = ["user", "method", "path", "host"];
    let mut asked: Vec<_> =
        parts.iter().filter_map(|part| Some(((*part).to_owned(), form.get(part)?.to_owned()))).collect();
    let headers = form.all("header").flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty());
    asked.extend(headers.map(|line| ("header".to_owned(), line.to_owned())));
    // A form that was sent empty asks about a request without a user.
    if asked.is_empty() && form.all("user").next().is_none() {
        return None;
    }
    Some(explained(state, key, asked))
}

/// A change as its path names it.
#[derive(Debug)]
struct Asked {
    key: FlagKey,
    action: Action,
}

impl Asked {
    fn new(path: Result<Path<(String, String)>, PathRejection>) -> Result<Self, AdminError> {
        let Path((key, action)) = path?;
        Ok(Self { key: flag_key(&key)?, action: Action::from_name(&action).ok_or(AdminError::NotFound)? })
    }
}

async fn confirm(
    State(state): Shared,
    Extension(visitor): Extension<Visitor>,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = Asked::new(path).and_then(|asked| {
        operates(&visitor)?;
        Ok((asked, Form::parse(query.unwrap_or_default().as_bytes())?))
    });
    match asked {
        Ok((asked, form)) => ask(&state, &visitor, &asked, &form, None),
        Err(error) => refused(&state, Some(&visitor), &error),
    }
}

/// The page that asks whether a change is meant, and says why it was not made if it was asked for already.
fn ask(state: &AdminState, visitor: &Visitor, asked: &Asked, form: &Form, error: Option<&AdminError>) -> Response {
    let flag = match status(state, &asked.key) {
        Ok(flag) => flag,
        Err(error) => return refused(state, Some(visitor), &error),
    };
    let (command, why) = (asked.action.command(form), state.rollouts.why(&asked.key).flatten());
    let confirmation = Confirmation {
        flag: &flag,
        why: why.as_ref(),
        action: asked.action,
        command: command.as_ref().ok(),
        form,
        error: error.or(command.as_ref().err()),
    };
    confirmation.page(visitor, clock::wall()).into_response(state, Some(visitor))
}

async fn perform(
    State(state): Shared,
    Extension(visitor): Extension<Visitor>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let asked = Asked::new(path).and_then(|asked| {
        operates(&visitor)?;
        let form = Form::parse(&body?)?;
        session::check(&visitor, &form)?;
        Ok((asked, form))
    });
    let (asked, form) = match asked {
        Ok(asked) => asked,
        Err(error) => return refused(&state, Some(&visitor), &error),
    };
    match change(&state, &visitor, &asked, &form).await {
        Ok(changed) => {
            let became = if changed.approval.is_some() { "asked" } else { "done" };
            see_other(&format!("/flags/{}?{became}={}", asked.key, asked.action.as_str()))
        }
        Err(error) => ask(&state, &visitor, &asked, &form, Some(&error)),
    }
}

async fn change(state: &AdminState, visitor: &Visitor, asked: &Asked, form: &Form) -> Result<Changed, AdminError> {
    let command = asked.action.command(form)?;
    let looked = form.get("generation").and_then(|number| number.parse().ok()).map(Generation::new);
    let looked = looked.ok_or_else(|| AdminError::Invalid("the form does not say what it was made on".to_owned()))?;
    let reason = form.get("reason").map(str::to_owned);
    let actor = visitor.actor.name.clone();
    let change = Request { command, actor, reason, expected: Some(looked), once: None, second: None };
    make(state, &asked.key, change).await
}

/// Approves or withdraws a change that waits for a second operator.
async fn second(
    State(state): Shared,
    Extension(visitor): Extension<Visitor>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let done = async {
        let Path((key, id, verb)) = path?;
        operates(&visitor)?;
        session::check(&visitor, &Form::parse(&body?)?)?;
        let (key, actor) = (flag_key(&key)?, &visitor.actor.name);
        match verb.as_str() {
            "approve" => state.rollouts.approve(&key, &id, actor, None, None).await.map(drop)?,
            "withdraw" => state.rollouts.withdraw(&key, &id, actor).await?,
            _ => return Err(AdminError::NotFound),
        }
        Ok::<_, AdminError>(key)
    };
    match done.await {
        Ok(key) => see_other(&format!("/flags/{key}")),
        Err(error) => refused(&state, Some(&visitor), &error),
    }
}

fn operates(visitor: &Visitor) -> Result<(), AdminError> {
    if visitor.operates() {
        return Ok(());
    }
    let name = visitor.actor.name.clone();
    Err(AdminError::Forbidden { name, role: visitor.role, needed: Role::Operator })
}

async fn history_page(
    State(state): Shared,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
) -> Response {
    let shown = show_history(&state, &visitor, query.unwrap_or_default().as_bytes()).await;
    shown.unwrap_or_else(|error| refused(&state, Some(&visitor), &error))
}

async fn show_history(state: &AdminState, visitor: &Visitor, query: &[u8]) -> Result<Response, AdminError> {
    let form = Form::parse(query)?;
    let flag = form.get("flag").map(flag_key).transpose()?;
    let before = form.get("before").map(str::parse::<i64>).transpose();
    let before = before.map_err(|_| AdminError::Invalid("`before` is the number of an event".to_owned()))?;
    let page = before.map_or(Events::Newest, Events::Before);
    let events = state.rollouts.events(flag.as_ref(), page, HISTORY).await?;
    let older = events.last().filter(|_| events.len() == HISTORY as usize).map(|last| {
        let flag = flag.as_ref().map(|flag| format!("&flag={flag}")).unwrap_or_default();
        format!("/history?before={}{flag}", last.id)
    });
    let title = flag.as_ref().map_or_else(|| HISTORY_TITLE.to_owned(), |flag| format!("History of {flag}"));
    let body = html! {
        section.card.wide aria-labelledby="history-title" {
            h1 #history-title { (title) }
            div #history data-part { (history::table(&events, flag.is_none(), clock::wall())) }
            @if let Some(older) = older { p { a.button href=(older) rel="next" { "Older" } } }
        }
    };
    let page = if before.is_none() { Page::live(title, body) } else { Page::new(title, body) };
    Ok(page.into_response(state, Some(visitor)))
}

async fn login(State(state): Shared, RawQuery(query): RawQuery) -> Response {
    let form = Form::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    if !state.access.is_guarded() {
        return see_other("/");
    }
    login_page(&state, &form, None)
}

fn login_page(state: &AdminState, form: &Form, error: Option<&AdminError>) -> Response {
    let body = html! {
        section.card.narrow aria-labelledby="login-title" {
            h1 #login-title { "Log in" }
            @if let Some(error) = error { p.alert role="alert" { (sentence(&error.detail())) } }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(safe_path(form.get("next")));
                label for="token" { "Token" }
                input #token type="password" name="token" autocomplete="current-password" required autofocus;
                div.actions { button.primary type="submit" { "Log in" } }
            }
            p.faint { "A token is made by " code { "tidegate token new NAME --role viewer" } "; an " b { "operator" }
                " changes rollouts, a " b { "viewer" } " looks. This browser keeps it for twelve hours, where no script reads it." }
        }
    };
    let page = Page::new("Log in", body);
    let Some(error) = error else { return page.into_response(state, None) };
    let mut response = page.with_status(error.status().0).into_response(state, None);
    error.add_headers(&mut response);
    response
}

async fn log_in(
    State(state): Shared,
    ConnectInfo(client): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if !state.access.is_guarded() {
        return see_other("/");
    }
    let form = match body.map_err(AdminError::from).and_then(|body| Form::parse(&body)) {
        Ok(form) => form,
        Err(error) => return login_page(&state, &Form::default(), Some(&error)),
    };
    match session::sign_in(&state, &client, &headers, &form) {
        Ok(cookie) => {
            let mut response = see_other(safe_path(form.get("next")));
            response.headers_mut().append(SET_COOKIE, cookie);
            response
        }
        Err(error) => login_page(&state, &form, Some(&error)),
    }
}

async fn log_out(
    State(state): Shared,
    Extension(visitor): Extension<Visitor>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let checked = body.map_err(AdminError::from).and_then(|body| session::check(&visitor, &Form::parse(&body)?));
    if let Err(error) = checked {
        return refused(&state, Some(&visitor), &error);
    }
    let mut response = see_other("/login");
    response.headers_mut().append(SET_COOKIE, session::ended());
    response
}

async fn asset(State(state): Shared, uri: Uri) -> Response {
    state.pages.assets.response(uri.path()).unwrap_or_else(|| AdminError::NotFound.into_response())
}

async fn wrong_method(State(state): Shared) -> Response {
    refused(&state, None, &AdminError::MethodNotAllowed)
}
