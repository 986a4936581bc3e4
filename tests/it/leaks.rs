//! However requests end, nothing of them stays: no task, no connection, no file descriptor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::faults::{Fault, misbehave};
use crate::harness::{DEADLINE, FLAG, Gateway, Site, eventually, flag_text, read_to_end};
use crate::upstream::{Upstream, nobody};

/// How many do the same at once.
const CROWD: usize = 5;

/// What is counted of a gateway. The metrics are told on a connection of the admin API that is there each time.
type Standing = BTreeMap<String, f64>;

async fn standing(gateway: &Gateway) -> Standing {
    let text = gateway.admin("/metrics").await.text().await.unwrap();
    let told = text.lines().filter(|line| {
        ["tidegate_tasks{", "tidegate_requests_in_flight ", "tidegate_client_connections "]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let told = told.map(|line| line.rsplit_once(' ').unwrap());
    let mut standing: Standing = told.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect();
    assert_eq!(standing.len(), 6, "{text}");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap().count();
    standing.insert("file descriptors".to_owned(), descriptors as f64);
    standing
}

/// Waits until `gateway` has no more of anything than in `before`.
async fn is_back(gateway: &Gateway, before: &Standing, after: &str) {
    let mut now = Standing::new();
    let looked = async {
        let mut looks = interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            now = standing(gateway).await;
            if now.iter().all(|(name, count)| *count <= before[name]) {
                return;
            }
        }
    };
    let in_time = timeout(DEADLINE, looked).await.is_ok();
    assert!(in_time, "{after} something is left: {now:#?}, and before there was {before:#?}");
}

/// A server that does to everybody what it was last told to.
struct Faulty {
    address: String,
    fault: Arc<Mutex<Fault>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Faulty {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (fault, asked) = (Arc::new(Mutex::new(Fault::Stalls)), Arc::new(AtomicUsize::new(0)));
        let (done, counted) = (Arc::clone(&fault), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let fault = *done.lock();
                tokio::spawn(misbehave(stream, fault));
            }
        });
        Self { address, fault, asked, task }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that changes the protocol, sends back what it gets, and resets the connection when it is told to.
async fn switching() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes).await;
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                let _ = stream.write_all(switch).await;
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    if bytes[..length].contains(&b'!') {
                        stream.set_zero_linger().unwrap();
                        return;
                    }
                    let _ = stream.write_all(&bytes[..length]).await;
                }
            });
        }
    });
    (address, task)
}

/// A connection on which `bytes` were sent.
async fn send(gateway: &Gateway, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    // Whoever is refused may be so before all is sent.
    let _ = stream.write_all(bytes.as_bytes()).await;
    stream
}

/// Sends this and hears the answer to its end.
async fn exchange(gateway: &Gateway, bytes: &str) -> String {
    read_to_end(&mut send(gateway, bytes).await).await
}

fn request(method: &str, path: &str, user: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nx-user-id: {user}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
}

fn http2() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

/// A connection that speaks another protocol by now.
async fn switched(gateway: &Gateway) -> TcpStream {
    let ask = "GET /switch HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = send(gateway, ask).await;
    let mut first = [0; 12];
    timeout(DEADLINE, stream.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 101");
    stream
}

/// What is before the gateway: whom each test does harm to, or who does.
struct Scene {
    gateway: Gateway,
    stable: Upstream,
    canary: Faulty,
}

impl Scene {
    /// Those whom the canary fails, those who are rescued, and those of whom it gets copies.
    async fn every_fault(&self, crowd: usize) {
        let gateway = &self.gateway;
        for fault in Fault::ALL {
            *self.canary.fault.lock() = fault;
            let path = if fault == Fault::Refuses { "/gone/x" } else { "/api/v1/x" };
            let ask = async |method: &str, user: &str| {
                let answer = exchange(gateway, &request(method, path, user)).await;
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{fault:?}: {answer}");
            };
            let of_http2 = async || {
                let request = http2().get(format!("{}{path}", gateway.http)).header("x-user-id", "alice");
                // However it ends.
                let asked = async {
                    if let Ok(answer) = request.send().await {
                        let _ = answer.bytes().await;
                    }
                };
                timeout(DEADLINE, asked).await.unwrap();
            };
            let each = (0..crowd).map(async |_| {
                tokio::join!(ask("GET", "alice"), ask("POST", "alice"), ask("GET", "carol"), of_http2());
            });
            join_all(each).await;
        }
    }

    /// Those who leave in the middle, over either protocol.
    async fn hung_up(&self, crowd: usize) {
        let gateway = &self.gateway;
        *self.canary.fault.lock() = Fault::Stalls;
        for path in ["/slow", "/api/v1/slow"] {
            let arrived = || self.stable.requests() + self.canary.asked.load(Ordering::SeqCst);
            let before = arrived();
            let all_there = || async { arrived() >= before + 2 * crowd };
            let requests: Vec<_> = (0..crowd).map(|_| request("POST", path, "alice")).collect();
            let over_http1 = join_all(requests.iter().map(|request| send(gateway, request)));
            let clients: Vec<_> = (0..crowd).map(|_| http2()).collect();
            let over_http2 = clients
                .iter()
                .map(|client| client.post(format!("{}{path}", gateway.http)).header("x-user-id", "alice").send());
            let over_http2 = join_all(over_http2);
            tokio::select! {
                _ = async { tokio::join!(over_http1, async { eventually("all have arrived", all_there).await }) } => {}
                // On a slow machine the gateway may have given up waiting for the canary.
                _ = over_http2 => {}
            }
        }
        for _ in 0..crowd {
            let head = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
            for begun in ["", "GET", "GET /x HTTP/1.1\r\nhost: a\r\n", head, &format!("{head}some")] {
                drop(send(gateway, begun).await);
            }
            drop(send(gateway, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
            drop(send(gateway, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x05\x01\x04\0\0\0\x01").await);
        }
    }

    /// Those who are refused.
    async fn refused(&self, crowd: usize) {
        for _ in 0..crowd {
            for wrong in [
                "what?\r\n\r\n",
                "GET /x HTTP/1.1\r\n\r\n",
                "GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
                "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
                "GET /x HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
            ] {
                let answer = exchange(&self.gateway, wrong).await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{wrong:?}: {answer}");
            }
            let not_http2 = exchange(&self.gateway, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand nothing of the kind").await;
            assert!(!not_http2.contains("HTTP/1.1"), "{not_http2}");
        }
    }

    /// Those who change the protocol, and then one side or the other breaks off.
    async fn switched(&self, crowd: usize) {
        for _ in 0..crowd {
            for last in ["", "said", "!"] {
                let mut stream = switched(&self.gateway).await;
                stream.write_all(last.as_bytes()).await.unwrap();
                if last == "!" {
                    read_to_end(&mut stream).await;
                }
            }
        }
    }

    async fn everything(&self, crowd: usize) {
        self.every_fault(crowd).await;
        self.hung_up(crowd).await;
        self.refused(crowd).await;
        self.switched(crowd).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_requests_however_they_end() {
    let (stable, canary) = (Upstream::start().await, Faulty::start().await);
    let ((gone, _bound), (switch, switching)) = (nobody(), switching().await);
    // A connection that is kept for the next request is none that was left over: none is kept for long.
    let site = Site::with_servers(stable.address(), &canary.address);
    site.write(
        "tidegate.toml",
        &format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
             [backends.sync]\nservers = [\"{}\"]\ntimeouts = {{ idle = \"50ms\" }}\n\
             [backends.async]\nservers = [\"{}\"]\ntimeouts = {{ read = \"300ms\", idle = \"50ms\" }}\n\
             [backends.gone]\nservers = [\"{gone}\"]\n[backends.switch]\nservers = [\"{switch}\"]\n\
             [[routes]]\npath = \"/api/v1/\"\nflag = \"{FLAG}\"\n[[routes]]\npath = \"/gone/\"\nflag = \"gone\"\n\
             [[routes]]\npath = \"/switch\"\nbackend = \"switch\"\n[[routes]]\npath = \"/\"\nbackend = \"sync\"\n",
            stable.address(),
            canary.address
        ),
    );
    // It may fail as it likes.
    let patient = "[guard]\nmin_requests = 1000000\nharm_budget = 1000000\n";
    let shadow = "[shadow]\npercentage = 100\nnoise = 100\n";
    site.write("flags/async-database.toml", &format!("{}{patient}{shadow}", flag_text(0.0)));
    site.write("flags/gone.toml", &format!("{}{patient}", flag_text(0.0).replace("\"async\"", "\"gone\"")));
    let scene = Scene { gateway: site.start().await, stable, canary };
    let gateway = &scene.gateway;

    // What is made once, when it is first needed, is there after this.
    let before = standing(gateway).await;
    scene.everything(1).await;
    let quiet = || async {
        let now = standing(gateway).await;
        ["tidegate_requests_in_flight", "tidegate_client_connections", "tidegate_tasks{runtime=\"copies\"}"]
            .iter()
            .all(|name| now[*name] == before[*name])
            && now["tidegate_tasks{runtime=\"data\"}"] <= before["tidegate_tasks{runtime=\"data\"}"]
    };
    eventually("all is quiet", quiet).await;
    let before = standing(gateway).await;

    // What is under way is seen.
    let held = switched(gateway).await;
    let now = standing(gateway).await;
    for (name, more) in [
        ("tidegate_requests_in_flight", 1.0),
        ("tidegate_client_connections", 1.0),
        ("tidegate_tasks{runtime=\"data\"}", 1.0),
        ("file descriptors", 2.0),
    ] {
        assert!(now[name] >= before[name] + more, "{name}: {now:#?} {before:#?}");
    }
    drop(held);
    is_back(gateway, &before, "after one request").await;

    scene.every_fault(CROWD).await;
    is_back(gateway, &before, "after faults of the canary").await;
    scene.hung_up(CROWD).await;
    is_back(gateway, &before, "after clients that hung up").await;
    scene.refused(CROWD).await;
    is_back(gateway, &before, "after requests that were refused").await;
    scene.switched(CROWD).await;
    is_back(gateway, &before, "after upgrades").await;

    // The faults were met: the canary was asked to the end, rescued and copied to.
    assert_eq!(gateway.flag().await["phase"], "manual");
    assert!(gateway.metric(&format!("tidegate_rescued_requests_total{{flag=\"{FLAG}\"}}")).await > 0.0);
    let copies = format!("tidegate_shadow_requests_total{{flag=\"{FLAG}\",result=\"failed\"}}");
    assert!(gateway.metric(&copies).await > 0.0);
    switching.abort();
}
