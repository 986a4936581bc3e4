//! Misbehaviour on purpose.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use tidegate::backend::{Config, Mode};
use tidegate::clock;

use crate::backend::running::{Data, Kind, MODES, PARSE_JD, Running, config};

#[tokio::test(flavor = "multi_thread")]
async fn injected_errors_hit_the_api_alone_and_write_nothing() {
    for mode in MODES {
        let data = Data::new(Kind::Sqlite).await;
        let fault = "error=100%".parse().unwrap();
        let running = Running::start(Config { fault, ..config(mode, &data) }).await;
        let asked = json!({"role": "backend", "jobDescription": "Rust"});
        let response = running.post(PARSE_JD, &asked).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        assert_eq!(running.get("/api/v1/services").await.status(), 500);
        for path in ["/health", "/ready", "/monitoring/database"] {
            assert_eq!(running.get(path).await.status(), 200, "{path}");
        }
        assert_eq!(data.usage_sum().await, 0);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_asked_share_of_requests_fails() {
    for mode in MODES {
        let data = Data::new(Kind::Sqlite).await;
        let fault = "error=30%".parse().unwrap();
        let running = Running::start(Config { fault, ..config(mode, &data) }).await;
        let mut failed = 0;
        for _ in 0..300 {
            let response = running.get("/api/v1/services").await;
            failed += usize::from(response.status() == 500);
        }
        assert!((60..=120).contains(&failed), "{failed} of 300");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_delays_hold_back_the_api_alone() {
    let data = Data::new(Kind::Sqlite).await;
    let fault = "delay=150ms".parse().unwrap();
    let running = Running::start(Config { fault, ..config(Mode::Async, &data) }).await;
    let begun = clock::now();
    assert_eq!(running.get("/api/v1/services").await.status(), 200);
    assert!(clock::now().duration_since(begun) >= Duration::from_millis(150));
    running.stop().await;
}
