//! Many requests at once: no lost update, a bounded pool, a graceful stop.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use tidegate::backend::{self, Mode, PoolConfig};

use crate::backend::running::{Data, KINDS, PARSE_JD, Running, config, every, figure, stuck_request};

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost_under_concurrency() {
    // Also two backends on one database, as behind the gate.
    let modes = [vec![Mode::Sync], vec![Mode::Async], vec![Mode::Sync, Mode::Async]];
    for (kind, modes) in KINDS.into_iter().flat_map(|kind| modes.clone().map(|modes| (kind, modes))) {
        let data = Data::new(kind).await;
        let mut backends = Vec::new();
        for mode in &modes {
            backends.push(Running::plain(*mode, &data).await);
        }
        let mut requests = JoinSet::new();
        for number in 0..200 {
            let running = backends.get(number % backends.len()).unwrap();
            let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
            let asked = json!({"role": "backend", "jobDescription": "Rust", "count": 3});
            requests.spawn(async move { client.post(url).json(&asked).send().await.unwrap() });
        }
        while let Some(response) = requests.join_next().await {
            let response = response.unwrap();
            assert_eq!(response.status(), 200, "{modes:?}");
        }
        assert_eq!(data.usage_sum().await, 600, "{kind:?} {modes:?}");
        for running in backends {
            running.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_answers_503_and_recovers() {
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let pool =
            PoolConfig { size: 1, max_overflow: 0, timeout: Duration::from_millis(500), ..PoolConfig::default() };
        let running = Running::with_pool(mode, &data, pool).await;
        running.pool_until("/health", |pool| figure(pool, "checkedOut") == 0).await;
        let mut lock = data.connect().await;
        data.block(&mut lock).await;
        let stuck = stuck_request(&running).await;

        let asked = json!({"role": "backend", "jobDescription": "Rust"});
        let refused = running.post(PARSE_JD, &asked).await;
        assert_eq!(refused.status(), 503, "{kind:?} {mode}");
        assert_eq!(refused.headers().get(RETRY_AFTER).unwrap(), "1");
        assert_eq!(refused.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        assert_eq!(running.get("/ready").await.status(), 503, "{kind:?} {mode}");
        assert_eq!(running.get("/health").await.status(), 200, "{kind:?} {mode}");

        sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
        assert_eq!(stuck.await.unwrap().status(), 200, "{kind:?} {mode}");
        assert_eq!(running.get("/ready").await.status(), 200, "{kind:?} {mode}");
        assert_eq!(data.usage_sum().await, 1, "{kind:?} {mode}");

        let body: Value = running.get("/monitoring/database").await.json().await.unwrap();
        assert_eq!(body.get("mode"), Some(&json!(mode.to_string())));
        let queries = body.get("queries").unwrap();
        // The probe at the start, the stuck request, the refused one, and the two of /ready.
        assert_eq!(figure(queries, "total"), 5, "{kind:?} {mode}");
        assert_eq!(figure(queries, "errors"), 2, "{kind:?} {mode}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overflow_is_closed_and_old_connections_are_replaced() {
    for (kind, mode) in every() {
        for recycle in [Duration::from_secs(3600), Duration::from_nanos(1)] {
            let data = Data::new(kind).await;
            let pool = PoolConfig { size: 2, max_overflow: 6, recycle, ..PoolConfig::default() };
            let running = Running::with_pool(mode, &data, pool).await;
            let mut requests = JoinSet::new();
            for _ in 0..40 {
                let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
                let asked = json!({"role": "qa", "jobDescription": "k6", "count": 1});
                requests.spawn(async move { client.post(url).json(&asked).send().await.unwrap() });
            }
            while let Some(response) = requests.join_next().await {
                assert_eq!(response.unwrap().status(), 200, "{kind:?} {mode}");
            }
            // Each probe borrows a connection and so takes a straggler out as it gives it back.
            let pool =
                running.pool_until("/ready", |pool| figure(pool, "checkedOut") == 0 && figure(pool, "idle") <= 2).await;
            assert_eq!(figure(&pool, "overflow"), 0, "{kind:?} {mode}: {pool}");
            assert_eq!(figure(&pool, "size"), 2);
            assert_eq!(figure(&pool, "maxOverflow"), 6);
            running.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_in_flight_finish() {
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let running = Running::plain(mode, &data).await;
        let mut lock = data.connect().await;
        data.block(&mut lock).await;
        running.pool_until("/health", |pool| figure(pool, "checkedOut") == 0).await;
        let stuck = stuck_request(&running).await;

        let stopping = tokio::spawn(running.stop());
        sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
        assert_eq!(stuck.await.unwrap().status(), 200, "{kind:?} {mode}");
        stopping.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_outlives_its_backend_answers_503() {
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let backend = backend::open(config(mode, &data)).await.unwrap();
        let router = backend.router();
        backend.close().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let asked = json!({"role": "backend", "jobDescription": "Rust"});
        let url = format!("{base}{PARSE_JD}");
        let response = Client::new().post(url).json(&asked).send().await.unwrap();
        assert_eq!(response.status(), 503, "{kind:?} {mode}");
        server.abort();
    }
}
