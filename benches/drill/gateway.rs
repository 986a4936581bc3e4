//! The real gateway, as an operator starts it, in a directory of its own.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Long enough for a start on a busy machine.
const START: Duration = Duration::from_secs(20);

const FLAG: &str = "async-database";

#[derive(Debug)]
pub(crate) struct Gateway {
    _directory: TempDir,
    _process: Child,
    client: Client,
    http: String,
    admin: String,
}

impl Gateway {
    /// Starts a gateway whose canary gets `share` percent.
    pub(crate) async fn start(stable: &str, canary: &str, share: f64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        std::fs::create_dir(directory.path().join("flags")).unwrap();
        write(
            "tidegate.toml",
            format!(
                "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
                 [backends.sync]\nservers = [\"{stable}\"]\n[backends.async]\nservers = [\"{canary}\"]\n"
            ),
        );
        let flag = format!("release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = {share}\n");
        write(&format!("flags/{FLAG}.toml"), flag);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("serve").current_dir(directory.path()).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut greeting = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = async |name: &str| loop {
            let line = timeout(START, greeting.next_line()).await.unwrap().unwrap().unwrap();
            if let Some(address) = line.trim().strip_prefix(name) {
                return address.trim().to_owned();
            }
        };
        let (http, admin) = (address("gateway").await, address("admin").await);
        // Whoever reads the greeting goes on reading it, so that nothing is ever written into a closed pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = greeting.next_line().await {} });
        Self { _directory: directory, _process: process, client: Client::new(), http, admin }
    }

    /// The status that a new user's request is answered with.
    pub(crate) async fn ask(&self, user: u64) -> u16 {
        let request = self.client.get(format!("{}/api/v1/x", self.http)).header("x-user-id", format!("user-{user}"));
        request.send().await.unwrap().status().as_u16()
    }

    /// When the canary was rolled back, if it was.
    pub(crate) async fn rolled_back_at(&self) -> Option<SystemTime> {
        let url = format!("{}/api/v1/flags/{FLAG}", self.admin);
        let flag: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        let at: jiff::Timestamp = flag["rollback"]["at"].as_str()?.parse().unwrap();
        Some(at.into())
    }
}
