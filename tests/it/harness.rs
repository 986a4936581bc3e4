//! A gateway as an operator starts it: the real binary, in a directory of its own, on ports that the system chooses.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{interval, timeout};

use crate::upstream::Upstream;

/// Long enough for anything that works, on a machine that is slow and busy: longer than a stop waits for requests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The flag of most tests.
pub(crate) const FLAG: &str = "async-database";

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waited = async {
        let mut looks = interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            if condition().await {
                return;
            }
        }
    };
    timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// A flag file's text.
pub(crate) fn flag_text(percentage: f64) -> String {
    format!(
        "enabled = true\nrelease = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = {percentage}\n\
         [beta]\nusers = [\"alice\", \"bob\"]\n"
    )
}

/// A directory to start gateways in, and what is in it.
#[derive(Debug)]
pub(crate) struct Site {
    directory: TempDir,
}

impl Site {
    /// A site whose backends are at `stable` and `canary`.
    pub(crate) fn with_servers(stable: &str, canary: &str) -> Self {
        Self::with_impatience(stable, canary, "30s")
    }

    /// The same, with a canary that has `read` to answer.
    pub(crate) fn with_impatience(stable: &str, canary: &str, read: &str) -> Self {
        let site = Self::empty();
        site.write(
            "tidegate.toml",
            &format!(
                "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
                 [backends.sync]\nservers = [\"{stable}\"]\ntimeouts = {{ connect = \"5s\" }}\n\
                 [backends.async]\nservers = [\"{canary}\"]\ntimeouts = {{ connect = \"5s\", read = \"{read}\" }}\n"
            ),
        );
        site
    }

    /// Lets the canary fail as it likes: on a slow machine the judge has the time to take it out between two requests.
    pub(crate) fn without_judge(self) -> Self {
        let guard = "[guard]\nmin_requests = 1000000\nharm_budget = 1000000\n";
        self.write("flags/async-database.toml", &format!("{}{guard}", flag_text(10.0)));
        self
    }

    /// Lets the canary's failures be seen.
    pub(crate) fn without_rescue(self) -> Self {
        let config = std::fs::read_to_string(self.path().join("tidegate.toml")).unwrap();
        self.write("tidegate.toml", &config.replace("[backends.async]\n", "[backends.async]\nrescue = false\n"));
        self
    }

    /// A site with the built-in backends.
    pub(crate) fn builtin() -> Self {
        let site = Self::empty();
        site.write("tidegate.toml", "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n");
        site
    }

    fn empty() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        site.write("flags/async-database.toml", &flag_text(10.0));
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn flag_file(&self) -> PathBuf {
        self.path().join("flags/async-database.toml")
    }

    /// Writes a file, making the directories above it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Adds to the configuration.
    pub(crate) fn configure(&self, text: &str) {
        let config = std::fs::read_to_string(self.path().join("tidegate.toml")).unwrap();
        self.write("tidegate.toml", &format!("{config}{text}"));
    }

    /// A command of the real binary, in this directory, without anything of the tester's own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).current_dir(self.path()).env_clear().env("USER", "tester").stdin(Stdio::null());
        command.kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        timeout(DEADLINE, self.command(arguments).output()).await.unwrap().unwrap()
    }

    /// Starts a gateway and waits until it serves.
    pub(crate) async fn start(&self) -> Gateway {
        self.start_with(&[]).await
    }

    /// Starts a gateway whose files cannot grow over `blocks` of 512 bytes, as on a full disk.
    pub(crate) async fn start_on_full_disk(&self, blocks: usize) -> Gateway {
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" serve 2>/dev/null");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_tidegate")]);
        command.current_dir(self.path()).stdin(Stdio::null()).kill_on_drop(true);
        self.spawn(command).await
    }

    /// Starts a gateway with further arguments.
    pub(crate) async fn start_with(&self, arguments: &[&str]) -> Gateway {
        let mut command = self.command(&["serve", "--log-format", "json"]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("log")).unwrap();
        command.args(arguments).stderr(log);
        self.spawn(command).await
    }

    /// Starts what `command` says, and waits until it serves.
    pub(crate) async fn spawn(&self, mut command: Command) -> Gateway {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut greeting = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut https = None;
        let mut address = async |name: &str| loop {
            let line = timeout(DEADLINE, greeting.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("the gateway did not start:\n{}", self.log()));
            if let Some(address) = line.trim().strip_prefix("with TLS https://") {
                https = Some(address.to_owned());
            }
            if let Some(address) = line.trim().strip_prefix(name) {
                return address.trim().to_owned();
            }
        };
        let (http, admin) = (address("gateway").await, address("admin").await);
        // Nobody reads the rest of the greeting, but the pipe has to stay open for it.
        let stdout = greeting.into_inner().into_inner();
        Gateway { process, _stdout: stdout, http, https, admin, client: Client::new() }
    }

    /// What gateways have logged here up to now.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }
}

/// Two well-behaved upstreams and a gateway in front of them.
pub(crate) async fn pair() -> (Upstream, Upstream, Site, Gateway) {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    let gateway = site.start().await;
    (stable, canary, site, gateway)
}

/// A running gateway. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Child,
    _stdout: ChildStdout,
    pub(crate) http: String,
    /// The address, without a scheme, where it speaks TLS.
    pub(crate) https: Option<String>,
    pub(crate) admin: String,
    pub(crate) client: Client,
}

impl Gateway {
    /// A request through the gateway as `user`.
    pub(crate) fn get(&self, path: &str, user: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.http)).header("x-user-id", user)
    }

    /// The variant that serves `user`.
    pub(crate) async fn variant(&self, user: &str) -> String {
        let response = self.get("/api/v1/x", user).send().await.unwrap();
        header(response.headers(), "x-tidegate-variant").unwrap().to_owned()
    }

    /// The gateway's address without its scheme.
    pub(crate) fn address(&self) -> &str {
        self.http.strip_prefix("http://").unwrap()
    }

    /// An answer of the admin API.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.admin)).send().await.unwrap()
    }

    /// An answer of the admin API, as JSON.
    pub(crate) async fn admin_json(&self, path: &str) -> Value {
        self.admin(path).await.json().await.unwrap()
    }

    /// The flag's status.
    pub(crate) async fn flag(&self) -> Value {
        self.admin_json(&format!("/api/v1/flags/{FLAG}")).await
    }

    /// Does something to the flag by way of the admin API.
    pub(crate) async fn act(&self, action: &str, body: Value) -> Response {
        let url = format!("{}/api/v1/flags/{FLAG}/{action}", self.admin);
        self.client.post(url).json(&body).send().await.unwrap()
    }

    /// Sets the percentage by way of the admin API.
    pub(crate) async fn set(&self, percentage: f64) -> Response {
        let url = format!("{}/api/v1/flags/{FLAG}", self.admin);
        self.client.patch(url).json(&serde_json::json!({"percentage": percentage})).send().await.unwrap()
    }

    /// The value of one metric, with its labels as they are written; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How many requests to `variant` ended in `outcome`.
    pub(crate) async fn outcomes(&self, variant: &str, outcome: &str) -> f64 {
        let labels = format!("flag=\"{FLAG}\",variant=\"{variant}\",outcome=\"{outcome}\"");
        self.metric(&format!("tidegate_requests_total{{{labels}}}")).await
    }

    /// Runs a command of the command line against this gateway.
    pub(crate) async fn cli(&self, site: &Site, arguments: &[&str]) -> Output {
        let mut command = site.command(arguments);
        timeout(DEADLINE, command.env("TIDEGATE_ADMIN", &self.admin).output()).await.unwrap().unwrap()
    }

    /// Lets files grow again, as on a disk with room.
    pub(crate) async fn make_room(&self) {
        let id = self.process.id().unwrap().to_string();
        let command = Command::new("prlimit").args(["--fsize=unlimited:unlimited", "--pid", &id]).status().await;
        assert!(command.unwrap().success());
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap().success());
    }

    /// Waits for the end, and says the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.process.wait()).await.unwrap().unwrap().code()
    }

    /// Kills it at once, without a chance to tidy up.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// A header's value as text.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// Asserts that `response` is a problem document of this status and kind, and gives its detail.
pub(crate) async fn problem(response: Response, status: u16, kind: &str) -> String {
    assert_eq!(response.status().as_u16(), status, "{response:?}");
    assert_eq!(header(response.headers(), CONTENT_TYPE.as_str()), Some("application/problem+json"));
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["type"], format!("urn:tidegate:problem:{kind}"));
    assert_eq!(problem["status"], status);
    problem["detail"].as_str().unwrap().to_owned()
}

/// Standard output of a command that must have succeeded.
#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Standard error of a command that must have failed with `code`.
#[track_caller]
pub(crate) fn stderr(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Reads what the other side sends until it closes.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is an end, too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
