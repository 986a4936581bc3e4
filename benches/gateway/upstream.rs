//! The backend of all: it answers at once.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;

use crate::scenario::BIG;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(listen: &str) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let big = Bytes::from(vec![b'x'; BIG]);
    let router = Router::new()
        .route("/api/v1/big", get(async move || big))
        .route("/api/v1/upload", post(take))
        .route("/api/v1/echo", post(async |request: Request| Body::new(request.into_body())))
        .fallback(async || "a small answer");
    axum::serve(listener, router).await.unwrap();
}

/// Takes a body to its end.
async fn take(request: Request) -> &'static str {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    "a small answer"
}
