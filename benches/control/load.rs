//! Requests at a steady rate through each gateway, over connections that are kept and made anew when a gateway is.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Gateway;

/// Connections to each gateway.
const CONNECTIONS: usize = 4;

/// How many different failures are told of.
const TOLD: usize = 5;

/// Who asks: a number for each request from 0 on, and what comes of it.
pub(crate) type Users = Arc<dyn Fn(u64) -> User + Send + Sync>;

/// A user, and what is known of the decision about it.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    /// Whether its requests are traced.
    pub(crate) traced: bool,
    /// The variant that it has to get, if only one is right.
    pub(crate) variant: Option<&'static str>,
}

/// What came of the requests.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) asked: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Users who got another variant than is right.
    pub(crate) flipped: AtomicU64,
    told: Mutex<Vec<String>>,
}

impl Results {
    fn fail(&self, what: String) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        let mut told = self.told.lock().unwrap();
        if told.len() < TOLD {
            told.push(what);
        }
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Some of the failures.
    pub(crate) fn told(&self) -> String {
        self.told.lock().unwrap().join("; ")
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    pub(crate) results: Arc<Results>,
}

impl Load {
    /// Sends `rate` requests a second through each gateway.
    pub(crate) fn start(gateways: &[Arc<Gateway>], rate: f64, users: &Users) -> Self {
        let (stop, results) = (Arc::new(AtomicBool::new(false)), Arc::new(Results::default()));
        let number = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for (index, gateway) in gateways.iter().enumerate() {
            for _ in 0..CONNECTIONS {
                let (gateway, users, number) = (Arc::clone(gateway), Arc::clone(users), Arc::clone(&number));
                let (stop, results) = (Arc::clone(&stop), Arc::clone(&results));
                tasks.spawn(async move {
                    let mut beats = interval(Duration::from_secs_f64(CONNECTIONS as f64 / rate));
                    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
                    let mut connection = None;
                    while !stop.load(Ordering::SeqCst) {
                        beats.tick().await;
                        let user = users(number.fetch_add(1, Ordering::SeqCst));
                        ask(&gateway, index, &mut connection, &user, &results).await;
                    }
                });
            }
        }
        Self { stop, tasks, results }
    }

    /// Stops, once each request under way has its answer.
    pub(crate) async fn stop(self) -> Arc<Results> {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        self.results
    }
}

async fn ask(gateway: &Gateway, index: usize, kept: &mut Option<Connection>, user: &User, results: &Results) {
    let Some(place) = gateway.place() else {
        *kept = None;
        return;
    };
    results.asked.fetch_add(1, Ordering::SeqCst);
    let asked = async {
        let mut connection = match kept.take().filter(|connection| connection.address == place.http) {
            Some(connection) => connection,
            None => Connection::open(place.http).await?,
        };
        let end = if user.traced { "traced" } else { "plain" };
        let answer = connection.ask(&format!("/api/v1/x/{index}/{end}"), &user.name).await?;
        Ok::<_, io::Error>((answer, connection))
    };
    match asked.await {
        Ok((answer, connection)) => {
            *kept = Some(connection);
            if answer.status != "200" {
                results.fail(format!("status {}", answer.status));
            }
            if user.variant.is_some_and(|variant| variant != answer.variant) {
                results.flipped.fetch_add(1, Ordering::SeqCst);
            }
        }
        Err(error) => results.fail(error.to_string()),
    }
}

/// A connection to a gateway.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    stream: TcpStream,
}

/// What a request was answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) variant: String,
}

impl Connection {
    pub(crate) async fn open(address: String) -> io::Result<Self> {
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream })
    }

    pub(crate) async fn ask(&mut self, path: &str, user: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a.test\r\nx-user-id: {user}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let (mut buffer, mut filled) = ([0; 4096], 0);
        loop {
            let read = self.stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(io::Error::other(format!("closed after {filled} bytes of an answer")));
            }
            filled += read;
            let text = String::from_utf8_lossy(&buffer[..filled]);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let field = |name: &str| {
                head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
            };
            let length = field("content-length").and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let variant = field("x-tidegate-variant").map_or_else(String::new, |(_, variant)| variant.to_owned());
                return Ok(Answer { status, variant });
            }
        }
    }
}
