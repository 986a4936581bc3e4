//! Private PostgreSQL clusters: real servers that live as long as the tests do, reached by a socket in a directory of
//! their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

use crate::harness::eventually;

/// Makes a cluster in a new directory, prints the directory, and serves it until standard input ends: when this process
/// does, however it does. Runs as whoever may run a server.
const SERVE: &str = r#"
set -eu
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
directory=$(mktemp -d /tmp/tidegate-test-pg.XXXXXX)
trap 'rm -rf "$directory"' EXIT
initdb --pgdata="$directory/data" --auth=trust --username=postgres --encoding=UTF8 --no-locale --no-sync >/dev/null
set --
if [ -n "${TLS_PORT:-}" ]; then
    (umask 077; printf %s "$TLS_CERTIFICATE" >"$directory/server.pem"; printf %s "$TLS_KEY" >"$directory/server.key")
    set -- -c listen_addresses=127.0.0.1 -p "$TLS_PORT" -c ssl=on -c ssl_cert_file="$directory/server.pem" \
        -c ssl_key_file="$directory/server.key"
fi
postgres -D "$directory/data" -c listen_addresses= -c unix_socket_directories="$directory" -c fsync=off \
    -c max_connections=400 -c shared_buffers=32MB -c autovacuum=off "$@" 2>"$directory/log" >/dev/null </dev/null &
echo "$directory"
cat >/dev/null
# It may have been restarted meanwhile, and be another process now.
server=$(head -n 1 "$directory/data/postmaster.pid" 2>/dev/null || true)
[ -z "$server" ] || kill -QUIT "$server" 2>/dev/null || true
for _ in $(seq 100); do [ -e "$directory/data/postmaster.pid" ] || break; sleep 0.1; done
"#;

/// Whom the server runs as, if this is root: PostgreSQL refuses to be that.
const UNPRIVILEGED: [&str; 4] = ["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"];

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|us| std::os::unix::fs::MetadataExt::uid(&us) == 0)
}

/// A running PostgreSQL.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    port: Option<u16>,
    /// Its standard input keeps the server up.
    _server: Child,
}

impl Cluster {
    /// A cluster of a test's own, to do harm to.
    pub(crate) fn start() -> Self {
        Self::serve(&[])
    }

    /// A cluster that can also be reached by TCP at this port, with TLS by this certificate and key.
    pub(crate) fn with_tls(port: u16, certificate: &str, key: &str) -> Self {
        Self::serve(&[("TLS_PORT", &port.to_string()), ("TLS_CERTIFICATE", certificate), ("TLS_KEY", key)])
    }

    fn serve(environment: &[(&str, &str)]) -> Self {
        let shell = ["sh", "-c", SERVE];
        let words: Vec<_> =
            if is_root() { UNPRIVILEGED.iter().chain(&shell).copied().collect() } else { shell.to_vec() };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(environment.iter().copied());
        let mut server = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line).unwrap();
        assert!(!line.is_empty(), "PostgreSQL did not start; scripts/setup.sh installs it");
        let port = environment.iter().find(|(name, _)| *name == "TLS_PORT").map(|(_, port)| port.parse().unwrap());
        Self { directory: line.trim().into(), port, _server: server }
    }

    /// The cluster that tests share which do it no harm.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Ends every session and the server, and starts it anew.
    pub(crate) async fn restart(&self) {
        let data = self.directory.join("data");
        let script = "PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1); \
                      pg_ctl -D \"$0\" -m immediate -w restart >/dev/null 2>&1 </dev/null";
        let shell = ["sh", "-c", script, data.to_str().unwrap()];
        let words: Vec<_> =
            if is_root() { UNPRIVILEGED.iter().chain(&shell).copied().collect() } else { shell.to_vec() };
        let done = tokio::process::Command::new(words[0]).args(&words[1..]).status().await.unwrap();
        assert!(done.success());
    }

    /// Lets the server hang with all of its sessions (`STOP`), or go on (`CONT`).
    pub(crate) async fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let script = format!("kill -{signal} {pid} $(pgrep -P {pid})");
        let done = tokio::process::Command::new("sh").args(["-c", &script]).status().await.unwrap();
        assert!(done.success());
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass();
        let options = if let Some(port) = self.port { options.port(port) } else { options };
        options.socket(&self.directory).username("postgres").database(database)
    }

    /// A new, empty database.
    pub(crate) async fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let options = self.options("postgres");
        eventually("PostgreSQL is up", || async { options.connect().await.is_ok() }).await;
        let mut connection = options.connect().await.unwrap();
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        Database { options: self.options(&name), directory: self.directory.clone(), name }
    }
}

/// A database of a test's own.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    options: PgConnectOptions,
    directory: PathBuf,
    name: String,
}

impl Database {
    /// Its URL, as both sqlx and libpq read it.
    pub(crate) fn url(&self) -> String {
        let Self { directory, name, .. } = self;
        format!("postgres://postgres@localhost/{name}?host={}", Path::display(directory))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }

    /// Changes a setting for every session, those there are included, which begin anew.
    pub(crate) async fn set(&self, setting: &str, value: &str) {
        let name = &self.name;
        let sql = format!("BEGIN READ WRITE; ALTER DATABASE {name} SET {setting} = {value}; COMMIT");
        self.connect().await.execute(AssertSqlSafe(sql)).await.unwrap();
        self.disconnect_all().await;
    }

    /// Ends every session, as a restart of the server does.
    pub(crate) async fn disconnect_all(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.connect().await.execute(sql).await.unwrap();
    }

    /// Whether the server lets anybody in; if not, whoever is in is put out, as when it is stopped.
    pub(crate) async fn admit(&self, everybody: bool) {
        let mut elsewhere = self.options.clone().database("postgres").connect().await.unwrap();
        let name = &self.name;
        let sql = format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS {everybody}; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut elsewhere).await.unwrap();
    }
}
