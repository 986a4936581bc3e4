//! The admin API: how people and their tools see and change the rollouts.

mod approvals;
mod attempts;
mod diffs;
mod door;
mod entry;
mod events;
mod metrics;
mod once;
mod openapi;
mod origin;
mod pages;
mod problem;
mod query;
mod rates;
mod reload;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::access::Access;
use crate::admin::attempts::Attempts;
use crate::admin::entry::Actor;
use crate::admin::once::UnderWay;
use crate::admin::pages::Dashboard;
use crate::admin::problem::AdminError;
use crate::api::{
    BetaEdit, BetaPage, Change, Changed, Explanation, FlagList, FlagStatus, Health, InstanceList, Readiness,
    SecondList, Why,
};
use crate::availability::Availability;
use crate::downstream::Tls;
use crate::flag::{FlagKey, Generation, MAX_TARGETING_KEY_BYTES, Percentage};
use crate::notify::Deliveries;
use crate::proxy::Policy;
use crate::recorder::Recorder;
use crate::remade::AllChanging;
use crate::rollout::{AskedRequest, ChangeError, Command, Request, Rollouts, Saved};
use crate::shadow::Shadows;
use crate::store::Once;
use crate::telemetry::Lost;

pub use crate::admin::door::{Door, Peer};
pub use crate::admin::once::KEY_HEADER;
pub use crate::admin::problem::UNDER_WAY;
pub use crate::admin::rates::Rates;
pub use crate::admin::reload::{Asked, ReloadError, ReloadResult, Reloads};

/// What a change holds at most. The longest thing in one is a reason.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest reason, in characters: what fits into a table that people read.
const MAX_REASON_CHARS: usize = 1000;

/// How many users of a beta list are given without being asked for a number, and at most.
const DEFAULT_USERS: usize = 100;
const MAX_USERS: usize = 10_000;

/// Names the person who asks, for the audit trail. Nothing proves it: it is heard only where no token is needed.
pub const ACTOR_HEADER: &str = "x-tidegate-actor";

/// What the admin API works on.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// The rollouts.
    pub rollouts: Arc<Rollouts>,
    /// Where outcomes are counted.
    pub recorder: Arc<Recorder>,
    /// What copies to canaries found.
    pub shadows: Arc<Shadows>,
    /// Who may use the admin API.
    pub access: Arc<Access>,
    /// What requests are handled by.
    pub policy: Arc<Policy>,
    /// Where readings of the configuration are asked for.
    pub reloads: Arc<Reloads>,
    /// How the backends' servers are.
    pub availability: Arc<Availability>,
    /// What is made of files that change: keys.
    pub changing: Arc<AllChanging>,
    /// The TLS that clients speak, if they do.
    pub tls: Option<Arc<Tls>>,
    /// The TLS that the admin API itself speaks, if it does.
    pub own_tls: Option<Arc<Tls>>,
    /// What counts that of requests which could not be told.
    pub lost: Lost,
    /// What became of notifications.
    pub deliveries: Arc<Deliveries>,
    /// Turns true when the gateway stops taking requests.
    pub stopping: watch::Receiver<bool>,
    /// How many requests each asker may make.
    pub rates: Arc<Rates>,
    /// Changes that were asked for with a key, while they are made.
    under_way: Arc<UnderWay>,
    /// Failed attempts to use it.
    attempts: Arc<Attempts>,
    /// What the dashboard keeps.
    pages: Arc<Dashboard>,
}

impl AdminState {
    /// What the admin API works on, before anybody has asked.
    #[must_use]
    pub fn new(
        rollouts: Arc<Rollouts>,
        recorder: Arc<Recorder>,
        access: Arc<Access>,
        policy: Arc<Policy>,
        availability: Arc<Availability>,
        changing: Arc<AllChanging>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            rollouts,
            recorder,
            shadows: Arc::default(),
            access,
            policy,
            reloads: Arc::default(),
            availability,
            changing,
            tls: None,
            own_tls: None,
            lost: Lost::default(),
            deliveries: Arc::default(),
            stopping,
            rates: Arc::default(),
            under_way: Arc::default(),
            attempts: Arc::default(),
            pages: Arc::default(),
        }
    }

    /// What an operator should look at.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.rollouts.problems();
        problems.extend(self.changing.load().iter().filter_map(|changing| changing.problem()));
        problems.extend(self.reloads.problem());
        problems.extend(self.access.problem());
        problems
    }
}

type Shared = State<AdminState>;

/// The admin API, and the dashboard.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi))
        .route("/api/v1/flags", get(flags))
        .route("/api/v1/flags/{key}", get(flag).patch(patch))
        .route("/api/v1/flags/{key}/explain", get(explain))
        .route("/api/v1/flags/{key}/seconds", get(seconds))
        .route("/api/v1/flags/{key}/beta", get(beta))
        .route("/api/v1/flags/{key}/why", get(why))
        .route("/api/v1/flags/{key}/diffs", get(diffs::diffs))
        .route("/api/v1/flags/{key}/{action}", post(act))
        .route("/api/v1/flags/{key}/approvals/{id}", post(approvals::approve).delete(approvals::withdraw))
        .route("/api/v1/approvals", get(approvals::approvals))
        .route("/api/v1/instances", get(instances))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/events/stream", get(events::stream))
        .route("/api/v1/events/verify", get(events::verify))
        .route("/api/v1/config/reload", post(reload::reload))
        .route("/api/v1/export/flagd", get(export))
        .route_layer(middleware::from_fn(query::refuse_unknown))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), once::once))
        .layer(middleware::from_fn_with_state(state.clone(), entry::guard))
        .merge(pages::router(&state))
        .layer(middleware::from_fn_with_state(state.clone(), origin::refuse_other_sites))
        .with_state(state)
}

async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

async fn openapi() -> Json<serde_json::Value> {
    Json(openapi::document())
}

async fn ready(State(state): Shared, actor: Option<Extension<Actor>>) -> (StatusCode, Json<Readiness>) {
    let ready = !*state.stopping.borrow();
    let mut problems = state.problems();
    if actor.is_none() && !problems.is_empty() {
        problems = vec![format!("{} problems; ask with a token to read them", problems.len())];
    }
    if !ready {
        problems.insert(0, "the gateway is stopping".to_owned());
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, problems, flag_set_version: state.rollouts.set_version().to_string() }))
}

async fn flags(State(state): Shared) -> Json<FlagList> {
    Json(FlagList { flag_set_version: state.rollouts.set_version().to_string(), flags: state.rollouts.flags() })
}

async fn flag(State(state): Shared, key: Result<Path<String>, PathRejection>) -> Result<Response, AdminError> {
    let status = status(&state, &flag_key(&key?)?)?;
    Ok(([(ETAG, etag(status.generation))], Json(status)).into_response())
}

async fn explain(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Explanation>, AdminError> {
    let key = flag_key(&key?)?;
    let Query(query) = query?;
    explained(&state, &key, query).map(Json)
}

/// The decision about the request that `parts` describe, its user found as the gateway finds them.
fn explained(
    state: &AdminState,
    key: &FlagKey,
    parts: impl IntoIterator<Item = (String, String)>,
) -> Result<Explanation, AdminError> {
    let mut asked = AskedRequest::from_parts(parts).map_err(|error| AdminError::Invalid(error.to_string()))?;
    if asked.user.is_none() {
        asked.user = state.policy.identity().targeting_key(&asked.headers, &asked.path, asked.client);
    }
    state.rollouts.explain(key, &asked).ok_or_else(|| AdminError::UnknownFlag(key.to_string()))
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BetaQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn beta(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<BetaQuery>, QueryRejection>,
) -> Result<Json<BetaPage>, AdminError> {
    let (key, Query(BetaQuery { cursor, limit })) = (flag_key(&key?)?, query?);
    let limit = limit.unwrap_or(DEFAULT_USERS);
    if !(1..=MAX_USERS).contains(&limit) {
        return Err(AdminError::Invalid(format!("`limit` is from 1 to {MAX_USERS}")));
    }
    match state.rollouts.beta_page(&key, cursor.as_deref(), limit) {
        Some(Ok(page)) => Ok(Json(page)),
        Some(Err(error)) => Err(AdminError::Invalid(error.to_string())),
        None => Err(AdminError::UnknownFlag(key.to_string())),
    }
}

/// What the verdict on a canary rests on; `null` before the judge has looked at it.
async fn why(State(state): Shared, key: Result<Path<String>, PathRejection>) -> Result<Json<Option<Why>>, AdminError> {
    let key = flag_key(&key?)?;
    state.rollouts.why(&key).map(Json).ok_or_else(|| AdminError::UnknownFlag(key.to_string()))
}

/// Flags as flagd has them: those that `flag`, any number of times, names, or all.
async fn export(
    State(state): Shared,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, AdminError> {
    let Query(query) = query?;
    let mut keys = Vec::new();
    for (name, value) in query {
        if name != "flag" {
            return Err(AdminError::Invalid(format!("there is no `{name}` to ask for; `flag` names a flag to export")));
        }
        keys.push(flag_key(&value)?);
    }
    // Beta lists may be long, and what else this thread does may not wait for them.
    let exported = tokio::task::spawn_blocking(move || {
        state.rollouts.export(&keys).map(|exported| Json(exported).into_response())
    });
    match exported.await {
        Ok(exported) => exported.map_err(|key| AdminError::UnknownFlag(key.to_string())),
        Err(_) => Err(ChangeError::Interrupted.into()),
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SecondsQuery {
    release: Option<String>,
    since: Option<i64>,
}

async fn seconds(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<SecondsQuery>, QueryRejection>,
) -> Result<Json<SecondList>, AdminError> {
    // A flag whose file is gone still has its record.
    let (key, Query(query)) = (flag_key(&key?)?, query?);
    let seconds = state.rollouts.seconds(&key, query.release.as_deref(), query.since).await?;
    Ok(Json(SecondList { seconds }))
}

async fn instances(State(state): Shared) -> Json<InstanceList> {
    Json(InstanceList { this: state.rollouts.instance().id, instances: state.rollouts.instances() })
}

async fn patch(
    State(state): Shared,
    Extension(actor): Extension<Actor>,
    once: Option<Extension<Once>>,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, AdminError> {
    let change: Change = parse(&headers, &body?)?;
    let percentage = change.percentage.map(checked).transpose()?;
    let command = match (percentage, change.beta) {
        (Some(percentage), None) => Command::Set(percentage),
        (percentage, Some(BetaEdit { add, remove })) => {
            beta_users(&add, &remove)?;
            Command::Beta { percentage, add, remove }
        }
        (None, None) => {
            return Err(AdminError::Invalid(
                "`percentage` and `beta` are missing; nothing else can be changed here".to_owned(),
            ));
        }
    };
    let asked = Request {
        command,
        actor: actor.name,
        reason: change.reason,
        expected: expected(&headers)?,
        once: once.map(|once| once.0),
        second: None,
    };
    answer(make(&state, &flag_key(&key?)?, asked).await?)
}

async fn act(
    State(state): Shared,
    Extension(actor): Extension<Actor>,
    once: Option<Extension<Once>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, AdminError> {
    let Path((key, action)) = path?;
    let body = body?;
    let change: Change = if body.is_empty() { Change::default() } else { parse(&headers, &body)? };
    let percentage = change.percentage.map(checked).transpose()?;
    if change.beta.is_some() {
        return Err(AdminError::Invalid(format!("`beta` means nothing to {action}; PATCH the flag")));
    }
    let command = match (action.as_str(), percentage) {
        ("resume", percentage) => Command::Resume(percentage),
        ("pause" | "promote" | "rollback" | "skip" | "approve", Some(_)) => {
            return Err(AdminError::Invalid(format!("`percentage` means nothing to {action}")));
        }
        ("pause", None) => Command::Pause,
        ("promote", None) => Command::Promote,
        ("rollback", None) => Command::RollBack,
        ("skip", None) => Command::Skip,
        ("approve", None) => Command::Approve,
        _ => return Err(AdminError::NotFound),
    };
    let asked = Request {
        command,
        actor: actor.name,
        reason: change.reason,
        expected: expected(&headers)?,
        once: once.map(|once| once.0),
        second: None,
    };
    answer(make(&state, &flag_key(&key)?, asked).await?)
}

/// Makes a change that a person asks for, by whichever way.
async fn make(state: &AdminState, key: &FlagKey, asked: Request) -> Result<Changed, AdminError> {
    reason_checked(asked.reason.as_deref())?;
    let (saved, approval) = match state.rollouts.change(key.clone(), asked.clone()).await {
        Ok(saved) => (saved == Saved::Yes, None),
        Err(ChangeError::NeedsSecond(needed)) => (true, Some(state.rollouts.ask_second(key, &asked, needed).await?)),
        Err(error) => return Err(error.into()),
    };
    Ok(Changed { flag: status(state, key)?, saved, approval })
}

fn reason_checked(reason: Option<&str>) -> Result<(), AdminError> {
    let Some(reason) = reason else { return Ok(()) };
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(AdminError::Invalid(format!("`reason` is at most {MAX_REASON_CHARS} characters long")));
    }
    if reason.chars().any(char::is_control) {
        return Err(AdminError::Invalid("`reason` is one line of text, without control characters".to_owned()));
    }
    Ok(())
}

fn answer(changed: Changed) -> Result<Response, AdminError> {
    let status = if changed.approval.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, [(ETAG, etag(changed.flag.generation))], Json(changed)).into_response())
}

/// The generation that a change is meant for, if it is meant for one.
fn expected(headers: &HeaderMap) -> Result<Option<Generation>, AdminError> {
    Ok(headers.get(IF_MATCH).map(|tag| generation(tag.to_str().unwrap_or_default())).transpose()?.flatten())
}

fn status(state: &AdminState, key: &FlagKey) -> Result<FlagStatus, AdminError> {
    state.rollouts.flag(key).ok_or_else(|| AdminError::UnknownFlag(key.to_string()))
}

/// A text that is no key names no flag: there is none by that name.
fn flag_key(text: &str) -> Result<FlagKey, AdminError> {
    text.parse().map_err(|_| AdminError::UnknownFlag(text.to_owned()))
}

/// Refuses what can be no targeting key, and whoever is to be on the list and off it.
fn beta_users(add: &[String], remove: &[String]) -> Result<(), AdminError> {
    let refused = |message: String| Err(AdminError::Invalid(message));
    if add.is_empty() && remove.is_empty() {
        return refused("`beta` names nobody to add or to remove".to_owned());
    }
    for user in add.iter().chain(remove) {
        if user.is_empty() || user.len() > MAX_TARGETING_KEY_BYTES {
            return refused(format!("`beta`: a user is 1 to {MAX_TARGETING_KEY_BYTES} bytes long"));
        }
        if user.chars().any(char::is_control) {
            return refused(format!("`beta`: {user:?} has control characters, which no user has"));
        }
    }
    match remove.iter().find(|user| add.contains(user)) {
        Some(user) => refused(format!("`beta` adds and removes {user:?}")),
        None => Ok(()),
    }
}

fn checked(percentage: f64) -> Result<Percentage, AdminError> {
    Percentage::from_percent(percentage).map_err(|error| AdminError::Invalid(format!("`percentage`: {error}")))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, AdminError> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = media_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let charset = parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset")));
    let is_utf8 = charset.is_none_or(|(_, name)| name.trim_matches('"').eq_ignore_ascii_case("utf-8"));
    let is_plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    if !(is_json && is_utf8 && is_plain) {
        return Err(AdminError::MediaType);
    }
    if body.trim_ascii_start().first() != Some(&b'{') {
        // serde would take a list for a structure's fields in their order.
        return Err(AdminError::Invalid("the body cannot be used: it is no JSON object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| AdminError::Invalid(format!("the body cannot be used: {error}")))
}

fn etag(generation: u64) -> String {
    format!("\"{generation}\"")
}

/// The generation that an `If-Match` is about; `*` is about any.
fn generation(tag: &str) -> Result<Option<Generation>, AdminError> {
    if tag == "*" {
        return Ok(None);
    }
    let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    let invalid = || AdminError::Invalid("`If-Match` holds the ETag of a flag, like \"7\" in its quotes".to_owned());
    number.map(Generation::new).map(Some).ok_or_else(invalid)
}
