//! Flags as they are: seen, explained, exported.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};

use crate::admin::problem::AdminError;
use crate::admin::{AdminState, Shared, etag, flag_key, status};
use crate::api::{BetaPage, Explanation, FlagList, InstanceList, SecondList, Why};
use crate::flag::FlagKey;
use crate::rollout::{AskedRequest, ChangeError};

/// How many users of a beta list are given without being asked for a number, and at most.
const DEFAULT_USERS: usize = 100;
const MAX_USERS: usize = 10_000;

pub(crate) async fn flags(State(state): Shared) -> Json<FlagList> {
    Json(FlagList { flag_set_version: state.rollouts.set_version().to_string(), flags: state.rollouts.flags() })
}

pub(crate) async fn flag(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
) -> Result<Response, AdminError> {
    let status = status(&state, &flag_key(&key?)?)?;
    Ok(([(ETAG, etag(status.generation))], Json(status)).into_response())
}

pub(crate) async fn explain(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Explanation>, AdminError> {
    let key = flag_key(&key?)?;
    let Query(query) = query?;
    explained(&state, &key, query).map(Json)
}

/// The decision about the request that `parts` describe, its user found as the gateway finds them.
pub(crate) fn explained(
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
pub(crate) struct BetaQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn beta(
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
pub(crate) async fn why(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
) -> Result<Json<Option<Why>>, AdminError> {
    let key = flag_key(&key?)?;
    state.rollouts.why(&key).map(Json).ok_or_else(|| AdminError::UnknownFlag(key.to_string()))
}

/// Flags as flagd has them: those that `flag`, any number of times, names, or all.
pub(crate) async fn export(
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
pub(crate) struct SecondsQuery {
    release: Option<String>,
    since: Option<i64>,
}

pub(crate) async fn seconds(
    State(state): Shared,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<SecondsQuery>, QueryRejection>,
) -> Result<Json<SecondList>, AdminError> {
    // A flag whose file is gone still has its record.
    let (key, Query(query)) = (flag_key(&key?)?, query?);
    let seconds = state.rollouts.seconds(&key, query.release.as_deref(), query.since).await?;
    Ok(Json(SecondList { seconds }))
}

pub(crate) async fn instances(State(state): Shared) -> Json<InstanceList> {
    Json(InstanceList { this: state.rollouts.instance().id, instances: state.rollouts.instances() })
}
