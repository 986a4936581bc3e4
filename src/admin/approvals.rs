//! Changes that wait for a second operator: listed, approved, withdrawn.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::admin::entry::Actor;
use crate::admin::problem::AdminError;
use crate::admin::{Shared, answer, flag_key, parse, reason_checked, status};
use crate::api::{ApprovalList, Change, Changed};
use crate::rollout::Saved;
use crate::store::Once;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalsQuery {
    flag: Option<String>,
}

pub(crate) async fn approvals(
    State(state): Shared,
    query: Result<Query<ApprovalsQuery>, QueryRejection>,
) -> Result<Json<ApprovalList>, AdminError> {
    let Query(ApprovalsQuery { flag }) = query?;
    let flag = flag.as_deref().map(flag_key).transpose()?;
    if let Some(flag) = &flag {
        status(&state, flag)?;
    }
    Ok(Json(ApprovalList { approvals: state.rollouts.approvals(flag.as_ref()) }))
}

pub(crate) async fn approve(
    State(state): Shared,
    Extension(actor): Extension<Actor>,
    once: Option<Extension<Once>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, AdminError> {
    let Path((key, id)) = path?;
    let (key, body) = (flag_key(&key)?, body?);
    let change: Change = if body.is_empty() { Change::default() } else { parse(&headers, &body)? };
    if change.percentage.is_some() || change.beta.is_some() {
        return Err(AdminError::Invalid(
            "an approval takes a `reason` at most: what it is about is said already".to_owned(),
        ));
    }
    reason_checked(change.reason.as_deref())?;
    let once = once.map(|Extension(once)| once);
    let saved = state.rollouts.approve(&key, &id, &actor.name, change.reason, once).await? == Saved::Yes;
    answer(Changed { flag: status(&state, &key)?, saved, approval: None })
}

pub(crate) async fn withdraw(
    State(state): Shared,
    Extension(actor): Extension<Actor>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, AdminError> {
    let Path((key, id)) = path?;
    state.rollouts.withdraw(&flag_key(&key)?, &id, &actor.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
