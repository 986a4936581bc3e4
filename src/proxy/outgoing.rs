//! The request as the backend gets it: without what only the gateway may say, and with what it says.

use http::HeaderName;
use pingora_http::RequestHeader;

use crate::proxy::context::Context;
use crate::proxy::forwarded::tell;
use crate::proxy::shadow::SHADOW_HEADER;
use crate::proxy::{FLAG_HEADER, OVERRIDE_HEADER, REQUEST_ID_HEADER, TOKEN_HEADER, VARIANT_HEADER};

/// Makes the client's request the gateway's.
pub(crate) fn send_on(request: &mut RequestHeader, context: &Context) -> pingora_error::Result<()> {
    let identity = context.settings.identity.headers().map(HeaderName::as_str);
    let identity = identity.filter(|_| !context.client_is_trusted);
    let ours = [FLAG_HEADER, VARIANT_HEADER, OVERRIDE_HEADER, TOKEN_HEADER, SHADOW_HEADER];
    remove(request, ours.into_iter().chain(identity));
    if let (Some(decision), Some(upstream)) = (&context.decision, &context.upstream) {
        request.insert_header(FLAG_HEADER, decision.entry.flag.key.as_str())?;
        request.insert_header(VARIANT_HEADER, upstream.variant())?;
    }
    tell(request, context.client, context.client_is_trusted, context.tls)?;
    if let Some(trace) = context.trace {
        trace.pass_on(request)?;
    }
    request.insert_header(REQUEST_ID_HEADER, context.request_id())
}

/// Takes the headers called `names` out of a request, also where they are spelt with underscores: a backend behind CGI or
/// WSGI could not tell `x_user_id` from `x-user-id`.
fn remove<'n>(request: &mut RequestHeader, names: impl Iterator<Item = &'n str>) {
    let same = |a: &str, b: &str| {
        a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| a == b || (a, b) == (b'_', b'-'))
    };
    for name in names {
        request.remove_header(name);
        while let Some(alike) = request.headers.keys().find(|key| same(key.as_str(), name)).cloned() {
            request.remove_header(&alike);
        }
    }
}
