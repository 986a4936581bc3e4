//! A private `PostgreSQL` with the settings of a server that keeps what it acknowledges, to do harm to.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use crate::eventually;

/// Runs its arguments with the programs of `PostgreSQL` at hand.
const WITH_PATH: &str = "PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1); \"$@\" >&2 </dev/null";

/// Takes away the server in the directory `$0`, whatever state it is in, once standard input ends: when this process does, however
/// it does.
const TAKE_AWAY: &str = r#"
trap '' TERM INT HUP
cat >/dev/null
server=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null || true)
if [ -n "$server" ]; then
    kill -CONT "$server" $(pgrep -P "$server") 2>/dev/null || true
    kill -QUIT "$server" 2>/dev/null || true
    for _ in $(seq 100); do [ -e "$0/data/postmaster.pid" ] || break; sleep 0.1; done
fi
umount --lazy "$0" 2>/dev/null || true
rm -rf "$0" "$0.log"
"#;

/// Whom the server runs as, if this is root: `PostgreSQL` refuses to be that.
const UNPRIVILEGED: [&str; 4] = ["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"];
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|us| std::os::unix::fs::MetadataExt::uid(&us) == 0)
}

/// Runs a program of `PostgreSQL` to its end; whether it went well.
fn run(words: &[&str]) -> bool {
    let shell = ["sh", "-c", WITH_PATH, "sh"];
    let unprivileged = if is_root() { UNPRIVILEGED.as_slice() } else { &[] };
    let all: Vec<_> = unprivileged.iter().chain(&shell).chain(words).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// A running server, reached by a socket in its directory.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    /// Takes it away.
    caretaker: Child,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::within(None).unwrap()
    }

    /// One whose disk has room for so many MiB; nothing if this system lets nobody mount one.
    pub(crate) fn on_small_disk(mebibytes: u32) -> Option<Self> {
        Self::within(Some(mebibytes))
    }

    fn within(mebibytes: Option<u32>) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("tidegate-control-pg.").tempdir_in("/tmp").unwrap().keep();
        if let Some(size) = mebibytes {
            let options = format!("size={size}m");
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&directory).status();
            if !mount.is_ok_and(|status| status.success()) {
                std::fs::remove_dir(&directory).unwrap();
                return None;
            }
        }
        let mut caretaker = Command::new("sh");
        caretaker.args(["-c", TAKE_AWAY]).arg(&directory).stdin(Stdio::piped());
        let cluster = Self { caretaker: caretaker.spawn().unwrap(), directory };
        if is_root() {
            std::os::unix::fs::chown(&cluster.directory, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = cluster.data();
        let initdb =
            ["initdb", "--pgdata", &data, "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"];
        assert!(run(&initdb), "PostgreSQL could not be made; scripts/setup.sh installs it");
        let file = format!("{data}/postgresql.conf");
        let settings = format!(
            "{}\nlisten_addresses = ''\nunix_socket_directories = '{}'\nmax_connections = 200\nshared_buffers = 32MB\n\
             min_wal_size = 32MB\nmax_wal_size = 64MB\nautovacuum = off\n",
            std::fs::read_to_string(&file).unwrap(),
            cluster.directory.display()
        );
        std::fs::write(&file, settings).unwrap();
        assert!(cluster.begin(), "PostgreSQL did not start");
        Some(cluster)
    }

    fn data(&self) -> String {
        self.directory.join("data").display().to_string()
    }

    /// What the server logs: not on its own disk, which may be full.
    fn log(&self) -> String {
        format!("{}.log", self.directory.display())
    }

    /// Starts it again; whether that went well.
    pub(crate) fn begin(&self) -> bool {
        run(&["pg_ctl", "-D", &self.data(), "-l", &self.log(), "-w", "start"])
    }

    /// Stops it, breaking off what is under way.
    pub(crate) fn stop(&self) {
        run(&["pg_ctl", "-D", &self.data(), "-m", "fast", "-w", "stop"]);
    }

    /// Ends the server as a crash does, and starts it anew.
    pub(crate) fn restart(&self) {
        assert!(run(&["pg_ctl", "-D", &self.data(), "-l", &self.log(), "-m", "immediate", "-w", "restart"]));
    }

    /// Whether the server runs.
    pub(crate) fn is_up(&self) -> bool {
        run(&["pg_ctl", "-D", &self.data(), "status"])
    }

    /// Lets the server hang with all of its sessions (`STOP`), or go on (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let script = format!("kill -{signal} {pid} $(pgrep -P {pid})");
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// Takes all the room that is left, or gives it back.
    pub(crate) fn fill(&self, full: bool) {
        let ballast = self.directory.join("ballast");
        if full {
            // It ends where the disk does.
            let _ = std::fs::write(&ballast, vec![0; 1 << 30]);
        } else {
            std::fs::remove_file(&ballast).unwrap();
        }
    }

    /// A new, empty database, by its URL.
    pub(crate) async fn database(&self, name: &str) -> String {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.directory).username("postgres");
        let options = options.database("postgres");
        eventually("PostgreSQL is up", || async { options.connect().await.is_ok() }).await;
        let mut connection = options.connect().await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        format!("postgres://postgres@localhost/{name}?host={}", Path::display(&self.directory))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.caretaker.stdin.take());
        let _ = self.caretaker.wait();
    }
}
