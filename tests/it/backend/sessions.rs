//! Interview sessions: the whole way on every mode and database, from one mode to the other, and many at once.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tidegate::backend::Mode;
use tokio::task::JoinSet;

use crate::backend::running::{Data, KINDS, Running, config, every};

const SESSIONS: &str = "/api/v1/sessions";

async fn send(running: &Running, method: Method, path: &str, user: &str, body: Option<&Value>) -> Response {
    let mut request = running.client.request(method, format!("{}{path}", running.base)).header("x-user-id", user);
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.unwrap()
}

/// Sends, and gives the status and the body without what differs from run to run.
async fn told(running: &Running, method: Method, path: &str, user: &str, body: Option<&Value>) -> (u16, Value) {
    let response = send(running, method, path, user, body).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

fn start_body(plan: &str, limit: u32) -> Value {
    json!({"role": "Backend Engineer", "jobDescription": "Rust, PostgreSQL", "plan": plan, "questionLimit": limit})
}

/// Replaces ids of sessions and moments by what is the same in every run.
fn normalised(value: &Value, id: &str) -> String {
    let mut text = value.to_string().replace(id, "SESSION");
    for name in ["startedAt", "endedAt"] {
        let mut rest = text.as_str();
        let mut clean = String::new();
        while let Some((before, after)) = rest.split_once(&format!("\"{name}\":\"")) {
            clean.push_str(before);
            clean.push_str(&format!("\"{name}\":\"MOMENT"));
            rest = &after[after.find('"').unwrap()..];
        }
        clean.push_str(rest);
        text = clean;
    }
    text
}

/// A user's way through everything, on the backends in turn; what was answered on the way.
async fn way(backends: &[Running], user: &str) -> Vec<String> {
    let mut said = Vec::new();
    let mut turn = 0;
    let mut on = || {
        turn += 1;
        &backends[turn % backends.len()]
    };
    let (status, session) = told(on(), Method::POST, SESSIONS, user, Some(&start_body("adaptive", 6))).await;
    assert_eq!(status, 201, "{session}");
    let id = session["id"].as_str().unwrap().to_owned();
    let path = format!("{SESSIONS}/{id}");
    said.push(normalised(&session, &id));
    let (status, refused) = told(on(), Method::POST, SESSIONS, user, Some(&start_body("adaptive", 6))).await;
    said.push(format!("{status} {}", normalised(&refused, &id)));

    let answers = [
        "I like turtles.",
        "First I measured it, because a figure tells more: for example, in my last team a Rust service took 40 ms \
         instead of 4 on PostgreSQL. Then I added an index, and as a result it was fast.",
        "An index in PostgreSQL, so that the database does less.",
    ];
    let mut number = 0;
    loop {
        let (_, session) = told(on(), Method::GET, &path, user, None).await;
        said.push(normalised(&session, &id));
        let Some(open) = session["open"].as_array().unwrap().first() else { break };
        let body = json!({"questionId": open["id"], "answer": answers[number % answers.len()]});
        let (status, first) = told(on(), Method::POST, &format!("{path}/answers"), user, Some(&body)).await;
        assert_eq!(status, 200, "{first}");
        let (status, again) = told(on(), Method::POST, &format!("{path}/answers"), user, Some(&body)).await;
        assert_eq!((status, &again), (200, &first), "a submission may be repeated");
        said.push(normalised(&first, &id));
        let other = json!({"questionId": open["id"], "answer": "something else"});
        let (status, refused) = told(on(), Method::POST, &format!("{path}/answers"), user, Some(&other)).await;
        said.push(format!("{status} {}", normalised(&refused, &id)));
        if number == 1 {
            for (action, expected) in [("abandon", 200), ("abandon", 200), ("resume", 200), ("resume", 200)] {
                let (status, session) = told(on(), Method::POST, &format!("{path}/{action}"), user, None).await;
                assert_eq!(status, expected, "{action}: {session}");
                said.push(normalised(&session, &id));
            }
        }
        number += 1;
    }
    for (method, path, body) in [
        (Method::GET, format!("{path}/analysis"), None),
        (Method::POST, format!("{path}/abandon"), None),
        (Method::POST, format!("{path}/resume"), None),
        (Method::POST, format!("{path}/answers"), Some(json!({"questionId": "never-asked", "answer": "x"}))),
        (Method::POST, format!("{path}/answers"), Some(json!({"answers": []}))),
        (Method::GET, format!("{SESSIONS}?status=completed"), None),
        (Method::GET, format!("{SESSIONS}?status=open&limit=0&x=1"), None),
    ] {
        let (status, value) = told(on(), method, &path, user, body.as_ref()).await;
        said.push(format!("{status} {}", normalised(&value, &id)));
    }

    // A fixed session, its answers all at once.
    let (status, session) = told(on(), Method::POST, SESSIONS, user, Some(&start_body("fixed", 3))).await;
    assert_eq!(status, 201, "{session}");
    let second = session["id"].as_str().unwrap().to_owned();
    said.push(normalised(&session, &second));
    let given: Vec<Value> = session["open"]
        .as_array()
        .unwrap()
        .iter()
        .map(|open| json!({"questionId": open["id"], "answer": answers[1]}))
        .collect();
    let all = format!("{SESSIONS}/{second}/answers");
    let mut wrong = given.clone();
    wrong[2]["questionId"] = json!("never-asked");
    let (status, refused) = told(on(), Method::POST, &all, user, Some(&json!({"answers": wrong}))).await;
    said.push(format!("{status} {refused}"));
    let (_, session) = told(on(), Method::GET, &format!("{SESSIONS}/{second}"), user, None).await;
    assert_eq!(session["open"].as_array().unwrap().len(), 3, "nothing of a refused submission is kept");
    let (status, done) = told(on(), Method::POST, &all, user, Some(&json!({"answers": given}))).await;
    assert_eq!((status, &done["session"]["status"]), (200, &json!("completed")), "{done}");
    said.push(normalised(&done, &second));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_the_same_way_everywhere_and_from_mode_to_mode() {
    let mut expected: Option<(Vec<String>, String)> = None;
    for kind in KINDS {
        for modes in [vec![Mode::Sync], vec![Mode::Async], vec![Mode::Sync, Mode::Async]] {
            let data = Data::new(kind).await;
            let mut backends = Vec::new();
            for mode in &modes {
                backends.push(Running::plain(*mode, &data).await);
            }
            let said = way(&backends, "alice").await;
            let rows = data.rows().await;
            assert!(rows.contains("Some(\"alice\")|Some(\"backend\")"), "{rows}");
            match &expected {
                None => expected = Some((said, rows)),
                Some((earlier, earlier_rows)) => {
                    assert_eq!(&said, earlier, "{kind:?} {modes:?}");
                    assert_eq!(&rows, earlier_rows, "{kind:?} {modes:?}");
                }
            }
            for backend in backends {
                backend.stop().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_starts_at_once_one_is_the_users() {
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        // Two backends on one database, as while a rollout is under way.
        let backends = [Running::plain(mode, &data).await, Running::start(config(Mode::Async, &data)).await];
        let mut starts = JoinSet::new();
        for number in 0..16 {
            let (client, url) = (backends[0].client.clone(), format!("{}{SESSIONS}", backends[number % 2].base));
            let request = client.post(url).header("x-user-id", "bob").json(&start_body("adaptive", 5));
            starts.spawn(async move { request.send().await.unwrap() });
        }
        let answers = starts.join_all().await;
        let count = |status: u16| answers.iter().filter(|answer| answer.status() == status).count();
        assert_eq!((count(201), count(409)), (1, 15), "{kind:?} {mode}");

        // The same answer many times at once: one is written, all are told the same.
        let history = told(&backends[0], Method::GET, SESSIONS, "bob", None).await.1;
        let id = history["sessions"][0]["id"].as_str().unwrap().to_owned();
        let session = told(&backends[0], Method::GET, &format!("{SESSIONS}/{id}"), "bob", None).await.1;
        let body = json!({"questionId": session["open"][0]["id"], "answer": "Because of an index."});
        let mut submissions = JoinSet::new();
        for number in 0..12 {
            let url = format!("{}{SESSIONS}/{id}/answers", backends[number % 2].base);
            let request = backends[0].client.post(url).header("x-user-id", "bob").json(&body);
            submissions.spawn(async move {
                let answer = request.send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            });
        }
        let told_all = submissions.join_all().await;
        assert!(told_all.iter().all(|(status, body)| *status == 200 && *body == told_all[0].1), "{told_all:?}");
        assert_eq!(data.number("SELECT COUNT(*) FROM session_questions").await, 2, "{kind:?} {mode}");

        // Nobody sees another's sessions.
        let path = format!("{SESSIONS}/{id}");
        assert_eq!(told(&backends[0], Method::GET, &path, "mallory", None).await.0, 404);
        assert_eq!(told(&backends[0], Method::GET, &format!("{SESSIONS}/x'--"), "bob", None).await.0, 404);
        assert_eq!(backends[0].get(&path).await.status(), 400);
        for backend in backends {
            backend.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_paged_without_gaps() {
    for (kind, mode) in every() {
        let data = Data::new(kind).await;
        let running = Running::plain(mode, &data).await;
        let mut begun = Vec::new();
        for _ in 0..7 {
            let (_, session) = told(&running, Method::POST, SESSIONS, "carol", Some(&start_body("adaptive", 3))).await;
            let id = session["id"].as_str().unwrap().to_owned();
            let path = format!("{SESSIONS}/{id}/abandon");
            assert_eq!(told(&running, Method::POST, &path, "carol", None).await.0, 200);
            begun.insert(0, id);
        }
        let mut seen = Vec::new();
        let mut path = format!("{SESSIONS}?limit=3");
        loop {
            let (_, page) = told(&running, Method::GET, &path, "carol", None).await;
            let ids = page["sessions"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned());
            seen.extend(ids);
            let Some(cursor) = page["next"].as_str() else { break };
            path = format!("{SESSIONS}?limit=3&cursor={cursor}");
        }
        assert_eq!(seen, begun, "{kind:?} {mode}");
        running.stop().await;
    }
}
