//! The real gateway, as an operator starts it, in a directory of its own: to be killed and started again.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::upstream::Upstreams;
use crate::{DEADLINE, eventually};

const FLAG: &str = "async-database";

/// A failing canary is no reason to end a proof: guards are given where one is to be taken out.
const PATIENT: &str = "[guard]\nharm_budget = 1000000000\n";

fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tidegate").into(), PathBuf::from)
}

/// Where a gateway can be reached at the moment, if it runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) http: String,
    pub(crate) admin: String,
}

/// A gateway's directory, and the gateway in it when it runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    directory: TempDir,
    client: Client,
    place: Mutex<Option<Place>>,
    process: tokio::sync::Mutex<Option<Child>>,
}

impl Gateway {
    /// A gateway that is not started yet. Its canary gets `share` percent; `store` is a URL, or empty for a file of its own.
    pub(crate) fn new(upstreams: &Upstreams, store: &str, share: f64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        std::fs::create_dir(directory.path().join("flags")).unwrap();
        let store = if store.is_empty() { String::new() } else { format!("[store]\nurl = \"{store}\"\n") };
        let [stable, canary] = upstreams.addresses();
        write(
            "tidegate.toml",
            format!(
                "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{store}\
                 [backends.sync]\nservers = [\"{stable}\"]\n[backends.async]\nservers = [\"{canary}\"]\n"
            ),
        );
        let flag = format!("release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = {share}\n{PATIENT}");
        write(&format!("flags/{FLAG}.toml"), flag);
        let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        Self { directory, client, place: Mutex::default(), process: tokio::sync::Mutex::default() }
    }

    /// `count` gateways over one store, all of them running.
    pub(crate) async fn fleet(count: usize, upstreams: &Upstreams, store: &str, share: f64) -> Vec<Arc<Self>> {
        let mut fleet = Vec::new();
        for _ in 0..count {
            let gateway = Arc::new(Self::new(upstreams, store, share));
            gateway.start().await;
            fleet.push(gateway);
        }
        fleet
    }

    /// Starts it, and waits until it serves.
    pub(crate) async fn start(&self) {
        // It ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary()).arg("serve");
        command.current_dir(self.directory.path()).env_clear().kill_on_drop(true);
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        command.stdin(Stdio::null()).stderr(log).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut greeting = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = async |name: &str| loop {
            let line = timeout(DEADLINE, greeting.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("the gateway did not start: {}", self.log()));
            if let Some(address) = line.trim().strip_prefix(name) {
                return address.trim().to_owned();
            }
        };
        let (http, admin) = (address("gateway").await, address("admin").await);
        // Whoever reads the greeting goes on reading it, so that nothing is ever written into a closed pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = greeting.next_line().await {} });
        *self.process.lock().await = Some(process);
        let http = http.trim_start_matches("http://").to_owned();
        *self.place.lock().unwrap() = Some(Place { http, admin });
    }

    /// Ends it at once, without a chance to tidy up.
    pub(crate) async fn kill(&self) {
        *self.place.lock().unwrap() = None;
        if let Some(mut process) = self.process.lock().await.take() {
            process.kill().await.unwrap();
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.place.lock().unwrap().clone()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// What the admin API answers; the problem's detail, or what became of the connection, if it does not.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let place = self.place().ok_or("it does not run")?;
        let request = self.client.request(method, format!("{}{path}", place.admin));
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        let good = answer.status().is_success();
        let body: Value = answer.json().await.map_err(|error| format!("{error:?}"))?;
        if good { Ok(body) } else { Err(body["detail"].as_str().unwrap_or_default().to_owned()) }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        self.call(Method::GET, path, None).await
    }

    /// The flag's status.
    pub(crate) async fn flag(&self) -> Result<Value, String> {
        self.get(&format!("/api/v1/flags/{FLAG}")).await
    }

    /// Changes the rollout as `body` says.
    pub(crate) async fn change(&self, body: &Value) -> Result<Value, String> {
        self.call(Method::PATCH, &format!("/api/v1/flags/{FLAG}"), Some(body)).await
    }

    /// Sets the percentage.
    pub(crate) async fn set(&self, percentage: f64, reason: &str) -> Result<Value, String> {
        self.change(&json!({"percentage": percentage, "reason": reason})).await
    }

    /// Does something to the flag.
    pub(crate) async fn act(&self, action: &str, reason: &str) -> Result<Value, String> {
        let path = format!("/api/v1/flags/{FLAG}/{action}");
        self.call(Method::POST, &path, Some(&json!({"reason": reason}))).await
    }

    /// Waits until the flag's status has this to say.
    pub(crate) async fn until(&self, field: &str, value: &Value) {
        let holds = async || self.flag().await.is_ok_and(|flag| flag[field] == *value);
        eventually(&format!("`{field}` is {value}"), holds).await;
    }

    /// Whether `name` was added to the beta list.
    pub(crate) async fn has_beta(&self, name: &str) -> Result<bool, String> {
        let page = self.get(&format!("/api/v1/flags/{FLAG}/beta?limit=1000")).await?;
        Ok(page["users"].as_array().unwrap().iter().any(|user| user["user"] == name && user["source"] == "added"))
    }

    /// The newest `limit` events, newest first.
    pub(crate) async fn events(&self, limit: usize) -> Result<Vec<Value>, String> {
        let page = self.get(&format!("/api/v1/events?flag={FLAG}&limit={limit}")).await?;
        Ok(page["events"].as_array().unwrap().clone())
    }

    /// Every event, newest first.
    pub(crate) async fn all_events(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let before = all.last().map(|event| format!("&before={}", event["id"])).unwrap_or_default();
            let page = self.get(&format!("/api/v1/events?flag={FLAG}&limit=1000{before}")).await.unwrap();
            let events = page["events"].as_array().unwrap().clone();
            if events.is_empty() {
                return all;
            }
            all.extend(events);
        }
    }

    /// Whether `tidegate history --verify` finds the audit trail whole; what it says if not.
    pub(crate) async fn verify(&self) -> Result<(), String> {
        let mut command = Command::new(binary());
        command.args(["history", "--verify"]).current_dir(self.directory.path()).env_clear();
        command.env("TIDEGATE_ADMIN", self.place().unwrap().admin).stdin(Stdio::null());
        let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
        let said = || String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(said()) }
    }
}
