//! A backend on a port of its own, and looks into its database.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use tidegate::backend::{self, Config, Error, Fault, Mode, PoolConfig};

pub(crate) const MODES: [Mode; 2] = [Mode::Sync, Mode::Async];

pub(crate) const PARSE_JD: &str = "/api/v1/parse-jd";

/// How long anything may take that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A backend that serves on a port of its own.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) base: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

pub(crate) fn url_of(directory: &TempDir) -> String {
    format!("sqlite://{}", file_of(directory).display())
}

pub(crate) fn file_of(directory: &TempDir) -> PathBuf {
    directory.path().join("interview.db")
}

impl Running {
    pub(crate) async fn start(mode: Mode, directory: &TempDir, pool: PoolConfig, fault: Fault) -> Self {
        let backend = backend::open(Config { mode, database_url: url_of(directory), pool, fault }).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(backend::serve(listener, backend, async move {
            stopped.await.unwrap();
        }));
        Self { client: Client::new(), base, stop, served }
    }

    pub(crate) async fn plain(mode: Mode, directory: &TempDir) -> Self {
        Self::start(mode, directory, PoolConfig::default(), Fault::default()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.base);
        self.client.get(url).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        let url = format!("{}{path}", self.base);
        self.client.post(url).json(body).send().await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.served).await.unwrap().unwrap().unwrap();
    }

    /// Asks for `path` and looks at the pool's figures, until they are as wanted.
    pub(crate) async fn pool_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let polled = async {
            loop {
                assert_eq!(self.get(path).await.status(), 200);
                let body: Value = self.get("/monitoring/database").await.json().await.unwrap();
                let pool = body.get("pool").unwrap();
                if wanted(pool) {
                    return pool.clone();
                }
            }
        };
        tokio::time::timeout(DEADLINE, polled).await.unwrap()
    }
}

pub(crate) fn figure(object: &Value, name: &str) -> u64 {
    object.get(name).and_then(Value::as_u64).unwrap()
}

pub(crate) async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

/// Every row of the database as text.
pub(crate) async fn rows(file: &Path) -> String {
    let mut connection = connect(file).await;
    let mut dump = String::new();
    let questions: Vec<(String, String, String, String, i64)> =
        sqlx::query_as("SELECT id, text, category, difficulty, usage_count FROM questions ORDER BY id")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    for question in questions {
        writeln!(dump, "{question:?}").unwrap();
    }
    let roles: Vec<(String, String)> = sqlx::query_as("SELECT role, question_id FROM question_roles ORDER BY 1, 2")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let skills: Vec<(String, String)> = sqlx::query_as("SELECT question_id, skill FROM question_skills ORDER BY 1, 2")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    writeln!(dump, "{roles:?}\n{skills:?}").unwrap();
    connection.close().await.unwrap();
    dump
}

pub(crate) async fn usage_sum(file: &Path) -> i64 {
    let mut connection = connect(file).await;
    let sum = sqlx::query_scalar("SELECT SUM(usage_count) FROM questions").fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    sum
}

/// Starts a parse-jd request that cannot finish: this test holds the write lock. Returns once it has its connection.
pub(crate) async fn stuck_request(running: &Running) -> JoinHandle<Response> {
    let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
    let asked = json!({"role": "backend", "jobDescription": "Rust", "count": 1});
    let request = tokio::spawn(async move { client.post(url).json(&asked).send().await.unwrap() });
    running.pool_until("/health", |pool| figure(pool, "checkedOut") == 1).await;
    request
}
