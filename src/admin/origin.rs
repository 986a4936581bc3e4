//! Keeps web pages from using a browser to reach an admin API that listens on its user's own machine.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admin::AdminState;
use crate::admin::problem::AdminError;

/// Refuses what a browser sends on behalf of another site.
///
/// A page elsewhere names itself in `Origin`; one that has its own name resolve to loopback (DNS rebinding) is told by
/// the name in `Host`, which says nothing where a token is needed: such a page has none. Command-line clients send no
/// origin, and an address or `localhost` as host.
pub(crate) async fn refuse_other_sites(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    if is_own(request.headers(), state.access.is_guarded()) {
        next.run(request).await
    } else {
        AdminError::OtherSite.into_response()
    }
}

fn is_own(headers: &HeaderMap, any_name: bool) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(HOST);
    let local = host.is_none_or(|host| {
        let name = host.parse::<Authority>().map(|authority| authority.host().to_owned()).unwrap_or_default();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        name.eq_ignore_ascii_case("localhost") || address.is_ok()
    });
    let same = text(ORIGIN).is_none_or(|origin| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some() && authority == host
    });
    (local || any_name) && same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, origin: Option<&str>, own: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        assert_eq!(is_own(&headers, false), own, "{host} {origin:?}");
    }

    #[test]
    fn other_sites_are_told_by_origin_or_host() {
        check("127.0.0.1:8081", None, true);
        check("localhost:8081", None, true);
        check("[::1]:8081", None, true);
        check("localhost:8081", Some("http://localhost:8081"), true);
        check("localhost:8081", Some("http://localhost:3000"), false);
        check("localhost:8081", Some("https://evil.test"), false);
        check("localhost:8081", Some("null"), false);
        check("rebound.test:8081", None, false);
        check("rebound.test:8081", Some("http://rebound.test:8081"), false);
    }
}
