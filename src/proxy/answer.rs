//! What the gateway adds to answers, and the answers that are its own.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, Method};
use pingora_error::{Error, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tracing::{debug, warn};

use crate::api::Problem;
use crate::proxy::context::Context;
use crate::proxy::{REQUEST_ID_HEADER, VARIANT, VARIANT_HEADER};

/// How long a client that came at a bad moment is asked to wait, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// What the gateway adds to every answer.
pub(crate) fn mark(response: &mut ResponseHeader, context: &Context) -> pingora_error::Result<()> {
    response.remove_header(&VARIANT);
    if let (true, Some(_), Some(upstream)) = (context.settings.expose_variant, &context.decision, &context.upstream) {
        response.insert_header(VARIANT_HEADER, upstream.variant())?;
    }
    if let Some(cookie) = &context.new_anonymous {
        response.append_header(SET_COOKIE, cookie)?;
    }
    response.insert_header(REQUEST_ID_HEADER, context.request_id())
}

/// As [`mark`], for an answer that is being written.
pub(crate) fn write_marks(out: &mut Vec<u8>, context: &Context) {
    if let (true, Some(_), Some(upstream)) = (context.settings.expose_variant, &context.decision, &context.upstream) {
        write_field(out, VARIANT_HEADER.as_bytes(), upstream.variant().as_bytes());
    }
    if let Some(cookie) = &context.new_anonymous {
        write_field(out, SET_COOKIE.as_str().as_bytes(), cookie.as_bytes());
    }
    write_field(out, REQUEST_ID_HEADER.as_bytes(), context.request_id().as_bytes());
}

/// Writes a header field.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Answers a request that goes to no upstream, and keeps the connection.
pub(crate) async fn respond(session: &mut Session, context: &Context, problem: Problem) -> pingora_error::Result<()> {
    let (response, body) = problem_response(context, problem)?;
    let head = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(response), head).await?;
    if head { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

/// Answers a request that could not be proxied, if the client takes the answer.
pub(crate) async fn apologise(session: &mut Session, context: &Context, problem: Problem) {
    let (mut response, body) = match problem_response(context, problem) {
        Ok(response) => response,
        Err(error) => return warn!(%error, "cannot build the error response"),
    };
    let marked = mark(&mut response, context);
    let body = if session.req_header().method == Method::HEAD { Bytes::new() } else { body };
    if let Err(error) = marked.and(session.write_error_response(response, body).await) {
        debug!(%error, "the client did not take the error response");
    } else if session.as_http1().is_some() && !session.as_mut().is_body_done() {
        // It is still sending, and has to be able to read the answer when it is done.
        session.as_mut().shutdown().await;
    }
}

pub(crate) fn problem_response(context: &Context, problem: Problem) -> pingora_error::Result<(ResponseHeader, Bytes)> {
    let problem = Problem { request_id: Some(context.request_id_text().to_owned()), ..problem };
    let body = serde_json::to_vec(&problem)
        .map_err(|error| Error::because(ErrorType::InternalError, "cannot write a problem document", error))?;
    let mut response = ResponseHeader::build(problem.status, Some(5))?;
    response.insert_header(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE))?;
    response.insert_header(CONTENT_LENGTH, body.len().to_string())?;
    response.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    response.insert_header(REQUEST_ID_HEADER, context.request_id())?;
    if problem.status == 503 {
        response.insert_header(RETRY_AFTER, RETRY_AFTER_S)?;
    }
    Ok((response, body.into()))
}
