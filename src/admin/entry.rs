//! Who is let in, and as whom.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use crate::access::{Role, Token};
use crate::admin::problem::AdminError;
use crate::admin::rates::Asker;
use crate::admin::{ACTOR_HEADER, AdminState};
use crate::clock;

/// What is answered without a token: what load balancers ask, which tells nothing about flags.
const FOR_ALL: [&str; 2] = ["/health", "/ready"];

/// What is answered however often it is asked: whoever watches the gateway needs it most when much is asked.
const UNCOUNTED: [&str; 3] = ["/health", "/ready", "/metrics"];

/// Who asks. A request that nobody answers for has none, and is let in only to what is for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// As the audit trail has it.
    pub(crate) name: String,
}

/// Lets those in who may do what they ask, and notes who they are.
pub(crate) async fn guard(
    State(state): State<AdminState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = admit(&state, client, &request);
    if !UNCOUNTED.contains(&request.uri().path())
        && let Err(error) = count(&state, client, admitted.as_ref().ok().and_then(Option::as_ref))
    {
        return error.into_response();
    }
    match admitted {
        Ok(Some(actor)) => drop(request.extensions_mut().insert(actor)),
        Ok(None) => {}
        Err(refused) => return refused.into_response(),
    }
    next.run(request).await
}

/// Counts a request of `actor`, if that is proven, or else of the address that it comes from.
///
/// # Errors
///
/// If it is one too many.
pub(crate) fn count(state: &AdminState, client: SocketAddr, actor: Option<&Actor>) -> Result<(), AdminError> {
    let proven = actor.filter(|_| state.access.is_guarded());
    let asker = proven.map_or_else(|| Asker::at(client.ip()), |actor| Asker::Known(actor.name.clone()));
    state.rates.take(asker, clock::now()).map_err(AdminError::TooManyRequests)
}

fn admit(state: &AdminState, client: SocketAddr, request: &Request) -> Result<Option<Actor>, AdminError> {
    if !state.access.is_guarded() {
        return Ok(Some(Actor { name: local(request.headers()) }));
    }
    let for_all = FOR_ALL.contains(&request.uri().path());
    let Some(shown) = bearer(request.headers()) else {
        return if for_all { Ok(None) } else { Err(AdminError::NoToken) };
    };
    let token = token(state, client, shown, request.uri().path())?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let needed = if reads { Role::Viewer } else { Role::Operator };
    if token.role < needed {
        return Err(AdminError::Forbidden { name: token.name.to_string(), role: token.role, needed });
    }
    Ok(Some(Actor { name: token.name.to_string() }))
}

/// The token that `client` shows at `place`.
///
/// # Errors
///
/// If there is none like it, or too many were tried.
pub(crate) fn token(state: &AdminState, client: SocketAddr, shown: &str, place: &str) -> Result<Token, AdminError> {
    let now = clock::now();
    if let Some(wait) = state.attempts.wait(client.ip(), now) {
        return Err(AdminError::TooManyAttempts(wait));
    }
    state.access.find(shown).ok_or_else(|| {
        state.attempts.failed(client.ip(), now);
        warn!(client = %client.ip(), place, "an unknown token was shown to the admin API");
        AdminError::UnknownToken
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whoever asks where nobody has to prove anything: `local`, with the name that they go by on their machine, if they told.
pub(crate) fn local(headers: &HeaderMap) -> String {
    // Bounded, and without what could be taken for something else in a log line.
    let fits = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        (1..=64).contains(&name.len()) && name.bytes().all(plain)
    };
    let name = headers.get(ACTOR_HEADER).and_then(|value| value.to_str().ok()).filter(fits);
    name.map_or_else(|| "local".to_owned(), |name| format!("local:{name}"))
}
