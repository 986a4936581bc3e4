//! Changes of rollouts that people ask for.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::admin::entry::Actor;
use crate::admin::problem::AdminError;
use crate::admin::{AdminState, Shared, flag_key, status};
use crate::api::{BetaEdit, Change, Changed};
use crate::flag::{FlagKey, Generation, MAX_TARGETING_KEY_BYTES, Percentage};
use crate::rollout::{ChangeError, Command, Request, Saved};
use crate::store::Once;

/// The longest reason, in characters: what fits into a table that people read.
pub(crate) const MAX_REASON_CHARS: usize = 1000;

/// What every change comes with, whatever is to be changed: who asks, on which picture, and under which key.
#[derive(Debug)]
pub(crate) struct Asking {
    actor: Actor,
    expected: Option<Generation>,
    once: Option<Once>,
}

impl Asking {
    fn to(self, command: Command, reason: Option<String>) -> Request {
        let Self { actor, expected, once } = self;
        Request { command, actor: actor.name, reason, expected, once, second: None }
    }
}

impl<S: Sync> FromRequestParts<S> for Asking {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        let actor = parts.extensions.get::<Actor>().cloned().ok_or(AdminError::NoToken)?;
        Ok(Self { actor, expected: expected(&parts.headers)?, once: parts.extensions.get::<Once>().cloned() })
    }
}

pub(crate) async fn patch(
    State(state): Shared,
    asking: Asking,
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
    answer(make(&state, &flag_key(&key?)?, asking.to(command, change.reason)).await?)
}

pub(crate) async fn act(
    State(state): Shared,
    asking: Asking,
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
    answer(make(&state, &flag_key(&key)?, asking.to(command, change.reason)).await?)
}

/// Makes a change that a person asks for, by whichever way.
pub(crate) async fn make(state: &AdminState, key: &FlagKey, asked: Request) -> Result<Changed, AdminError> {
    reason_checked(asked.reason.as_deref())?;
    let (saved, approval) = match state.rollouts.change(key.clone(), asked.clone()).await {
        Ok(saved) => (saved == Saved::Yes, None),
        Err(ChangeError::NeedsSecond(needed)) => (true, Some(state.rollouts.ask_second(key, &asked, needed).await?)),
        Err(error) => return Err(error.into()),
    };
    Ok(Changed { flag: status(state, key)?, saved, approval })
}

pub(crate) fn reason_checked(reason: Option<&str>) -> Result<(), AdminError> {
    let Some(reason) = reason else { return Ok(()) };
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(AdminError::Invalid(format!("`reason` is at most {MAX_REASON_CHARS} characters long")));
    }
    if reason.chars().any(char::is_control) {
        return Err(AdminError::Invalid("`reason` is one line of text, without control characters".to_owned()));
    }
    Ok(())
}

pub(crate) fn answer(changed: Changed) -> Result<Response, AdminError> {
    let status = if changed.approval.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, [(ETAG, etag(changed.flag.generation))], Json(changed)).into_response())
}

/// The generation that a change is meant for, if it is meant for one.
pub(crate) fn expected(headers: &HeaderMap) -> Result<Option<Generation>, AdminError> {
    Ok(headers.get(IF_MATCH).map(|tag| generation(tag.to_str().unwrap_or_default())).transpose()?.flatten())
}

/// Refuses what can be no targeting key, and whoever is to be on the list and off it.
pub(crate) fn beta_users(add: &[String], remove: &[String]) -> Result<(), AdminError> {
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

pub(crate) fn checked(percentage: f64) -> Result<Percentage, AdminError> {
    Percentage::from_percent(percentage).map_err(|error| AdminError::Invalid(format!("`percentage`: {error}")))
}

pub(crate) fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, AdminError> {
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

pub(crate) fn etag(generation: u64) -> String {
    format!("\"{generation}\"")
}

/// The generation that an `If-Match` is about; `*` is about any.
pub(crate) fn generation(tag: &str) -> Result<Option<Generation>, AdminError> {
    if tag == "*" {
        return Ok(None);
    }
    let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    let invalid = || AdminError::Invalid("`If-Match` holds the ETag of a flag, like \"7\" in its quotes".to_owned());
    number.map(Generation::new).map(Some).ok_or_else(invalid)
}
