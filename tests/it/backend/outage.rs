//! What the backends do while something is the matter with the database.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::backend::running::{Data, Kind, MODES, PARSE_JD, Running, figure};
use crate::harness::eventually;
use crate::postgres::{Cluster, Database};

async fn run(connection: &mut sqlx::AnyConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

async fn postgres() -> (Data, Database) {
    // Two handles to one database: one for the backend's data, one to do it harm.
    let database = Cluster::shared().database().await;
    (Data::Postgres(std::sync::Arc::new(database.clone())), database)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_told_at_once_and_found_again() {
    for mode in MODES {
        let (data, database) = postgres().await;
        let running = Running::plain(mode, &data).await;
        let asked = json!({"role": "backend", "jobDescription": "Rust", "count": 1});
        assert_eq!(running.post(PARSE_JD, &asked).await.status(), 200, "{mode}");

        database.admit(false).await;
        let refused = async || running.post(PARSE_JD, &asked).await;
        eventually("the breaker is open", async || {
            let answer = refused().await;
            assert_eq!(answer.status(), 503, "{mode}");
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
            let seconds: u64 = answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
            assert!((1..=2).contains(&seconds), "{seconds}");
            running.json("/monitoring/database").await["breaker"] != "closed"
        })
        .await;
        assert_eq!(running.get("/ready").await.status(), 503, "{mode}");
        let health: Value = running.json("/health").await;
        assert_eq!(health["status"], "degraded", "{mode}");
        let page = running.get("/metrics").await.text().await.unwrap();
        assert!(page.contains(&format!("tidegate_database_breaker_open{{mode=\"{mode}\"}} 1")), "{page}");

        database.admit(true).await;
        eventually("the way back is found", async || refused().await.status() == 200).await;
        assert_eq!(running.json("/monitoring/database").await["breaker"], "closed", "{mode}");
        assert_eq!(running.json("/health").await, json!({"status": "ok"}), "{mode}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_broke_while_idle_are_not_felt() {
    for mode in MODES {
        let (data, database) = postgres().await;
        let running = Running::plain(mode, &data).await;
        let asked = json!({"role": "backend", "jobDescription": "Rust", "count": 1});
        for _ in 0..5 {
            assert_eq!(running.post(PARSE_JD, &asked).await.status(), 200, "{mode}");
            database.disconnect_all().await;
        }
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again_and_reaches_no_client() {
    for mode in MODES {
        let (data, database) = postgres().await;
        // The backend's transaction is to be the victim: it waits shorter before it looks for a deadlock.
        database.set("deadlock_timeout", "'50ms'").await;
        let running = Running::plain(mode, &data).await;
        let asked = json!({"role": "backend", "jobDescription": "x", "count": 20});
        let first: Value = running.post(PARSE_JD, &asked).await.json().await.unwrap();
        let mut ids: Vec<String> =
            first["questions"].as_array().unwrap().iter().map(|q| q["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        // The same ones are to be picked again.
        data.execute("UPDATE questions SET usage_count = 1000 WHERE usage_count = 0").await;
        let lock = |id: &str| format!("UPDATE questions SET usage_count = usage_count WHERE id = '{id}'");

        // The request holds the first question and waits for the gate's, another waits for the first and holds the last.
        // When the gate opens, the request is who closes the circle, and so who finds the deadlock and is broken off.
        let (mut gate, mut other) = (data.connect().await, data.connect().await);
        run(&mut gate, &format!("BEGIN; {}", lock(&ids[10]))).await;
        run(&mut other, &format!("SET deadlock_timeout = '60s'; BEGIN; {}", lock(&ids[19]))).await;
        let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
        let answer = tokio::spawn(async move { client.post(url).json(&asked).send().await.unwrap() });
        let waiting = async |number: i64| {
            let query = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                         AND wait_event_type = 'Lock'";
            eventually("so many wait", async || data.number(query).await == number).await;
        };
        waiting(1).await;
        let waits_for_the_first = lock(&ids[0]);
        tokio::join!(run(&mut other, &waits_for_the_first), async {
            waiting(2).await;
            run(&mut gate, "ROLLBACK").await;
        });
        run(&mut other, "COMMIT").await;
        assert_eq!(answer.await.unwrap().status(), 200, "{mode}");
        let told = running.json("/monitoring/database").await;
        assert!(figure(&told["queries"]["retriesByClass"], "deadlock") >= 1, "{mode}: {told}");
        let sum = "SELECT CAST(SUM(usage_count) AS BIGINT) FROM questions WHERE usage_count < 1000";
        assert_eq!(data.number(sum).await, 40, "{mode}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_began_is_done_though_it_hangs_up() {
    for (kind, mode) in [Kind::Sqlite, Kind::Postgres].into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode))) {
        let data = Data::new(kind).await;
        let running = Running::plain(mode, &data).await;
        running.pool_until("/health", |pool| figure(pool, "checkedOut") == 0).await;
        let mut lock = data.connect().await;
        data.block(&mut lock).await;

        let body = json!({"role": "backend", "jobDescription": "Rust", "count": 3}).to_string();
        let head = format!(
            "POST {PARSE_JD} HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(running.base.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        running.pool_until("/health", |pool| figure(pool, "checkedOut") == 1).await;
        drop(stream);
        // The server has seen the end once it answers on another connection after it.
        assert_eq!(running.get("/health").await.status(), 200);

        sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
        eventually("the work is done", async || data.usage_sum().await == 3).await;
        running.pool_until("/health", |pool| figure(pool, "checkedOut") == 0).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_are_shown() {
    for mode in MODES {
        let data = Data::new(Kind::Postgres).await;
        let pool = tidegate::backend::PoolConfig {
            size: 1,
            max_overflow: 0,
            timeout: Duration::from_secs(20),
            ..tidegate::backend::PoolConfig::default()
        };
        let running = Running::with_pool(mode, &data, pool).await;
        let mut lock = data.connect().await;
        data.block(&mut lock).await;
        let mut requests = JoinSet::new();
        for _ in 0..4 {
            let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
            let asked = json!({"role": "backend", "jobDescription": "Rust"});
            requests.spawn(async move { client.post(url).json(&asked).send().await.unwrap().status() });
        }
        let pool = running.pool_until("/health", |pool| figure(pool, "waiting") == 3).await;
        assert_eq!(figure(&pool, "checkedOut"), 1, "{mode}");
        assert_eq!(running.json("/health").await["status"], "degraded", "{mode}");
        sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
        assert!(requests.join_all().await.iter().all(|status| *status == 200), "{mode}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_rules_ask_for_metrics_that_exist() {
    let rules = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alerts.yml")).unwrap();
    let asked: Vec<&str> = rules
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("tidegate_"))
        .collect();
    assert!(asked.len() >= 7, "{asked:?}");
    let running = Running::plain(MODES[0], &Data::new(Kind::Sqlite).await).await;
    let page = running.get("/metrics").await.text().await.unwrap();
    for name in asked {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} is not in\n{page}");
    }
    running.stop().await;
}
