//! The request as the backend gets it: without what only the gateway may say, and with what it says.

use http::header::{CONNECTION, COOKIE, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use pingora_http::RequestHeader;

use crate::downstream::is_token;
use crate::proxy::context::Context;
use crate::proxy::forwarded::tell;
use crate::proxy::shadow::SHADOW_HEADER;
use crate::proxy::{FLAG_HEADER, OVERRIDE_HEADER, REQUEST_ID, TOKEN_HEADER, VARIANT, VARIANT_HEADER};

const FLAG: HeaderName = HeaderName::from_static(FLAG_HEADER);

/// Bytes that the head of a request seldom has more of.
const HEAD: usize = 1024;

/// As many as the gateway adds to a request at most.
const ADDED: usize = 8;

/// Lets the client's wish for another protocol go on. pingora passes on that for WebSocket alone.
pub(crate) fn pass_on_upgrade(asked: &RequestHeader, request: &mut RequestHeader) -> pingora_error::Result<()> {
    let both_may = asked.version == Version::HTTP_11 && request.version == Version::HTTP_11;
    if both_may
        && !request.headers.contains_key(UPGRADE)
        && let Some(protocol) = upgrade(&asked.headers)
    {
        request.insert_header(CONNECTION, UPGRADE.as_str())?;
        request.insert_header(UPGRADE, protocol)?;
    }
    Ok(())
}

/// The protocols that a client asks for (RFC 9110, section 7.8), if that can be read in one way. Another HTTP is none of them: its
/// requests would come past every route and every decision; and neither is TLS, which is not spoken with backends in the middle
/// of a connection.
fn upgrade(asked: &HeaderMap) -> Option<HeaderValue> {
    let options = asked.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut options = options.flat_map(|value| value.split(','));
    let mut values = asked.get_all(UPGRADE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let others = value.to_str().ok()?.split(',').all(|protocol| {
        let name = protocol.trim().split('/').next().unwrap_or_default();
        let begins = |own: &str| name.get(..own.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(own));
        let is_own = ["h2", "h3", "http", "tls"].into_iter().any(begins);
        !name.is_empty() && name.bytes().all(is_token) && !is_own
    });
    let is_named = options.any(|option| option.trim().eq_ignore_ascii_case(UPGRADE.as_str()));
    (others && is_named).then(|| value.clone())
}

/// Makes the client's request the gateway's.
///
/// The names of its headers are in lower case from here on. pingora would write them as the client did, and keeps a second map
/// of all names for that, which each header that is added has to go into as well.
pub(crate) fn send_on(request: &mut RequestHeader, context: &Context) -> pingora_error::Result<()> {
    // A target in another form than that of a path is not in the parts.
    let target = (!request.raw_path().starts_with(b"/")).then(|| request.raw_path().to_vec());
    let (nothing, ()) = Request::new(()).into_parts();
    let mut parts: Parts = std::mem::replace(request, RequestHeader::from(nothing)).into();
    speak(&mut parts, context);
    *request = RequestHeader::from(parts);
    target.map_or(Ok(()), |target| request.set_raw_path(&target))
}

/// Makes the client's request the gateway's, and writes its head as a server of HTTP/1.1 is to get it.
pub(crate) fn write_head(request: &mut Parts, context: &Context) -> Vec<u8> {
    speak(request, context);
    let target = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut out = Vec::with_capacity(HEAD);
    for part in [request.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &request.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn speak(request: &mut Parts, context: &Context) {
    let headers = &mut request.headers;
    join_cookies(headers);
    let ours = [FLAG_HEADER, VARIANT_HEADER, OVERRIDE_HEADER, TOKEN_HEADER, SHADOW_HEADER];
    remove(headers, |name| {
        let mut identity = context.settings.identity.headers().filter(|_| !context.client_is_trusted);
        let is_alias = |own: &str| alike(name, own) && name.contains('_');
        ours.iter().any(|own| alike(name, own))
            || identity.any(|header| alike(name, header.as_str()))
            || ["content-length", "transfer-encoding"].into_iter().any(is_alias)
    });
    headers.reserve(ADDED);
    if let (Some(decision), Some(upstream)) = (&context.decision, &context.upstream) {
        // A flag's key is of letters, digits and hyphens, which is what a header value may hold.
        if let Ok(key) = HeaderValue::from_str(decision.entry.flag.key.as_str()) {
            headers.insert(FLAG, key);
        }
        headers.insert(VARIANT, upstream.variant());
    }
    tell(headers, &request.uri, context.client, context.client_is_trusted, context.tls);
    if let Some(trace) = context.trace {
        trace.pass_on(headers);
    }
    headers.insert(REQUEST_ID, context.request_id());
}

/// A client of HTTP/2 may send its cookies one by one; servers of HTTP/1.1 read one header (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        // Made of values and of visible ASCII, so it is one.
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// Whether `name` is this name, also where it is spelt with underscores: a backend behind CGI or WSGI could not tell
/// `x_user_id` from `x-user-id`.
fn alike(name: &str, own: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a, b) == (b'_', b'-');
    name.len() == own.len() && name.bytes().zip(own.bytes()).all(same)
}

/// Takes out of `headers` what is `forbidden`.
fn remove(headers: &mut HeaderMap, forbidden: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| forbidden(name.as_str())).cloned() {
        headers.remove(name);
    }
}
