//! A backend on a port of its own, and looks into its database, which is of either kind.

use std::fmt::Write as _;
use std::sync::Arc;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use sqlx::any::{AnyConnectOptions, AnyRow, install_default_drivers};
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use tidegate::backend::{self, Config, Error, Fault, Mode, PoolConfig};

use crate::harness::DEADLINE;
use crate::postgres::{Cluster, Database};

pub(crate) const MODES: [Mode; 2] = [Mode::Sync, Mode::Async];

pub(crate) const PARSE_JD: &str = "/api/v1/parse-jd";

/// The kinds of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];

/// Both modes on both kinds of database.
pub(crate) fn every() -> impl Iterator<Item = (Kind, Mode)> {
    KINDS.into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode)))
}

/// A database of a test's own.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Sqlite(Arc<TempDir>),
    Postgres(Arc<Database>),
}

impl Data {
    /// An empty one.
    pub(crate) async fn new(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => Self::Sqlite(Arc::new(TempDir::new().unwrap())),
            Kind::Postgres => Self::Postgres(Arc::new(Cluster::shared().database().await)),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite://{}/interview.db", directory.path().display()),
            Self::Postgres(database) => database.url(),
        }
    }

    pub(crate) async fn connect(&self) -> AnyConnection {
        install_default_drivers();
        let options: AnyConnectOptions = self.url().replace("sqlite://", "sqlite:").parse().unwrap();
        options.connect().await.unwrap()
    }

    /// How a transaction begins that keeps others from raising counts.
    pub(crate) async fn block(&self, connection: &mut AnyConnection) {
        let statements: &[&'static str] = match self {
            Self::Sqlite(_) => &["BEGIN IMMEDIATE"],
            Self::Postgres(_) => &["BEGIN", "LOCK TABLE questions IN EXCLUSIVE MODE"],
        };
        for statement in statements {
            sqlx::raw_sql(*statement).execute(&mut *connection).await.unwrap();
        }
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, statement: &str) -> u64 {
        let mut connection = self.connect().await;
        let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        done.rows_affected()
    }

    /// One number.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        let mut connection = self.connect().await;
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        let number = query.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    }

    /// One text.
    pub(crate) async fn text(&self, query: &str) -> String {
        let mut connection = self.connect().await;
        let text = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        text
    }

    pub(crate) async fn usage_sum(&self) -> i64 {
        self.number("SELECT CAST(SUM(usage_count) AS BIGINT) FROM questions").await
    }

    /// Every row of the service's tables as text, without what differs from run to run: sessions are numbered as they
    /// began, and moments are left out.
    pub(crate) async fn rows(&self) -> String {
        const QUERIES: [&str; 5] = [
            "SELECT id, text, category, difficulty, usage_count, difficulty_rank, discrimination, location, search \
             FROM questions ORDER BY 1",
            "SELECT role, question_id FROM question_roles ORDER BY 1, 2",
            "SELECT question_id, skill FROM question_skills ORDER BY 1, 2",
            "SELECT user_id, role, job_description, difficulty, plan, question_limit, status, ability, standard_error, \
             CASE WHEN ended_at IS NULL THEN 0 ELSE 1 END FROM sessions ORDER BY started_at, id",
            "SELECT s.user_id, q.position, q.question_id, q.answer, q.score, q.analysis, q.ability, q.standard_error, \
             CASE WHEN q.answered_at IS NULL THEN 0 ELSE 1 END \
             FROM session_questions q JOIN sessions s ON s.id = q.session_id ORDER BY s.started_at, s.id, q.position",
        ];
        let mut connection = self.connect().await;
        let mut dump = String::new();
        for query in QUERIES {
            for row in sqlx::query(query).fetch_all(&mut connection).await.unwrap() {
                writeln!(dump, "{}", text_of(&row)).unwrap();
            }
        }
        connection.close().await.unwrap();
        dump
    }
}

fn text_of(row: &AnyRow) -> String {
    let cell = |index| {
        row.try_get::<Option<String>, _>(index)
            .map(|text| format!("{text:?}"))
            .or_else(|_| row.try_get::<i64, _>(index).map(|number| number.to_string()))
            .or_else(|_| row.try_get::<i32, _>(index).map(|number| number.to_string()))
            .or_else(|_| row.try_get::<f64, _>(index).map(|number| format!("{number:.9}")))
            .unwrap()
    };
    (0..row.len()).map(cell).collect::<Vec<_>>().join("|")
}

/// A backend that serves on a port of its own.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) base: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

/// What a backend is started with.
pub(crate) fn config(mode: Mode, data: &Data) -> Config {
    Config {
        mode,
        database_url: data.url(),
        migrate: true,
        pool: PoolConfig::default(),
        ai: None,
        fault: Fault::default(),
    }
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let backend = backend::open(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(backend::serve(listener, backend, async move {
            stopped.await.unwrap();
        }));
        Self { client: Client::new(), base, stop, served }
    }

    pub(crate) async fn with_pool(mode: Mode, data: &Data, pool: PoolConfig) -> Self {
        Self::start(Config { pool, ..config(mode, data) }).await
    }

    pub(crate) async fn plain(mode: Mode, data: &Data) -> Self {
        Self::start(config(mode, data)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.base);
        self.client.get(url).send().await.unwrap()
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
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
                let body: Value = self.json("/monitoring/database").await;
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

/// Starts a parse-jd request that cannot finish: this test holds the write lock. Returns once it has its connection.
pub(crate) async fn stuck_request(running: &Running) -> JoinHandle<Response> {
    let (client, url) = (running.client.clone(), format!("{}{PARSE_JD}", running.base));
    let asked = json!({"role": "backend", "jobDescription": "Rust", "count": 1});
    let request = tokio::spawn(async move { client.post(url).json(&asked).send().await.unwrap() });
    running.pool_until("/health", |pool| figure(pool, "checkedOut") == 1).await;
    request
}
