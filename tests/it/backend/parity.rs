//! The same requests to both modes on both kinds of database: the same answers, the same rows.

use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

use crate::backend::running::{Data, KINDS, Kind, MODES, PARSE_JD, Running, figure};

const ANALYZE: &str = "/api/v1/analyze-answer";

/// One request as it goes over the wire.
struct Call {
    name: &'static str,
    method: Method,
    path: &'static str,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    status: u16,
}

fn call(
    name: &'static str,
    method: Method,
    path: &'static str,
    content_type: Option<&'static str>,
    body: impl Into<Vec<u8>>,
    status: u16,
) -> Call {
    let body = body.into();
    Call { name, method, path, content_type, body, status }
}

fn calls() -> Vec<Call> {
    const JSON: Option<&str> = Some("application/json");
    let post = |name, path, body: Value, status| call(name, Method::POST, path, JSON, body.to_string(), status);
    let jd = |name, body: Value, status| post(name, PARSE_JD, body, status);
    let get = |name, path, status| call(name, Method::GET, path, None, "", status);
    vec![
        jd("plain", json!({"role": "backend engineer", "jobDescription": "Rust, PostgreSQL, async services"}), 200),
        jd(
            "the same again",
            json!({"role": "backend engineer", "jobDescription": "Rust, PostgreSQL, async services"}),
            200,
        ),
        jd(
            "title and spelling",
            json!({"role": "Senior Back-End Developer", "jobDescription": "going with Postgres and C++", "count": 3}),
            200,
        ),
        jd(
            "difficulty",
            json!({"role": "SRE", "jobDescription": "k8s, Terraform", "count": 20, "difficulty": "hard"}),
            200,
        ),
        jd("no skill", json!({"role": "qa", "jobDescription": "be nice", "count": 20}), 200),
        jd("unknown role", json!({"role": "astronaut", "jobDescription": "communication", "count": 20}), 200),
        jd("one", json!({"role": "mobile", "jobDescription": "Swift", "count": 1, "difficulty": "easy"}), 200),
        jd(
            "null options",
            json!({"role": "security", "jobDescription": "OWASP", "count": null, "difficulty": null}),
            200,
        ),
        jd("quotes", json!({"role": "'; DROP TABLE questions; --", "jobDescription": "\u{0}\"'%_ İ 日本語"}), 200),
        jd("nothing given", json!({}), 422),
        jd(
            "all wrong",
            json!({"role": 1, "jobDescription": [], "count": "3", "difficulty": "brutal", "cuont": 1}),
            422,
        ),
        jd("blank role", json!({"role": "  ", "jobDescription": "d"}), 422),
        jd("long role", json!({"role": "r".repeat(201), "jobDescription": "d"}), 422),
        jd("long description", json!({"role": "r", "jobDescription": "d".repeat(20_001)}), 422),
        jd("count 0", json!({"role": "r", "jobDescription": "d", "count": 0}), 422),
        jd("count 21", json!({"role": "r", "jobDescription": "d", "count": 21}), 422),
        jd("not an object", json!(["role"]), 422),
        post(
            "answer",
            ANALYZE,
            json!({"jobDescription": "Rust", "question": "How do you find a slow query?", "answer": "First I measured it: 40 ms in Rust, because of an index."}),
            200,
        ),
        post("answer missing", ANALYZE, json!({"jobDescription": "Rust", "question": "How?"}), 422),
        post(
            "answer too long",
            ANALYZE,
            json!({"jobDescription": "d", "question": "q", "answer": "a".repeat(20_001)}),
            422,
        ),
        call("cut off", Method::POST, PARSE_JD, JSON, "{\"role\": \"r\"", 400),
        call("empty", Method::POST, PARSE_JD, JSON, "", 400),
        call("not UTF-8", Method::POST, PARSE_JD, JSON, [b'"', 0xff, b'"'], 400),
        call("too deep", Method::POST, PARSE_JD, JSON, "[".repeat(10_000), 400),
        call("text", Method::POST, PARSE_JD, Some("text/plain"), "{}", 415),
        call("no type", Method::POST, PARSE_JD, None, "{}", 415),
        call("too large", Method::POST, PARSE_JD, JSON, vec![b' '; (1 << 20) + 1], 413),
        call("largest", Method::POST, PARSE_JD, JSON, vec![b' '; 1 << 20], 400),
        get("services", "/api/v1/services", 200),
        get("health", "/health", 200),
        get("ready", "/ready", 200),
        get("no such path", "/api/v1/nothing", 404),
        get("root", "/", 404),
        get("wrong method", PARSE_JD, 405),
        call("delete", Method::DELETE, "/health", None, "", 405),
        call("head", Method::HEAD, "/health", None, "", 200),
    ]
}

/// What a client can tell two answers apart by.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    content_type: Option<String>,
    allow: Option<String>,
    retry_after: Option<String>,
    body: String,
}

async fn send(running: &Running, call: &Call) -> Seen {
    let url = format!("{}{}", running.base, call.path);
    let mut request = running.client.request(call.method.clone(), url).body(call.body.clone());
    if let Some(content_type) = call.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let response = request.send().await.unwrap();
    let header = |name| {
        let value: Option<&HeaderValue> = response.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    Seen {
        status: response.status().as_u16(),
        content_type: header(CONTENT_TYPE),
        allow: header(ALLOW),
        retry_after: header(RETRY_AFTER),
        body: response.text().await.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_answer_alike_and_leave_the_same_rows() {
    let mut four = Vec::new();
    for (kind, mode) in KINDS.into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode))) {
        let data = Data::new(kind).await;
        four.push((Running::plain(mode, &data).await, data, format!("{mode} on {kind:?}")));
    }
    let mut before = four[0].1.rows().await;
    for call in calls() {
        let seen = send(&four[0].0, &call).await;
        assert_eq!(seen.status, call.status, "{}: {seen:?}", call.name);
        let after = four[0].1.rows().await;
        for (backend, data, name) in &four[1..] {
            assert_eq!(seen, send(backend, &call).await, "{}: {name}", call.name);
            assert_eq!(after, data.rows().await, "{}: {name}", call.name);
        }
        let wrote = call.path == PARSE_JD && call.status == 200;
        assert_eq!(before != after, wrote, "{}: rows", call.name);
        before = after;

        if call.status >= 400 {
            assert_eq!(seen.content_type.as_deref(), Some("application/problem+json"), "{}", call.name);
            let problem: Value = serde_json::from_str(&seen.body).unwrap();
            assert_eq!(figure(&problem, "status"), u64::from(call.status));
            for member in ["type", "title", "detail"] {
                assert!(problem.get(member).is_some_and(Value::is_string));
            }
            let fields = problem.get("errors").and_then(Value::as_array);
            assert_eq!(fields.is_some(), call.status == 422, "{}", call.name);
        }
        if call.status == 405 {
            assert!(seen.allow.is_some(), "{}", call.name);
        }
    }
    for (backend, ..) in four {
        backend.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picked_questions_suit_the_description() {
    for mode in MODES {
        let data = Data::new(Kind::Sqlite).await;
        let running = Running::plain(mode, &data).await;
        let asked = json!({"role": "Backend Developer", "jobDescription": "Rust, Postgres", "count": 4});
        let first: Value = running.post(PARSE_JD, &asked).await.json().await.unwrap();
        assert_eq!(first.get("role"), Some(&json!("backend")));
        assert_eq!(first.get("skills"), Some(&json!(["Rust", "PostgreSQL"])));
        let questions = first.get("questions").and_then(Value::as_array).unwrap();
        assert_eq!(questions.len(), 4);
        for question in questions {
            assert_eq!(question.get("usageCount"), Some(&json!(1)));
            let skills = question.get("skills").and_then(Value::as_array).unwrap();
            assert!(skills.contains(&json!("Rust")) || skills.contains(&json!("PostgreSQL")), "{question}");
        }

        let hard = json!({"role": "x", "jobDescription": "x", "difficulty": "hard", "count": 20});
        let hard: Value = running.post(PARSE_JD, &hard).await.json().await.unwrap();
        assert_eq!(hard.get("role"), Some(&json!("general")));
        let questions = hard.get("questions").and_then(Value::as_array).unwrap();
        assert!(!questions.is_empty());
        for question in questions {
            assert_eq!(question.get("difficulty"), Some(&json!("hard")));
        }
        running.stop().await;
    }
}
