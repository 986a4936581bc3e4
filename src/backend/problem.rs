//! Errors as RFC 9457 problem documents.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::backend::selection::StoreError;

/// What a client is told to wait after a 503, in seconds: contention and exhaustion pass within moments.
const RETRY_AFTER_SECONDS: &str = "1";

/// One field of a body that does not validate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// The field's name, or `body` when the fault is the body's as a whole.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

/// An answer that reports an error.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }

    /// A body whose fields do not validate.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: "the request does not validate; nothing was written".to_owned(),
            errors,
        }
    }

    /// The fields that do not validate.
    #[cfg(test)]
    pub(crate) fn errors(&self) -> &[FieldError] {
        &self.errors
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The log gets the driver's words; the client only what it can act on.
        let reason: &dyn std::error::Error = &error;
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(error = reason, "no database connection for a request");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "no database connection became free in time")
            }
            StoreError::Busy(_) => {
                tracing::warn!(error = reason, "the database stayed locked");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database is busy with other writes")
            }
            StoreError::Database(_) => {
                tracing::error!(error = reason, "a database operation failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the database operation failed")
            }
        }
    }
}

/// The document itself; `about:blank` says that the title is the status's own phrase (RFC 9457, section 4.2.1).
#[derive(Debug, Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}
