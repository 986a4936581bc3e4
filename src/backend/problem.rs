//! Errors as RFC 9457 problem documents.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::backend::failure::{Class, StoreError};
use crate::backend::session::Refusal;

/// What a client is told to wait after a 503, in seconds: contention and exhaustion pass within moments, and the way
/// back from an outage is probed for every two seconds at least.
const RETRY_AFTER_SECONDS: u64 = 1;

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
    retry_after: u64,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), retry_after: RETRY_AFTER_SECONDS }
    }

    /// A body whose fields do not validate.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: "the request does not validate; nothing was written".to_owned(),
            errors,
            retry_after: RETRY_AFTER_SECONDS,
        }
    }

    /// The same problem, with further fields that do not validate.
    pub(crate) fn with(mut self, errors: &mut Vec<FieldError>) -> Self {
        self.errors.append(errors);
        self
    }

    /// The fields that do not validate.
    #[cfg(test)]
    pub(crate) fn errors(&self) -> &[FieldError] {
        &self.errors
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let conflict = |detail: String| Self::new(StatusCode::CONFLICT, detail);
        match refusal {
            Refusal::NotFound => Self::new(StatusCode::NOT_FOUND, "this user has no session of this id"),
            Refusal::AlreadyActive(id) => conflict(format!("the user has a session under way: {id}")),
            Refusal::Over(status) => conflict(format!("the session is {status}")),
            Refusal::NotAsked(question) => conflict(format!("this session does not ask the question {question}")),
            Refusal::AnsweredOtherwise(question) => {
                conflict(format!("the question {question} has been answered otherwise"))
            }
            Refusal::NoQuestions => {
                conflict("the question bank has no question for this role and difficulty".to_owned())
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The log gets the driver's words; the client only what it can act on.
        let reason: &dyn std::error::Error = &error;
        let class = match &error {
            StoreError::Away { retry_after } => {
                tracing::debug!(error = reason, "a request was refused by the circuit breaker");
                let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database is away");
                problem.retry_after = retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0));
                return problem;
            }
            StoreError::Failed { class, .. } => *class,
        };
        let detail = match class {
            Class::Exhausted => "no database connection became free in time",
            Class::ConnectionLost => "the database does not answer",
            Class::Busy => "the database is busy with other writes",
            Class::Deadlock | Class::Serialization => "the database could not bring concurrent changes into an order",
            Class::Constraint | Class::Other => {
                tracing::error!(error = reason, error.class = class.name(), "a database operation failed");
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the database operation failed");
            }
        };
        tracing::warn!(error = reason, error.class = class.name(), "a database operation could not be done in time");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
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
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after));
        }
        response
    }
}
