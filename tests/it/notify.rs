//! Webhooks are told what happens, at least once, whatever state they are in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{FLAG, Gateway, Site, eventually, header, stderr, stdout};
use crate::postgres::Cluster;
use crate::store::{Kind, Place};
use crate::upstream::nobody;

const SECRET: &str = "a secret of some length";

/// What a hook answers with if it shall not answer.
const HANG: u16 = 0;

/// A webhook that is scripted, and remembers what it was told.
pub(crate) struct Hook {
    pub(crate) address: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Script {
    status: AtomicU16,
    told: Mutex<Vec<(String, HeaderMap, String)>>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Script { status: AtomicU16::new(200), ..Script::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, script, task }
    }

    fn answer_with(&self, status: u16) {
        self.script.status.store(status, Ordering::Relaxed);
    }

    /// What was posted to `path` and answered well: headers and body.
    pub(crate) fn told(&self, path: &str) -> Vec<(HeaderMap, Value)> {
        let told = self.script.told.lock();
        let of_path = told.iter().filter(|(to, ..)| to == path);
        of_path.map(|(_, headers, body)| (headers.clone(), serde_json::from_str(body).unwrap())).collect()
    }

    fn events(&self, path: &str) -> Vec<String> {
        self.told(path).iter().map(|(_, body)| body["event"].as_str().unwrap().to_owned()).collect()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> StatusCode {
    let status = script.status.load(Ordering::Relaxed);
    if status == HANG {
        std::future::pending::<()>().await;
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    if status == 200 {
        let body = String::from_utf8(body.to_vec()).unwrap();
        script.told.lock().push((parts.uri.path().to_owned(), parts.headers, body));
    }
    StatusCode::from_u16(status).unwrap()
}

/// A signed channel to `/t` of the hook at `address`.
pub(crate) fn channel(address: &str) -> String {
    format!("[notify.ops]\nurl = \"http://{address}/t\"\nsecret = \"{SECRET}\"\n")
}

async fn roll_back(gateway: &Gateway, reason: &str) {
    assert_eq!(gateway.act("rollback", json!({"reason": reason})).await.status(), 200);
}

async fn sent(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("tidegate_notifications_total{{channel=\"ops\",result=\"{result}\"}}")).await
}

on_both!(every_kind_of_channel_is_told_in_its_own_words);

async fn every_kind_of_channel_is_told_in_its_own_words(kind: Kind) {
    let (hook, place) = (Hook::start().await, Place::new(kind).await);
    let address = &hook.address;
    place.site.configure(&format!(
        "{}[notify.chat]\nurl = \"http://{address}/s\"\nformat = \"slack\"\nevents = [\"rollback\"]\n\
         [notify.pager]\nurl = \"http://{address}/a\"\nformat = \"alertmanager\"\nevents = [\"rollback\", \"resume\"]\n",
        channel(address)
    ));
    let gateway = place.site.start().await;
    eventually("the channels are open", || async {
        gateway.metric("tidegate_notifications_waiting{channel=\"pager\"}").await == 0.0
            && gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"pager\"}")
            && gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"ops\"}")
            && gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"chat\"}")
    })
    .await;
    roll_back(&gateway, "orders <fail> & stay").await;
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    assert_eq!(gateway.act("pause", json!({})).await.status(), 200);
    assert_eq!(gateway.act("promote", json!({})).await.status(), 200);
    eventually("all is told", || async { hook.told("/t").len() >= 4 && hook.told("/a").len() >= 2 }).await;
    assert_eq!(hook.events("/t"), ["rollback", "resume", "pause", "promote"]);

    let (headers, body) = hook.told("/t").remove(0);
    assert_eq!((&body["flag"], &body["by"]), (&json!(FLAG), &json!("local")));
    assert_eq!((&body["old"]["percentage"], &body["new"]["phase"]), (&json!(10.0), &json!("rolled_back")));
    assert_eq!(body["rollback"]["cause"], "manual");
    assert_eq!(body["summary"], "async-database was rolled back by local: orders <fail> & stay");
    assert_eq!(header(&headers, "idempotency-key").unwrap(), body["id"]);
    let timestamp = header(&headers, "x-tidegate-timestamp").unwrap();
    let raw = hook.script.told.lock().iter().find(|(path, ..)| path == "/t").unwrap().2.clone();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{raw}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header(&headers, "x-tidegate-signature").unwrap(), format!("sha256={signature}"));

    let chat = hook.told("/s");
    assert_eq!(chat.len(), 1);
    let text = chat[0].1["text"].as_str().unwrap();
    assert!(text.ends_with("was rolled back by local: orders &lt;fail&gt; &amp; stay"), "{text}");
    let pager = hook.told("/a");
    let labels = json!({"alertname": "TidegateRollback", "event": "rollback", "flag": FLAG, "severity": "critical"});
    assert_eq!((&pager[0].1[0]["labels"], &pager[1].1[0]["labels"]), (&labels, &labels));
    assert!(pager[0].1[0]["endsAt"].as_str() > pager[0].1[0]["startsAt"].as_str());
    assert_eq!(pager[1].1[0]["endsAt"], pager[1].1[0]["startsAt"], "what is resumed is resolved");
    eventually("it is counted", || async { sent(&gateway, "sent").await == 4.0 }).await;
}

#[tokio::test]
async fn a_channel_that_fails_is_told_once_it_is_well() {
    let place = Place::new(Kind::Sqlite).await;
    let (address, socket) = nobody();
    place.site.configure(&channel(&address));
    let gateway = place.site.start().await;
    eventually("the channel is open", || async {
        gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"ops\"}")
    })
    .await;
    roll_back(&gateway, "refused").await;
    eventually("it failed", || async { sent(&gateway, "failed").await >= 1.0 }).await;
    let hook = Hook::on(socket.listen(16).unwrap());
    hook.answer_with(503);
    let failed = sent(&gateway, "failed").await;
    eventually("it failed again", || async { sent(&gateway, "failed").await > failed }).await;

    // It hangs, and nothing else does; then the gateway is killed in the middle of it.
    hook.answer_with(HANG);
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    assert_eq!(gateway.set(33.0).await.status(), 200);
    roll_back(&gateway, "hangs").await;
    gateway.kill().await;
    hook.answer_with(200);
    let gateway = place.site.start().await;
    eventually("all is told after the restart", || async { hook.told("/t").len() >= 3 }).await;
    assert_eq!(hook.events("/t"), ["rollback", "resume", "rollback"], "in order, each once");
    let reasons: Vec<_> = hook.told("/t").iter().map(|(_, body)| body["reason"].clone()).collect();
    assert_eq!(reasons, [json!("refused"), Value::Null, json!("hangs")]);

    // What is refused is not asked again.
    hook.answer_with(410);
    assert_eq!(gateway.act("resume", json!({})).await.status(), 200);
    eventually("it is given up", || async { sent(&gateway, "given_up").await == 1.0 }).await;
    hook.answer_with(200);
    roll_back(&gateway, "at last").await;
    eventually("the next is told", || async { hook.told("/t").len() >= 4 }).await;
    assert_eq!(hook.events("/t")[3], "rollback");
}

#[tokio::test]
async fn what_is_too_old_is_no_news() {
    let (hook, place) = (Hook::start().await, Place::new(Kind::Sqlite).await);
    place.site.configure(&format!("{}max_age = \"1ms\"\n", channel(&hook.address)));
    hook.answer_with(500);
    let gateway = place.site.start().await;
    eventually("the channel is open", || async {
        gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"ops\"}")
    })
    .await;
    roll_back(&gateway, "nobody hears it").await;
    eventually("it is given up", || async { sent(&gateway, "given_up").await == 1.0 }).await;
    eventually("nothing waits any more", || async {
        gateway.metric("tidegate_notifications_waiting{channel=\"ops\"}").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn of_a_fleet_one_gateway_tells() {
    let (hook, database) = (Hook::start().await, Cluster::shared().database().await);
    let (place, mut gateways) = (Place::new(Kind::Sqlite).await, Vec::new());
    place.site.configure(&format!("{}[store]\nurl = \"{}\"\n", channel(&hook.address), database.url()));
    for _ in 0..3 {
        gateways.push(place.site.start().await);
    }
    eventually("all are open", || async {
        let mut open = true;
        for gateway in &gateways {
            open &= gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"ops\"}");
        }
        open
    })
    .await;
    for round in 0..10 {
        let gateway = &gateways[round % 3];
        eventually("it knows", || async { gateway.flag().await["phase"] == "manual" }).await;
        roll_back(gateway, &format!("round {round}")).await;
        let next = &gateways[(round + 1) % 3];
        eventually("it is resumed", || async { next.act("resume", json!({})).await.status() == 200 }).await;
    }
    eventually("all is told", || async { hook.told("/t").len() >= 20 }).await;
    let mut ids: Vec<_> = hook.told("/t").iter().map(|(_, body)| body["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), hook.told("/t").len()), (20, 20), "each once");

    // The same bad file on all of them is told of once.
    place.site.write("flags/async-database.toml", "percentage = 101\n");
    eventually("the bad file is told of", || async { hook.events("/t").last().unwrap() == "bad_flags" }).await;
    let (_, told) = hook.told("/t").pop().unwrap();
    assert!(told["problems"].to_string().contains("flags/async-database.toml:1:14"), "{told}");
    for gateway in &gateways {
        eventually("all have seen it", || async {
            gateway.admin_json("/ready").await["problems"].to_string().contains("bad flag file")
        })
        .await;
    }
    eventually("it knows", || async { gateways[0].flag().await["phase"] == "manual" }).await;
    roll_back(&gateways[0], "after it").await;
    eventually("the rollback is told of", || async { hook.events("/t").last().unwrap() == "rollback" }).await;
    assert_eq!(hook.told("/t").len(), 22);
}

#[tokio::test]
async fn a_latch_that_a_new_release_lifts_is_told_of() {
    let (hook, site) = (Hook::start().await, Site::builtin());
    site.configure(&channel(&hook.address));
    let gateway = site.start().await;
    eventually("the channel is open", || async {
        gateway.admin("/metrics").await.text().await.unwrap().contains("waiting{channel=\"ops\"} 0")
    })
    .await;
    roll_back(&gateway, "it looks bad").await;
    let flag = std::fs::read_to_string(site.flag_file()).unwrap();
    site.write("flags/async-database.toml", &flag.replace("release = \"1\"", "release = \"2\""));
    eventually("it is told of", || async { hook.events("/t") == ["rollback", "resume"] }).await;
    let (_, told) = hook.told("/t").remove(1);
    assert_eq!((&told["by"], &told["new"]["release"]), (&json!("file"), &json!("2")));
    assert!(
        told["summary"].as_str().unwrap().starts_with("async-database goes on at 10 % with release 2, by file"),
        "{told}"
    );
}

#[tokio::test]
async fn a_gate_that_waits_is_told_of() {
    let (hook, place) = (Hook::start().await, Place::new(Kind::Sqlite).await);
    place.site.configure(&format!("{}events = [\"gate\", \"step\"]\n", channel(&hook.address)));
    place.site.write(
        "flags/async-database.toml",
        "release = \"2\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 0\n\
         [guard]\nmax_error_rate = \"50%\"\nfalse_rollback = 0.1\ntolerance = { points = \"20%\" }\n\
         [ramp]\nmin_requests = 5\nsteps = [\"30% 1ms approve\", \"50% 1h\", \"100%\"]\n",
    );
    let gateway = place.site.start().await;
    let mut users = 0;
    while hook.events("/t").is_empty() {
        users += 1;
        assert!(users < 100_000, "never told");
        gateway.get("/api/v1/x", &format!("user-{users}")).send().await.unwrap();
    }
    let (_, told) = hook.told("/t").remove(0);
    assert_eq!(told["summary"], "async-database waits at 30 % for `tidegate approve async-database`, to go on to 50 %");
    assert_eq!(gateway.act("approve", json!({})).await.status(), 200);
}

#[tokio::test]
async fn a_channel_can_be_tried_and_checked() {
    let (hook, site) = (Hook::start().await, Site::builtin());
    site.write("secret", &format!("{SECRET}\n"));
    site.configure(&format!("[notify.ops]\nurl = \"http://{}/t\"\nsecret_file = \"secret\"\n", hook.address));
    assert_eq!(
        stdout(&site.run(&["notify", "test", "ops"]).await),
        "`ops` took a test notification: it answered 200\n"
    );
    assert_eq!(hook.events("/t"), ["test"]);
    hook.answer_with(404);
    let refused = stderr(&site.run(&["notify", "test", "ops"]).await, 1);
    assert_eq!(refused, "tidegate: `ops` refused a test notification: it answered 404 Not Found\n");
    let unknown = stderr(&site.run(&["notify", "test", "oops"]).await, 1);
    assert_eq!(unknown, "tidegate: the configuration has no channel `oops`; it has ops\n");

    site.configure(
        "[notify.Chat]\nurl = \"hooks.example.com\"\nformat = \"slack\"\nsecret = \"x\"\nevents = [\"rolback\"]\n\
         [notify.short]\nurl = \"https://hooks.example.com/x\"\nsecret = \"short\"\n\
         [notify.none]\nurl = \"https://hooks.example.com/x\"\nretries = 3\n",
    );
    let told = stderr(&site.run(&["check"]).await, 1);
    for problem in [
        "a channel cannot be named `Chat`",
        "`notify.Chat.url`: write a whole URL",
        "only the format `tidegate` is signed",
        "\"rolback\": there are `rollback`, `resume`",
        "a secret has 16 bytes or more",
        "what is sent is signed, so a `secret_file",
        "unknown key `notify.none.retries`",
    ] {
        assert!(told.contains(problem), "{problem} is not in:\n{told}");
    }
}
