//! Who looks at a page: a token kept in a cookie, and proof that a form is one of ours.
//!
//! The cookie is `NONCE.TOKEN`, so nothing has to be remembered: any gateway with the same tokens takes it, and a revoked token
//! ends it. Scripts cannot read it (`HttpOnly`) and no other site's page has it sent (`SameSite=Strict`). Where no token is
//! needed it is a nonce alone. A form carries the HMAC of the nonce, keyed with the token, or with a key of this process.

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use maud::html;
use sha2::Sha256;
use tracing::warn;

use crate::access::{Certificate, Role};
use crate::admin::AdminState;
use crate::admin::door::Peer;
use crate::admin::entry::{self, Actor};
use crate::admin::pages::form::Form;
use crate::admin::pages::layout::{Page, refused};
use crate::admin::problem::AdminError;
use crate::flag::cookie_in;

/// The cookie's name.
pub(crate) const COOKIE_NAME: &str = "tidegate_session";

/// How long a browser keeps a login, in seconds: a working day.
const MAX_AGE_S: u32 = 12 * 60 * 60;

/// Tells the origin of a request, as browsers do.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The name of a form's field with its proof.
pub(crate) const CSRF_FIELD: &str = "csrf";

/// Whoever looks at a page.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// As the audit trail has them.
    pub(crate) actor: Actor,
    /// What they may do.
    pub(crate) role: Role,
    /// What their forms carry.
    pub(crate) csrf: String,
    /// Whether they have logged in, and so can log out.
    pub(crate) has_token: bool,
}

impl Visitor {
    /// Whether they may change anything.
    pub(crate) fn operates(&self) -> bool {
        self.role >= Role::Operator
    }
}

/// Lets those in who have logged in, or everybody where nobody has to.
pub(crate) async fn enter(
    State(state): State<AdminState>,
    ConnectInfo(client): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = session(request.headers());
    let (visitor, fresh) = match recognised(&state, &client, shown) {
        Ok(visitor) => (visitor, None),
        Err(AdminError::NoToken) if !state.access.is_guarded() => {
            let actor = Actor { name: entry::local(request.headers()) };
            without_token(&state, &client, shown, actor, Role::Operator, request.headers())
        }
        Err(AdminError::NoToken | AdminError::UnknownToken) => match entry::certified(&state, &client) {
            Ok(Certificate { name, role, .. }) => {
                let actor = Actor { name: name.to_string() };
                without_token(&state, &client, shown, actor, role, request.headers())
            }
            Err(_) => return to_login(&request, &state),
        },
        Err(error) => return refused(&state, None, &error),
    };
    if let Err(error) = entry::count(&state, &client, Some(&visitor.actor)) {
        return refused(&state, Some(&visitor), &error);
    }
    if *request.method() == Method::POST && !is_same_site(request.headers()) {
        return refused(&state, Some(&visitor), &AdminError::OtherSite);
    }
    request.extensions_mut().insert(visitor);
    let mut response = next.run(request).await;
    if let Some(cookie) = fresh {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Somebody who needs no token, or has a certificate instead; with the cookie of a new session, if it is one.
fn without_token(
    state: &AdminState,
    client: &Peer,
    shown: Option<&str>,
    actor: Actor,
    role: Role,
    headers: &HeaderMap,
) -> (Visitor, Option<HeaderValue>) {
    let nonce = shown.filter(|nonce| is_nonce(nonce)).map_or_else(nonce, str::to_owned);
    let fresh = (shown != Some(&nonce)).then(|| cookie(&nonce, client, headers));
    let csrf = proof(&state.pages.key, &nonce);
    (Visitor { actor, role, csrf, has_token: false }, fresh)
}

/// Who a session's cookie says it is.
fn recognised(state: &AdminState, client: &Peer, shown: Option<&str>) -> Result<Visitor, AdminError> {
    if !state.access.is_guarded() {
        return Err(AdminError::NoToken);
    }
    let (nonce, token) = shown.and_then(|shown| shown.split_once('.')).ok_or(AdminError::NoToken)?;
    let found = entry::token(state, client, token, "a page")?;
    let csrf = proof(token.as_bytes(), nonce);
    Ok(Visitor { actor: Actor { name: found.name.to_string() }, role: found.role, csrf, has_token: true })
}

/// The way to the login page, and back to what was asked for.
fn to_login(request: &Request, state: &AdminState) -> Response {
    let had_session = session(request.headers()).is_some();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // Whoever follows a link from another site comes without the cookie: a page of our own sends it with the next request.
    let linked = request.headers().get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
    if reads && linked && !had_session {
        let body = html! { meta http-equiv="refresh" content="0"; p { a href=(path) { "Go on" } } };
        return Page::new("One moment", body).into_response(state, None);
    }
    let location = if reads && path != "/" { format!("/login?next={}", encoded(path)) } else { "/login".to_owned() };
    let mut response = see_other(&location);
    if had_session {
        // The token is known no more. A browser that kept on showing it would be slowed down for that.
        response.headers_mut().append(SET_COOKIE, ended());
    }
    response
}

/// Refuses a form that is none of ours.
pub(crate) fn check(visitor: &Visitor, form: &Form) -> Result<(), AdminError> {
    let shown = form.get(CSRF_FIELD).unwrap_or_default();
    let same = subtle::ConstantTimeEq::ct_eq(shown.as_bytes(), visitor.csrf.as_bytes());
    if bool::from(same) { Ok(()) } else { Err(AdminError::ForeignForm) }
}

/// Takes a token that somebody typed, and gives the cookie that keeps it.
pub(crate) fn sign_in(
    state: &AdminState,
    client: &Peer,
    headers: &HeaderMap,
    form: &Form,
) -> Result<HeaderValue, AdminError> {
    if !is_same_site(headers) {
        return Err(AdminError::OtherSite);
    }
    let token = form.get("token").ok_or(AdminError::NoToken)?;
    let found = entry::token(state, client, token, "the login page")?;
    tracing::info!(name = %found.name, role = %found.role, client = %client.address.ip(), "logged in to the dashboard");
    Ok(cookie(&format!("{}.{token}", nonce()), client, headers))
}

/// The cookie that ends a session.
pub(crate) fn ended() -> HeaderValue {
    HeaderValue::from_static("tidegate_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// An answer that leads to another page of ours.
pub(crate) fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response(),
    }
}

/// A path of ours that may be gone to after the login; `/` for whatever else is named.
pub(crate) fn safe_path(path: Option<&str>) -> &str {
    let own = |path: &&str| {
        let begins = path.starts_with('/') && !path.starts_with("//");
        begins && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    path.filter(own).unwrap_or("/")
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let mut cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.find_map(|cookies| cookie_in(cookies, COOKIE_NAME)).filter(|value| !value.is_empty())
}

fn cookie(value: &str, client: &Peer, headers: &HeaderMap) -> HeaderValue {
    // The browser says how it came here, also where something else ends its TLS.
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let secure = if client.is_secure() || origin.starts_with("https://") { "; Secure" } else { "" };
    let text = format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={MAX_AGE_S}{secure}");
    let mut cookie = HeaderValue::from_str(&text).unwrap_or_else(|error| {
        warn!(%error, "a token that no cookie can hold");
        ended()
    });
    cookie.set_sensitive(true);
    cookie
}

/// Whether a form was sent from one of our own pages, as far as the browser tells.
fn is_same_site(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin")
}

fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn is_nonce(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn proof(key: &[u8], nonce: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(b"tidegate form ");
    mac.update(nonce.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_ours_are_gone_to() {
        for path in ["/", "/flags/a?span=day", "/history?before=1&flag=x"] {
            assert_eq!(safe_path(Some(path)), path);
        }
        for path in ["", "flags", "//evil.test", "/\\evil.test", "https://evil.test", "/a\r\nset-cookie: x", "/ü"] {
            assert_eq!(safe_path(Some(path)), "/", "{path}");
        }
        assert_eq!(encoded("/flags/a?b=c d"), "/flags/a%3Fb%3Dc%20d");
    }

    #[test]
    fn a_proof_is_bound_to_token_and_session() {
        let (token, nonce) = (b"tidegate_1".as_slice(), "0".repeat(32));
        assert_eq!(proof(token, &nonce), proof(token, &nonce));
        assert_ne!(proof(token, &nonce), proof(b"tidegate_2", &nonce));
        assert_ne!(proof(token, &nonce), proof(token, &"1".repeat(32)));
        assert_eq!(proof(token, &nonce).len(), 64);
    }

    #[test]
    fn a_cookie_is_for_tls_alone_where_there_is_tls() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://gate.test"));
        let client = Peer::plain(([127, 0, 0, 1], 1).into());
        let secure = cookie("x", &client, &headers);
        assert!(secure.to_str().unwrap().ends_with("; HttpOnly; SameSite=Strict; Max-Age=43200; Secure"));
        assert!(!cookie("x", &client, &HeaderMap::new()).to_str().unwrap().contains("Secure"));
    }
}
