//! How the admin API treats those who ask twice, ask too much or send too much.

use reqwest::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{FLAG, Gateway, eventually, header, pair, problem, stdout};
use crate::store::{Kind, Place};

async fn set(gateway: &Gateway, percentage: f64, key: &str) -> Response {
    let url = format!("{}/api/v1/flags/{FLAG}", gateway.admin);
    let change = gateway.client.patch(url).header("idempotency-key", key).json(&json!({"percentage": percentage}));
    change.send().await.unwrap()
}

on_both!(
    what_is_asked_for_twice_under_one_key_is_made_once,
    what_was_made_before_a_kill_is_not_made_again,
    gateways_that_share_a_store_answer_for_each_other,
);

async fn what_is_asked_for_twice_under_one_key_is_made_once(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    let first = set(&gateway, 20.0, "a").await;
    assert_eq!(header(first.headers(), "idempotency-replayed"), None);
    let etag = header(first.headers(), "etag").unwrap().to_owned();
    let answer: Value = first.json().await.unwrap();
    assert_eq!(gateway.set(30.0).await.status(), 200);

    let again = set(&gateway, 20.0, "\"a\"").await;
    assert_eq!((again.status().as_u16(), header(again.headers(), "etag")), (200, Some(etag.as_str())));
    assert_eq!(header(again.headers(), "idempotency-replayed"), Some("true"));
    assert_eq!(again.json::<Value>().await.unwrap(), answer);
    assert_eq!(gateway.flag().await["percentage"], 30.0, "it was not made again");
    let detail = problem(set(&gateway, 40.0, "a").await, 422, "other-request").await;
    assert!(detail.contains("another request's"), "{detail}");
    assert_eq!(set(&gateway, 40.0, "b").await.status(), 200);

    gateway.kill().await;
    let gateway = place.site.start().await;
    assert_eq!(set(&gateway, 20.0, "a").await.json::<Value>().await.unwrap(), answer);
    assert_eq!(gateway.flag().await["percentage"], 40.0);
    // What made no sense may be asked for again; what was decided stays so.
    problem(set(&gateway, 101.0, "c").await, 400, "invalid").await;
    assert_eq!(set(&gateway, 10.0, "c").await.status(), 200);
    let url = format!("{}/api/v1/flags/{FLAG}/resume", gateway.admin);
    let resume = || gateway.client.post(&url).header("idempotency-key", "d").send();
    problem(resume().await.unwrap(), 409, "refused").await;
    assert_eq!(gateway.act("rollback", json!({})).await.status(), 200);
    problem(resume().await.unwrap(), 409, "refused").await;
    assert_eq!(gateway.flag().await["phase"], "rolled_back", "a late repetition lifts no latch");
}

async fn what_was_made_before_a_kill_is_not_made_again(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    assert_eq!(set(&gateway, 20.0, "a").await.status(), 200);
    assert_eq!(gateway.set(30.0).await.status(), 200);
    gateway.kill().await;
    // As if the gateway had been killed after the change and before its answer was kept.
    place.connect().await.execute("UPDATE answers SET status = 0, body = ''").await.unwrap();
    let gateway = place.site.start().await;
    let again = set(&gateway, 20.0, "a").await;
    assert_eq!(header(again.headers(), "idempotency-replayed"), Some("true"));
    assert_eq!(again.json::<Value>().await.unwrap()["flag"]["percentage"], 30.0, "it tells how it is now");
    problem(set(&gateway, 21.0, "a").await, 422, "other-request").await;
    // What is no change is refused as what it is, whatever key it comes with.
    for (path, status, kind) in [("/api/v1/events", 405, "method-not-allowed"), ("/api/v1/nothing", 404, "not-found")] {
        let wrong = gateway.client.patch(format!("{}{path}", gateway.admin)).header("idempotency-key", "a").send();
        problem(wrong.await.unwrap(), status, kind).await;
    }
}

async fn gateways_that_share_a_store_answer_for_each_other(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    assert_eq!(set(&gateway, 20.0, "a").await.status(), 200);
    if place.database.is_some() {
        let other = place.site.start().await;
        assert_eq!(header(set(&other, 20.0, "a").await.headers(), "idempotency-replayed"), Some("true"));
    }
    // Somebody has begun, and has not answered.
    let begun = "INSERT INTO answers (asker, key, asked, at, generation, status, etag, body) \
                 SELECT asker, 'b', asked, at, 0, 0, '', '' FROM answers";
    place.connect().await.execute(begun).await.unwrap();
    let answer = set(&gateway, 20.0, "b").await;
    match kind {
        // Nobody else could be at it.
        Kind::Sqlite => assert_eq!(answer.status(), 200),
        Kind::Postgres => assert!(problem(answer, 409, "under-way").await.contains("ask again")),
    }
}

/// Lets connections through to `to`, but breaks the first `broken` off once the request is there.
async fn unreliable(to: String, broken: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            number += 1;
            let mut server = TcpStream::connect(&to).await.unwrap();
            if number > broken {
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
                continue;
            }
            // The request arrives, and its answer is lost.
            let mut bytes = vec![0; 65_536];
            loop {
                tokio::select! {
                    read = client.read(&mut bytes) => server.write_all(&bytes[..read.unwrap()]).await.unwrap(),
                    answered = server.readable() => break answered.unwrap(),
                }
            }
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_command_whose_connection_breaks_is_done_once() {
    let (_stable, _canary, site, gateway) = pair().await;
    let flag = std::fs::read_to_string(site.flag_file()).unwrap();
    site.write(
        "flags/async-database.toml",
        &format!("{flag}[ramp]\nsteps = [\"5% 1h\", \"10% 1h\", \"20% 1h\", \"100%\"]\n"),
    );
    eventually("the ramp is there", || async { gateway.flag().await["ramp"].is_object() }).await;
    let before = gateway.flag().await["generation"].as_u64().unwrap();
    let to = gateway.admin.strip_prefix("http://").unwrap().to_owned();
    let mut skip = site.command(&["skip", FLAG]);
    let output = skip.env("TIDEGATE_ADMIN", unreliable(to, 2).await).output().await.unwrap();
    assert!(stdout(&output).contains("is ramping"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("asking again"), "{output:?}");
    assert_eq!(gateway.flag().await["generation"], before + 1, "one step, though it was asked for three times");
}

#[tokio::test]
async fn who_asks_too_much_waits_and_who_sends_too_much_is_refused() {
    let (_stable, _canary, site, gateway) = pair().await;
    let long = json!({"reason": "x".repeat(100_000)});
    problem(gateway.act("pause", long.clone()).await, 413, "too-large").await;
    let url = format!("{}/api/v1/flags/{FLAG}/pause", gateway.admin);
    let with_key = gateway.client.post(url).header("idempotency-key", "k").json(&long).send().await.unwrap();
    problem(with_key, 413, "too-large").await;

    site.configure("[admin]\nrate_limit = { per_second = 5, burst = 3 }\n");
    assert_eq!(
        gateway.client.post(format!("{}/api/v1/config/reload", gateway.admin)).send().await.unwrap().status(),
        200
    );
    let mut refused = None;
    for _ in 0..1000 {
        let answer = gateway.admin("/api/v1/flags").await;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), 200);
    }
    let refused = refused.unwrap();
    assert_eq!(header(refused.headers(), "retry-after"), Some("1"));
    problem(refused, 429, "too-many-requests").await;
    for _ in 0..20 {
        for path in ["/health", "/ready", "/metrics"] {
            assert_eq!(gateway.admin(path).await.status(), 200, "whoever watches the gateway is always answered");
        }
    }
    eventually("it may ask again", || async { gateway.admin("/api/v1/flags").await.status() == 200 }).await;
}
