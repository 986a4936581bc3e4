//! The endpoints of interview sessions.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use uuid::Uuid;

use crate::backend::analysis::Analysis;
use crate::backend::api::{Endpoint, StartSession, SubmitAnswers, json_object, user};
use crate::backend::history::{History, HistoryPage};
use crate::backend::problem::Problem;
use crate::backend::role::Role;
use crate::backend::router::Service;
use crate::backend::session::view::{Report, Submitted, View};
use crate::backend::session::{Answer, Asked, Reference, Refusal, Start, Submission};
use crate::clock;

const fn endpoint(method: &'static str, path: &'static str, description: &'static str) -> Endpoint {
    Endpoint { method, path, description }
}

/// The endpoints, as `GET /api/v1/services` lists them.
pub(crate) const ENDPOINTS: [Endpoint; 7] = [
    endpoint("POST", "/api/v1/sessions", "A session started; one a user at a time"),
    endpoint("GET", "/api/v1/sessions", "The sessions of a user, the newest first"),
    endpoint("GET", "/api/v1/sessions/{id}", "A session and the questions that are open"),
    endpoint("POST", "/api/v1/sessions/{id}/answers", "One answer or several; may be repeated"),
    endpoint("GET", "/api/v1/sessions/{id}/analysis", "What the answers of a session say"),
    endpoint("POST", "/api/v1/sessions/{id}/abandon", "A session given up"),
    endpoint("POST", "/api/v1/sessions/{id}/resume", "A session that was given up goes on"),
];

/// The routes.
pub(crate) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/api/v1/sessions", post(start).get(history))
        .route("/api/v1/sessions/{id}", get(read))
        .route("/api/v1/sessions/{id}/answers", post(submit))
        .route("/api/v1/sessions/{id}/analysis", get(report))
        .route("/api/v1/sessions/{id}/abandon", post(abandon))
        .route("/api/v1/sessions/{id}/resume", post(resume))
}

async fn start(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let user = user(&headers)?;
    let asked = StartSession::check(json_object(&headers, body)?)?;
    let id = Uuid::new_v4().to_string();
    let location = format!("/api/v1/sessions/{id}");
    let start = Start {
        id,
        user,
        role: Role::from_title(&asked.role),
        job_description: asked.job_description,
        difficulty: asked.difficulty,
        plan: asked.plan,
        limit: asked.limit,
        now: clock::wall().as_microsecond(),
    };
    let whole = service.store().start(start).await??;
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(View::from(&whole))).into_response())
}

async fn history(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<HistoryPage>, Problem> {
    let user = user(&headers)?;
    let Ok(Query(parameters)) = parameters else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the query is not one of names and values"));
    };
    let history = History::read(user, &parameters).map_err(Problem::invalid)?;
    Ok(Json(service.store().history(history).await?))
}

async fn read(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<View>, Problem> {
    let whole = service.store().session(reference(&headers, id)?).await??;
    Ok(Json(View::from(&whole)))
}

async fn submit(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Submitted>, Problem> {
    let session = reference(&headers, id)?;
    let SubmitAnswers(given) = SubmitAnswers::check(json_object(&headers, body)?)?;
    // The analysis may take long, so it is made before the transaction that stores it.
    let whole = service.store().session(session.clone()).await??;
    let questions: Vec<String> = given.iter().map(|(question, _)| question.clone()).collect();
    let mut answers = Vec::new();
    for (question, answer) in given {
        let open = |asked: &&Asked| asked.id == question && asked.answered.is_none();
        let analysis = match whole.asked.iter().find(open) {
            Some(asked) => service.assistant().analyze(&whole.session.job_description, &asked.text, &answer).await.1,
            // Answered before, or not asked: then it is the answer alone that counts.
            None => Analysis::default(),
        };
        answers.push(Answer { question, answer, analysis });
    }
    let whole = service.store().submit(Submission { session, answers }).await??;
    Ok(Json(Submitted::new(&whole, &questions)))
}

async fn report(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Report>, Problem> {
    let whole = service.store().session(reference(&headers, id)?).await??;
    Ok(Json(Report::from(&whole)))
}

async fn abandon(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<View>, Problem> {
    let whole = service.store().abandon(reference(&headers, id)?).await??;
    Ok(Json(View::from(&whole)))
}

async fn resume(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<View>, Problem> {
    let whole = service.store().resume(reference(&headers, id)?).await??;
    Ok(Json(View::from(&whole)))
}

fn reference(headers: &HeaderMap, id: String) -> Result<Reference, Problem> {
    let user = user(headers)?;
    // What was never given out need not be looked for, nor could every text be.
    let id = Uuid::parse_str(&id).map(|id| id.to_string());
    let id = id.map_err(|_| Problem::from(Refusal::NotFound))?;
    Ok(Reference { user, id, now: clock::wall().as_microsecond() })
}
