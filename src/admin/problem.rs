//! Every error of the admin API, with its status, as a problem document (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::access::Role;
use crate::api::Problem;
use crate::rollout::ChangeError;
use crate::store::StoreError;
use crate::telemetry::chain;

/// The kind of problem of a request whose key is that of one under way.
pub const UNDER_WAY: &str = "under-way";

/// What can go wrong with a request to the admin API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// 404
    #[error("there is nothing here; /api/v1/flags lists the flags")]
    NotFound,
    /// 405
    #[error("this method does not go with this path")]
    MethodNotAllowed,
    /// 404
    #[error("there is no flag `{0}`")]
    UnknownFlag(String),
    /// 400
    #[error("{0}")]
    Invalid(String),
    /// 403
    #[error("requests from pages of other sites are refused")]
    OtherSite,
    /// 403
    #[error(
        "this form is none of this session's, which may have ended since; go back, load the page anew and try again"
    )]
    ForeignForm,
    /// 401
    #[error(
        "this needs a token, as `authorization: Bearer …`; `tidegate token new` makes one, TIDEGATE_TOKEN gives it"
    )]
    NoToken,
    /// 401
    #[error("there is no such token; it may have been revoked")]
    UnknownToken,
    /// 401
    #[error(
        "this client certificate is nobody's here; name whom it stands for under `[admin.certificates]`, or show a token"
    )]
    UnknownCertificate,
    /// 403
    #[error("`{name}` is a {role}, and this takes a token of role {needed}")]
    Forbidden {
        /// Whose token it is.
        name: String,
        /// What it allows.
        role: Role,
        /// What this takes.
        needed: Role,
    },
    /// 429
    #[error("too many unknown tokens came from this address; wait {} s", .0.as_secs_f64().ceil())]
    TooManyAttempts(Duration),
    /// 429
    #[error("too many requests; wait {} s; `admin.rate_limit` says how many there may be", .0.as_secs() + 1)]
    TooManyRequests(Duration),
    /// 409
    #[error("a request with this `Idempotency-Key` is under way; ask again in a moment")]
    UnderWay,
    /// 422
    #[error("this `Idempotency-Key` was another request's; take a new one for each change")]
    OtherRequest,
    /// 415
    #[error("the body is JSON in UTF-8, so send `content-type: application/json`, and no content-encoding")]
    MediaType,
    /// 413
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// 404, 409, 412 or 503
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// 503
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// The HTTP status, the kind of problem, and its title.
    pub(crate) fn status(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::UnknownFlag(_) | Self::Change(ChangeError::UnknownFlag(_)) => {
                (StatusCode::NOT_FOUND, "unknown-flag", "Unknown flag")
            }
            Self::NoToken | Self::UnknownToken | Self::UnknownCertificate => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "Token needed")
            }
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
            Self::TooManyAttempts(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", "Too many attempts"),
            Self::TooManyRequests(_) => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
            Self::UnderWay => (StatusCode::CONFLICT, UNDER_WAY, "Under way"),
            Self::OtherRequest => (StatusCode::UNPROCESSABLE_ENTITY, "other-request", "Another request"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid", "Invalid request"),
            Self::OtherSite | Self::ForeignForm => (StatusCode::FORBIDDEN, "other-site", "Refused"),
            Self::Body(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Unsupported media type"),
            Self::Change(ChangeError::NoApproval(_)) => (StatusCode::NOT_FOUND, "no-approval", "Nothing waits"),
            Self::Change(ChangeError::SameOperator(_)) => {
                (StatusCode::FORBIDDEN, "same-operator", "Another operator needed")
            }
            Self::Change(
                ChangeError::Refused(_)
                | ChangeError::TooManyChanges(_)
                | ChangeError::TooManyWait(_)
                | ChangeError::NeedsSecond(_),
            ) => (StatusCode::CONFLICT, "refused", "Change refused"),
            Self::Change(ChangeError::Stale { .. } | ChangeError::Overtaken) => {
                (StatusCode::PRECONDITION_FAILED, "stale", "Changed meanwhile")
            }
            Self::Change(ChangeError::HandedOver | ChangeError::Store(StoreError::HandedOver))
            | Self::Store(StoreError::HandedOver) => {
                (StatusCode::SERVICE_UNAVAILABLE, "taking-over", "Another process takes over")
            }
            Self::Change(ChangeError::Store(_) | ChangeError::Uncertain(_) | ChangeError::Interrupted)
            | Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store", "Store unavailable"),
        }
    }

    /// What was wrong this time, and what to do.
    pub(crate) fn detail(&self) -> String {
        chain(self)
    }

    /// Adds what clients are told besides.
    pub(crate) fn add_headers(&self, response: &mut Response) {
        match self {
            Self::NoToken | Self::UnknownToken | Self::UnknownCertificate => {
                let scheme = HeaderValue::from_static("Bearer realm=\"tidegate\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            Self::TooManyAttempts(wait) | Self::TooManyRequests(wait) => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            }
            Self::Change(ChangeError::HandedOver | ChangeError::Store(StoreError::HandedOver))
            | Self::Store(StoreError::HandedOver) => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
            }
            _ => {}
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, kind, title) = self.status();
        let problem = Problem::new(status.as_u16(), kind, title, self.detail());
        let mut response = (status, [(CONTENT_TYPE, Problem::MEDIA_TYPE)], Json(problem)).into_response();
        self.add_headers(&mut response);
        response
    }
}

impl From<BytesRejection> for AdminError {
    fn from(rejection: BytesRejection) -> Self {
        let text = rejection.body_text();
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE { Self::Body(text) } else { Self::Invalid(text) }
    }
}

impl From<PathRejection> for AdminError {
    fn from(rejection: PathRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for AdminError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

pub(crate) async fn not_found() -> AdminError {
    AdminError::NotFound
}

pub(crate) async fn method_not_allowed() -> AdminError {
    AdminError::MethodNotAllowed
}
