//! The HTTP API, once, over either implementation.

mod sessions;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;

use crate::backend::ai::Assistant;
use crate::backend::api::{
    AnalyzeAnswer, Analyzed, Endpoint, GenerateQuestions, GeneratedQuestions, MAX_BODY_BYTES, ParseJd, ParsedJd,
    Services, json_object,
};
use crate::backend::breaker::BreakerState;
use crate::backend::fault::{Chance, Fault};
use crate::backend::listing::{Listing, Page};
use crate::backend::metrics;
use crate::backend::pool::PoolState;
use crate::backend::problem::Problem;
use crate::backend::role::Role;
use crate::backend::selection::Selection;
use crate::backend::skill::skills_in;
use crate::backend::store::Store;
use crate::backend::store::meter::Queries;
use crate::backend::upsert::{self, Upsert};

/// How long the database may take to prove that it is there.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// The share of connections at work from which a pool counts as nearly exhausted; the alert rules say the same.
const POOL_ALERT: f64 = 0.9;

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
    Endpoint {
        method: "POST",
        path: "/api/v1/generate-questions",
        description: "Questions made up for a role and a job description; the bank stays as it is",
    },
    Endpoint {
        method: "GET",
        path: "/api/v1/questions",
        description: "Questions by filters, in an order, page by page",
    },
    Endpoint {
        method: "PUT",
        path: "/api/v1/questions",
        description: "Up to 10,000 questions added or replaced at once",
    },
    Endpoint { method: "GET", path: "/api/v1/services", description: "This list" },
    Endpoint { method: "GET", path: "/health", description: "Whether the process is alive" },
    Endpoint { method: "GET", path: "/ready", description: "Whether the database answers" },
    Endpoint {
        method: "GET",
        path: "/monitoring/database",
        description: "Figures of the connection pool and of the queries",
    },
    Endpoint { method: "GET", path: "/metrics", description: "The same for Prometheus" },
];

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Service {
    store: Store,
    assistant: Assistant,
    fault: Fault,
    chance: Chance,
}

impl Service {
    pub(crate) fn new(store: Store, assistant: Assistant, fault: Fault) -> Self {
        Self { store, assistant, fault, chance: Chance::new(FAULT_SEED) }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn assistant(&self) -> &Assistant {
        &self.assistant
    }
}

/// The routes, with every error as a problem document.
pub(crate) fn build(service: Arc<Service>) -> Router {
    let mut router = Router::new()
        .route("/api/v1/parse-jd", post(parse_jd))
        .route("/api/v1/analyze-answer", post(analyze_answer))
        .route("/api/v1/generate-questions", post(generate_questions))
        .route("/api/v1/services", get(services))
        .route("/api/v1/questions", get(list).merge(put(upsert).layer(DefaultBodyLimit::max(upsert::MAX_BODY_BYTES))))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/monitoring/database", get(monitoring))
        .route("/metrics", get(metrics))
        .merge(sessions::routes())
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

async fn analyze_answer(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Analyzed>, Problem> {
    let asked = AnalyzeAnswer::check(json_object(&headers, body)?)?;
    let (source, analysis) = service.assistant.analyze(&asked.job_description, &asked.question, &asked.answer).await;
    Ok(Json(Analyzed { source, analysis }))
}

async fn generate_questions(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<GeneratedQuestions>, Problem> {
    let asked = GenerateQuestions::check(json_object(&headers, body)?)?;
    let role = Role::from_title(&asked.role);
    let (source, questions) = service.assistant.generate(role, &asked.job_description, asked.count).await;
    Ok(Json(GeneratedQuestions { source, role: role.slug(), questions }))
}

async fn list(
    State(service): State<Arc<Service>>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Ok(Query(parameters)) = parameters else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the query is not one of names and values"));
    };
    let listing = Listing::read(&parameters).map_err(Problem::invalid)?;
    Ok(Json(service.store.list(listing).await?))
}

async fn upsert(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let asked = Upsert::check(json_object(&headers, body)?)?;
    let whole = asked.all_or_nothing;
    let done = service.store.upsert(asked).await?;
    // Part of it, or none of it, failed: the client has to look at the rows.
    let status = match (done.errors.is_empty(), whole) {
        (true, _) => StatusCode::OK,
        (false, true) => StatusCode::UNPROCESSABLE_ENTITY,
        (false, false) => StatusCode::MULTI_STATUS,
    };
    Ok((status, Json(done)).into_response())
}

async fn services() -> Json<Services> {
    let endpoints = ENDPOINTS.iter().chain(&sessions::ENDPOINTS).collect();
    Json(Services { name: "interview", version: env!("CARGO_PKG_VERSION"), endpoints })
}

/// The body of a probe that is well.
#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    /// What an operator should look at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<&'static str>,
}

/// The process is alive while it can say so; what it lacks is told, but is no reason to restart it.
async fn health(State(service): State<Arc<Service>>) -> Json<Status> {
    let mut problems = Vec::new();
    if service.store.breaker() != BreakerState::Closed {
        problems.push("the database is away");
    }
    if service.store.pool().used() > POOL_ALERT {
        problems.push("the connection pool is nearly exhausted");
    }
    Json(Status { status: if problems.is_empty() { "ok" } else { "degraded" }, problems })
}

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Status>, Problem> {
    match tokio::time::timeout(READY_TIMEOUT, service.store.ping()).await {
        Ok(Ok(())) => Ok(Json(Status { status: "ready", problems: Vec::new() })),
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
    breaker: BreakerState,
}

async fn monitoring(State(service): State<Arc<Service>>) -> Json<Monitoring> {
    Json(Monitoring {
        mode: service.store.mode().to_string(),
        pool: service.store.pool(),
        queries: service.store.queries(),
        breaker: service.store.breaker(),
    })
}

async fn metrics(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let store = &service.store;
    let page = metrics::render(store.mode(), store.pool(), &store.queries(), store.breaker());
    ([(CONTENT_TYPE, metrics::MEDIA_TYPE)], page)
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
