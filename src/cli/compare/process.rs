//! A target of load, and what it used of the machine.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::backend::Mode;
use crate::cli::CompareArgs;
use crate::clock;

/// How long a backend may take to start; migrating may take most of it.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How often memory and connections are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Ticks of the processor accounting in a second; Linux has shown 100 to user space on every platform since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

/// A service to put under load.
#[derive(Debug)]
pub(crate) struct Target {
    /// The variant.
    pub(crate) name: String,
    /// `host:port`.
    pub(crate) address: String,
    /// The process, if it is this command's own; it is killed when this ends.
    process: Option<Child>,
}

/// What a target used during a measurement; `None` where it cannot be known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    /// The most memory that was resident, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// The most connections to the database that were open.
    pub(crate) connections: Option<u64>,
    /// The most threads.
    pub(crate) threads: Option<u64>,
}

impl Target {
    /// A service that runs already.
    pub(crate) fn there(name: &str, url: &str) -> anyhow::Result<Self> {
        let Some(address) = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
            bail!("`{url}`: write it like http://127.0.0.1:8001");
        };
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
        Ok(Self { name: name.to_owned(), address, process: None })
    }

    /// Starts a built-in backend as a process of its own.
    pub(crate) async fn start(mode: Mode, args: &CompareArgs) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let mut command = Command::new(program);
        command.args(["backend", &mode.to_string(), "--listen", "127.0.0.1:0", "--log", "error"]);
        if let Some(config) = &args.config.config {
            command.arg("--config").arg(config);
        }
        if let Some(database) = &args.database {
            // Not as an argument: it may hold a password, and everybody sees arguments.
            command.env("TIDEGATE_DATABASE__URL", database);
        }
        if !args.query.is_zero() {
            command.arg("--fault").arg(format!("query={}ms", args.query.as_millis()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("a backend cannot be started")?;
        let Some(stdout) = process.stdout.take() else { bail!("a backend's output cannot be read") };
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START_LIMIT, lines.next_line()).await.context("a backend took too long to start")??;
        let Some(address) = line.as_deref().and_then(|line| line.rsplit_once("http://")).map(|(_, rest)| rest) else {
            bail!("the {mode} backend did not start; see above");
        };
        Ok(Self { name: mode.to_string(), address: address.to_owned(), process: Some(process) })
    }

    /// Watches what it uses for as long as `duration`, or until `stop` turns true.
    pub(crate) async fn watch(&self, duration: Duration, stop: &watch::Receiver<bool>) -> Usage {
        let id = self.process.as_ref().and_then(Child::id);
        let before = id.and_then(cpu_seconds);
        let mut usage = Usage::default();
        let mut looks = interval(LOOK);
        let end = clock::now() + duration;
        while clock::now() < end && !*stop.borrow() {
            looks.tick().await;
            usage.memory_bytes = usage.memory_bytes.max(id.and_then(|id| status(id, "VmRSS:")).map(|kib| kib * 1024));
            usage.threads = usage.threads.max(id.and_then(|id| status(id, "Threads:")));
            usage.connections = usage.connections.max(self.connections().await);
        }
        usage.cpu_seconds = id.and_then(cpu_seconds).zip(before).map(|(after, before)| after - before);
        usage
    }

    /// How many connections to its database are open, if it says so.
    async fn connections(&self) -> Option<u64> {
        let asked = async {
            let stream = TcpStream::connect(&self.address).await.ok()?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            let connection = tokio::spawn(async move { drop(connection.await) });
            let request = http::Request::get("/monitoring/database").header("host", &self.address);
            let answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).ok()?).await.ok()?;
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            connection.abort();
            let told: Value = serde_json::from_slice(&body).ok()?;
            let pool = told.get("pool")?;
            Some(pool.get("checkedOut")?.as_u64()?.saturating_add(pool.get("idle")?.as_u64()?))
        };
        timeout(LOOK, asked).await.ok().flatten()
    }
}

/// User and system time of a process, from `/proc/ID/stat`, fields 14 and 15 (`proc_pid_stat(5)`).
fn cpu_seconds(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// A number of `/proc/ID/status` (`proc_pid_status(5)`).
fn status(id: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
