//! The audit trail: whole, page by page, and as it grows.

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, FLAG, Gateway, eventually, problem, stderr, stdout};
use crate::store::{Kind, Place};

/// Sets `count` percentages, each an event.
async fn fill(gateway: &Gateway, count: u32) {
    for percentage in 1..=count {
        assert_eq!(gateway.set(f64::from(percentage)).await.status(), 200);
    }
}

on_both!(what_is_changed_or_taken_out_is_noticed, the_trail_is_read_page_by_page, a_stream_tells_what_happens);

async fn what_is_changed_or_taken_out_is_noticed(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    fill(&gateway, 6).await;
    let verify = ["history", "--verify"];
    let whole = stdout(&gateway.cli(&place.site, &verify).await);
    assert!(whole.starts_with("7 events: none was changed or taken out\nnewest hash  "), "{whole}");
    let noted = whole.trim().rsplit(' ').next().unwrap().to_owned();
    stdout(&gateway.cli(&place.site, &["history", "--verify", "--noted", &noted]).await);

    // Whoever owns the database can do anything, also take the triggers away.
    let mut owner = place.connect().await;
    let triggers = match kind {
        Kind::Sqlite => ["DROP TRIGGER events_are_never_changed", "DROP TRIGGER events_are_never_deleted"],
        Kind::Postgres => ["ALTER TABLE events DISABLE TRIGGER ALL", "SELECT 1"],
    };
    for statement in triggers {
        owner.execute(statement).await.unwrap();
    }
    owner.execute("UPDATE events SET actor = 'nobody' WHERE id = 3").await.unwrap();
    owner.execute("DELETE FROM events WHERE id = 5").await.unwrap();
    let told = gateway.cli(&place.site, &verify).await;
    assert_eq!(
        String::from_utf8(told.stdout.clone()).unwrap(),
        "! event 3 was changed: its hash is not that of what it says\n! event 5 is missing\n"
    );
    assert!(stderr(&told, 1).starts_with("tidegate: the audit trail is not whole"));

    // A cut end leaves a whole chain: only what was noted elsewhere tells.
    owner.execute("DELETE FROM events WHERE id = 7").await.unwrap();
    let report = gateway.admin_json(&format!("/api/v1/events/verify?hash={noted}")).await;
    assert_eq!(report["problems"].as_array().unwrap().len(), 3, "{report}");
    assert!(report["problems"][2].as_str().unwrap().contains("the end was cut off"), "{report}");
    problem(gateway.admin("/api/v1/events/verify?hash=abc").await, 400, "invalid").await;
}

async fn the_trail_is_read_page_by_page(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    fill(&gateway, 6).await;
    let ids = |list: &Value| -> Vec<i64> {
        list["events"].as_array().unwrap().iter().map(|event| event["id"].as_i64().unwrap()).collect()
    };
    let mut path = format!("/api/v1/events?limit=3&flag={FLAG}");
    let mut seen = Vec::new();
    loop {
        let page = gateway.admin_json(&path).await;
        seen.push(ids(&page));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    assert_eq!(ids(&gateway.admin_json("/api/v1/events?after=5").await), [6, 7]);
    problem(gateway.admin("/api/v1/events?after=5&before=6").await, 400, "invalid").await;

    let exported = stdout(&gateway.cli(&place.site, &["history", "--export"]).await);
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["id"].clone()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7].map(|id| json!(id))
    );
    assert!(lines.iter().all(|line| line["hash"].as_str().unwrap().len() == 64));
}

async fn a_stream_tells_what_happens(kind: Kind) {
    let place = Place::new(kind).await;
    let gateway = place.site.start().await;
    let open = async |last: Option<&str>| -> Response {
        let request = gateway.client.get(format!("{}/api/v1/events/stream", gateway.admin));
        last.iter().fold(request, |request, id| request.header("last-event-id", *id)).send().await.unwrap()
    };
    let mut stream = open(None).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    fill(&gateway, 2).await;
    assert_eq!(ids(&mut stream, 2).await, [2, 3], "what was there before is not told");
    drop(stream);
    fill(&gateway, 3).await;
    assert_eq!(ids(&mut open(Some("2")).await, 4).await, [3, 4, 5, 6], "from after the one that was seen last");
    problem(open(Some("x")).await, 400, "invalid").await;
    gateway.terminate().await;
    let mut gateway = gateway;
    assert_eq!(gateway.ended().await, Some(0), "a stream keeps no gateway from stopping");
}

/// The numbers of the next `count` events of a stream.
async fn ids(stream: &mut Response, count: usize) -> Vec<i64> {
    let mut text = String::new();
    loop {
        let ids: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        if ids.len() >= count && text.ends_with("\n\n") {
            return ids;
        }
        let chunk = tokio::time::timeout(DEADLINE, stream.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test]
async fn a_trail_from_before_there_were_hashes_goes_on() {
    let place = Place::new(Kind::Sqlite).await;
    let gateway = place.site.start().await;
    fill(&gateway, 1).await;
    let mut owner = place.connect().await;
    owner.execute("DROP TRIGGER events_are_never_changed").await.unwrap();
    owner.execute("UPDATE events SET hash = NULL, previous = NULL").await.unwrap();
    fill(&gateway, 3).await;
    let report = gateway.admin_json("/api/v1/events/verify").await;
    assert_eq!((&report["events"], &report["unchained"]), (&json!(4), &json!(2)), "{report}");
    assert_eq!(report["problems"], json!([]));
    eventually("it is all well", || async { gateway.admin_json("/ready").await["problems"] == json!([]) }).await;
}
