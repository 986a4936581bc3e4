//! `Idempotency-Key`: a change that is asked for twice under one key is made once, and answered twice
//! (draft-ietf-httpapi-idempotency-key-header-07).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tracing::warn;

use crate::admin::entry::Actor;
use crate::admin::problem::AdminError;
use crate::admin::{AdminState, MAX_BODY_BYTES, etag, flag_key, status};
use crate::api::{Changed, Problem};
use crate::rollout::ChangeError;
use crate::store::{Answer, Claim, Once, StoreError};
use crate::telemetry::chain;

/// What the key is given in.
pub const KEY_HEADER: &str = "idempotency-key";

/// What tells that an answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key: any UUID and hash fits.
const MAX_KEY_BYTES: usize = 255;

/// An answer to a change is short; a longer one is not kept.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// For how long what may not wait for the store waits to hear whether it was done before.
const MOMENT: Duration = Duration::from_millis(250);

/// The changes under way that have a key.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<BTreeSet<Once>>);

/// One of them, until it is dropped.
struct Running {
    under_way: Arc<UnderWay>,
    once: Once,
}

impl Running {
    fn begin(under_way: &Arc<UnderWay>, once: &Once) -> Option<Self> {
        let begun = under_way.0.lock().insert(once.clone());
        begun.then(|| Self { under_way: Arc::clone(under_way), once: once.clone() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.under_way.0.lock().remove(&self.once);
    }
}

/// Makes a change with a key once.
pub(crate) async fn once(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let changes = matches!(*request.method(), Method::POST | Method::PATCH);
    match key(request.headers()) {
        Ok(Some(key)) if changes => {
            // In a task of its own: if the asker goes away in the middle, the answer is kept all the same.
            let made = tokio::spawn(async move { make_once(&state, key, request, next).await }).await;
            made.unwrap_or(Err(ChangeError::Interrupted.into())).unwrap_or_else(IntoResponse::into_response)
        }
        Err(error) if changes => error.into_response(),
        _ => next.run(request).await,
    }
}

/// The key of a request: text as it is, or as a string of a structured field (RFC 9651), which is the same key.
fn key(headers: &HeaderMap) -> Result<Option<String>, AdminError> {
    let mut given = headers.get_all(KEY_HEADER).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let text = first.to_str().ok().filter(|_| given.next().is_none()).unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if (1..=MAX_KEY_BYTES).contains(&bare.len()) && bare.bytes().all(plain) {
        return Ok(Some(bare.to_owned()));
    }
    Err(AdminError::Invalid(format!(
        "`Idempotency-Key` is 1 to {MAX_KEY_BYTES} visible ASCII characters, one for each change, such as a UUID"
    )))
}

async fn make_once(state: &AdminState, key: String, request: Request, next: Next) -> Result<Response, AdminError> {
    let asker = request.extensions().get::<Actor>().map(|actor| actor.name.clone()).unwrap_or_default();
    let once = Once { asker, key };
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|_| AdminError::Body(format!("it is longer than {MAX_BODY_BYTES} bytes")))?;
    let asked = hash(&parts.method, &parts.uri.to_string(), &parts.headers, &body);
    let Some(_running) = Running::begin(&state.under_way, &once) else { return Err(AdminError::UnderWay) };
    match claim(state, &once, &asked, parts.uri.path()).await? {
        Claim::New => {}
        Claim::Answered(answer) => return Ok(replayed(answer)),
        Claim::Done => return as_it_is(state, parts.uri.path()),
        Claim::UnderWay => return Err(AdminError::UnderWay),
        Claim::Another => return Err(AdminError::OtherRequest),
    }
    parts.extensions.insert(once.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    Ok(kept(state, &once, response).await)
}

/// Claims the request. What protects users is done whatever the store says, and twice is once.
async fn claim(state: &AdminState, once: &Once, asked: &str, path: &str) -> Result<Claim, AdminError> {
    let claim = state.rollouts.claim(once, asked);
    if path.ends_with("/rollback") || path.ends_with("/config/reload") {
        return Ok(timeout(MOMENT, claim).await.unwrap_or(Err(StoreError::Timeout)).unwrap_or(Claim::New));
    }
    claim.await.map_err(|error| ChangeError::Store(error).into())
}

/// Keeps an answer that says what became of the change. After any other, the same may be asked again.
async fn kept(state: &AdminState, once: &Once, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let decided =
        parts.status.is_success() || matches!(parts.status, StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED);
    let answer = (decided && body.len() <= MAX_ANSWER_BYTES).then(|| Answer {
        status: parts.status.as_u16(),
        etag: parts.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    if let Err(error) = state.rollouts.keep_answer(once, answer.as_ref()).await {
        // A change that is made was marked as made with it.
        warn!(problem = chain(&error), "an answer could not be kept for whoever asks again");
    }
    Response::from_parts(parts, Body::from(body))
}

fn replayed(Answer { status, etag, body }: Answer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let media_type = if status.is_success() { "application/json" } else { Problem::MEDIA_TYPE };
    let mut response = (status, [(CONTENT_TYPE, media_type)], body).into_response();
    if let Some(etag) = HeaderValue::from_str(&etag).ok().filter(|etag| !etag.is_empty()) {
        response.headers_mut().insert(ETAG, etag);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The flag as it is now, for a change that was made and whose answer is lost.
fn as_it_is(state: &AdminState, path: &str) -> Result<Response, AdminError> {
    let key = path.strip_prefix("/api/v1/flags/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let flag = status(state, &flag_key(key)?)?;
    let etag = etag(flag.generation);
    Ok((
        [(ETAG.as_str(), etag.as_str()), (REPLAYED.as_str(), "true")],
        Json(Changed { flag, saved: true, approval: None }),
    )
        .into_response())
}

fn hash(method: &Method, uri: &str, headers: &HeaderMap, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    let condition = headers.get(IF_MATCH).map(HeaderValue::as_bytes).unwrap_or_default();
    for part in [method.as_str().as_bytes(), uri.as_bytes(), condition] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(body);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(KEY_HEADER, value.parse().unwrap());
        }
        match key(&headers) {
            Ok(found) => assert_eq!(found.as_deref(), expected, "{given:?}"),
            Err(error) => assert!(expected == Some("!"), "{given:?}: {error}"),
        }
    }

    #[test]
    fn a_key_is_text_or_a_string_of_a_structured_field() {
        check(&[], None);
        check(&["8e03978e-40d5"], Some("8e03978e-40d5"));
        check(&["\"8e03978e-40d5\""], Some("8e03978e-40d5"));
        for wrong in ["", "\"\"", "a b", "\"a", "a\"b", "a\\b"] {
            check(&[wrong], Some("!"));
        }
        check(&["a", "b"], Some("!"));
        check(&[&"k".repeat(255)], Some(&"k".repeat(255)));
        check(&[&"k".repeat(256)], Some("!"));
    }
}
