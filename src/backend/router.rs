//! The HTTP API, once, over either implementation.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use crate::backend::analysis::{self, Analysis};
use crate::backend::api::{AnalyzeAnswer, Endpoint, MAX_BODY_BYTES, ParseJd, ParsedJd, Services, json_object};
use crate::backend::fault::{Chance, Fault};
use crate::backend::problem::Problem;
use crate::backend::role::Role;
use crate::backend::selection::{PoolState, Selection};
use crate::backend::skill::skills_in;
use crate::backend::store::{Queries, Store};

/// How long the database may take to prove that it is there.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the draws of injected errors begin; fixed, so that a drill can be repeated.
const FAULT_SEED: u64 = 0x7469_6465_6761_7465;

/// Every endpoint, as `GET /api/v1/services` lists them.
const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: "POST",
        path: "/api/v1/parse-jd",
        description: "Questions that suit a role and a job description",
    },
    Endpoint {
        method: "POST",
        path: "/api/v1/analyze-answer",
        description: "Score of an answer, the keywords it misses, and what would improve it",
    },
    Endpoint { method: "GET", path: "/api/v1/services", description: "This list" },
    Endpoint { method: "GET", path: "/health", description: "Whether the process is alive" },
    Endpoint { method: "GET", path: "/ready", description: "Whether the database answers" },
    Endpoint {
        method: "GET",
        path: "/monitoring/database",
        description: "Figures of the connection pool and of the queries",
    },
];

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Service {
    store: Store,
    fault: Fault,
    chance: Chance,
}

impl Service {
    pub(crate) fn new(store: Store, fault: Fault) -> Self {
        Self { store, fault, chance: Chance::new(FAULT_SEED) }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

/// The routes, with every error as a problem document.
pub(crate) fn build(service: Arc<Service>) -> Router {
    let mut router = Router::new()
        .route("/api/v1/parse-jd", post(parse_jd))
        .route("/api/v1/analyze-answer", post(analyze_answer))
        .route("/api/v1/services", get(services))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/monitoring/database", get(monitoring))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    if !service.fault.is_none() {
        router = router.layer(middleware::from_fn_with_state(Arc::clone(&service), misbehave));
    }
    router.with_state(service)
}

async fn parse_jd(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ParsedJd>, Problem> {
    let asked = ParseJd::check(json_object(&headers, body)?)?;
    let role = Role::from_title(&asked.role);
    let skills = skills_in(&asked.job_description);
    let questions = service
        .store
        .take_questions(Selection { role, skills: skills.clone(), difficulty: asked.difficulty, count: asked.count })
        .await?;
    Ok(Json(ParsedJd { role: role.slug(), skills, questions }))
}

async fn analyze_answer(headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Json<Analysis>, Problem> {
    let asked = AnalyzeAnswer::check(json_object(&headers, body)?)?;
    Ok(Json(analysis::analyze(&asked.job_description, &asked.question, &asked.answer)))
}

async fn services() -> Json<Services> {
    Json(Services { name: "interview", version: env!("CARGO_PKG_VERSION"), endpoints: ENDPOINTS })
}

/// The body of a probe that is well.
#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
}

async fn health() -> Json<Status> {
    Json(Status { status: "ok" })
}

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Status>, Problem> {
    match tokio::time::timeout(READY_TIMEOUT, service.store.ping()).await {
        Ok(Ok(())) => Ok(Json(Status { status: "ready" })),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database does not answer");
            Err(unready())
        }
        Err(_elapsed) => Err(unready()),
    }
}

fn unready() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer")
}

/// What `GET /monitoring/database` answers: the one body that names the mode.
#[derive(Debug, Serialize)]
struct Monitoring {
    mode: String,
    pool: PoolState,
    queries: Queries,
}

async fn monitoring(State(service): State<Arc<Service>>) -> Json<Monitoring> {
    Json(Monitoring {
        mode: service.store.mode().to_string(),
        pool: service.store.pool(),
        queries: service.store.queries(),
    })
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}

/// Delays and fails requests to the API as the fault says.
async fn misbehave(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    tokio::time::sleep(service.fault.delay()).await;
    if service.fault.strikes(service.chance.draw()) {
        return Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this failure was asked for when the backend was started",
        )
        .into_response();
    }
    next.run(request).await
}
