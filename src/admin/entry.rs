//! Who is let in, and as whom.

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use crate::access::{Certificate, Role, Token};
use crate::admin::door::Peer;
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
    ConnectInfo(client): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = admit(&state, &client, &request);
    if !UNCOUNTED.contains(&request.uri().path())
        && let Err(error) = count(&state, &client, admitted.as_ref().ok().and_then(Option::as_ref))
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
pub(crate) fn count(state: &AdminState, client: &Peer, actor: Option<&Actor>) -> Result<(), AdminError> {
    let proven = actor.filter(|_| state.access.is_guarded());
    let asker = proven.map_or_else(|| Asker::at(client.address.ip()), |actor| Asker::Known(actor.name.clone()));
    state.rates.take(asker, clock::now()).map_err(AdminError::TooManyRequests)
}

fn admit(state: &AdminState, client: &Peer, request: &Request) -> Result<Option<Actor>, AdminError> {
    if !state.access.is_guarded() {
        return Ok(Some(Actor { name: local(request.headers()) }));
    }
    let for_all = FOR_ALL.contains(&request.uri().path());
    let (name, role) = match bearer(request.headers()) {
        Some(shown) => {
            let token = token(state, client, shown, request.uri().path())?;
            (token.name, token.role)
        }
        None => match certified(state, client) {
            Ok(certificate) => (certificate.name, certificate.role),
            Err(_) if for_all => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let needed = if reads { Role::Viewer } else { Role::Operator };
    if role < needed {
        return Err(AdminError::Forbidden { name: name.to_string(), role, needed });
    }
    Ok(Some(Actor { name: name.to_string() }))
}

/// Whom the certificate stands for that `client` shows.
///
/// # Errors
///
/// If there is none, or it is nobody's here.
pub(crate) fn certified(state: &AdminState, client: &Peer) -> Result<Certificate, AdminError> {
    if client.subjects().is_empty() {
        return Err(AdminError::NoToken);
    }
    state.access.certified(client.subjects()).ok_or(AdminError::UnknownCertificate)
}

/// The token that `client` shows at `place`.
///
/// # Errors
///
/// If there is none like it, or too many were tried.
pub(crate) fn token(state: &AdminState, client: &Peer, shown: &str, place: &str) -> Result<Token, AdminError> {
    let (now, address) = (clock::now(), client.address.ip());
    if let Some(wait) = state.attempts.wait(address, now) {
        return Err(AdminError::TooManyAttempts(wait));
    }
    state.access.find(shown).ok_or_else(|| {
        state.attempts.failed(address, now);
        warn!(client = %address, place, "an unknown token was shown to the admin API");
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
