//! Requests to the admin API that make no sense: each gets a problem document that says what is wrong, and none does anything.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};

use crate::harness::{FLAG, Gateway, pair, problem};

/// Bodies that are no change, and a word of what has to be said about each.
const BODIES: [(&str, &str); 53] = [
    ("", "the body cannot be used"),
    (" ", "the body cannot be used"),
    ("{", "the body cannot be used"),
    ("}", "the body cannot be used"),
    ("[]", "the body cannot be used"),
    ("[1, 2, 3, 4, 5]", "the body cannot be used"),
    ("null", "the body cannot be used"),
    ("true", "the body cannot be used"),
    ("25", "the body cannot be used"),
    ("\"25\"", "the body cannot be used"),
    ("{}", "are missing"),
    ("{\"percentage\": 25}x", "trailing characters"),
    ("{\"percentage\": 25,}", "trailing comma"),
    ("{percentage: 25}", "key must be a string"),
    ("{'percentage': 25}", "key must be a string"),
    ("{\"percentage\": 25} // more", "trailing characters"),
    ("{\"percentage\": 25, \"percentage\": 26}", "duplicate field"),
    ("{\"percentage\": null}", "are missing"),
    ("{\"percentage\": \"25\"}", "invalid type"),
    ("{\"percentage\": \"ten\"}", "invalid type"),
    ("{\"percentage\": true}", "invalid type"),
    ("{\"percentage\": [25]}", "invalid type"),
    ("{\"percentage\": {\"value\": 25}}", "invalid type"),
    ("{\"percentage\": 25 %}", "the body cannot be used"),
    ("{\"percentage\": .5}", "the body cannot be used"),
    ("{\"percentage\": 0x19}", "the body cannot be used"),
    ("{\"percentage\": 025}", "the body cannot be used"),
    ("{\"percentage\": NaN}", "the body cannot be used"),
    ("{\"percentage\": Infinity}", "the body cannot be used"),
    ("{\"percentage\": 1e400}", "number out of range"),
    ("{\"percentage\": -1}", "`percentage`"),
    ("{\"percentage\": -0.001}", "`percentage`"),
    ("{\"percentage\": 100.001}", "`percentage`"),
    ("{\"percentage\": 101}", "`percentage`"),
    ("{\"percentage\": 1e300}", "`percentage`"),
    ("{\"percentage\": 0.0001}", "`percentage`"),
    ("{\"percentage\": 33.33333}", "`percentage`"),
    ("{\"percentge\": 25}", "unknown field `percentge`"),
    ("{\"Percentage\": 25}", "unknown field `Percentage`"),
    ("{\"percentage\": 25, \"if_match\": 1}", "unknown field `if_match`"),
    ("{\"reason\": \"only\"}", "are missing"),
    ("{\"percentage\": 25, \"reason\": 7}", "invalid type"),
    ("{\"percentage\": 25, \"reason\": [\"a\"]}", "invalid type"),
    ("{\"percentage\": 25, \"reason\": \"a\\u0000\"}", "control characters"),
    ("{\"percentage\": 25, \"reason\": \"a\\nb\"}", "control characters"),
    ("{\"beta\": {}}", "names nobody"),
    ("{\"beta\": []}", "names nobody"),
    ("{\"beta\": {\"add\": \"eve\"}}", "invalid type"),
    ("{\"beta\": {\"add\": [7]}}", "invalid type"),
    ("{\"beta\": {\"add\": [null]}}", "invalid type"),
    ("{\"beta\": {\"add\": [\"\"]}}", "bytes long"),
    ("{\"beta\": {\"adds\": [\"eve\"]}}", "unknown field `adds`"),
    ("{\"beta\": {\"add\": [\"eve\"], \"remove\": [\"eve\"]}}", "adds and removes"),
];

/// Bodies that mean nothing to an action.
const ACTION_BODIES: [(&str, &str); 10] = [
    ("{", "the body cannot be used"),
    ("[7]", "the body cannot be used"),
    ("null", "the body cannot be used"),
    ("\"because\"", "the body cannot be used"),
    ("{\"reason\": 7}", "invalid type"),
    ("{\"reason\": \"a\\u001b[31m\"}", "control characters"),
    ("{\"why\": \"because\"}", "unknown field `why`"),
    ("{\"percentage\": 100.5}", "percentage"),
    ("{\"percentage\": \"1\"}", "invalid type"),
    ("{\"beta\": {\"add\": [\"eve\"]}}", "PATCH the flag"),
];

const ACTIONS: [&str; 6] = ["pause", "resume", "promote", "rollback", "approve", "skip"];

/// Paths and queries that ask for what there is not, with the status, the kind of problem, and a word of it.
const QUESTIONS: [(&str, u16, &str, &str); 57] = [
    ("/api/v1/flags?limit=1", 400, "invalid", "`limit=1`"),
    ("/api/v1/flags/F?release=1", 400, "invalid", "`release=1`"),
    ("/api/v1/flags/F/why?user=a", 400, "invalid", "`user=a`"),
    ("/api/v1/flags/F/diffs?limit=1", 400, "invalid", "`limit=1`"),
    ("/api/v1/instances?flag=F", 400, "invalid", "`flag="),
    ("/api/v1/approvals?user=a", 400, "invalid", "unknown field `user`"),
    ("/nothing", 404, "not-found", "/api/v1/flags"),
    ("/api", 404, "not-found", "/api/v1/flags"),
    ("/api/v1", 404, "not-found", "/api/v1/flags"),
    ("/api/v2/flags", 404, "not-found", "/api/v1/flags"),
    ("/API/v1/flags", 404, "not-found", "/api/v1/flags"),
    ("/api/v1/flags/", 404, "not-found", "/api/v1/flags"),
    ("/api/v1//flags", 404, "not-found", "/api/v1/flags"),
    ("/api/v1/flag", 404, "not-found", "/api/v1/flags"),
    ("/api/v1/flags/F/why/more", 404, "not-found", "/api/v1/flags"),
    ("/health/", 404, "not-found", "/api/v1/flags"),
    ("/api/v1/flags/none", 404, "unknown-flag", "`none`"),
    ("/api/v1/flags/Upper", 404, "unknown-flag", "`Upper`"),
    ("/api/v1/flags/a%20b", 404, "unknown-flag", "`a b`"),
    ("/api/v1/flags/..%2F..%2Fetc%2Fpasswd", 404, "unknown-flag", "no flag"),
    ("/api/v1/flags/%00", 404, "unknown-flag", "no flag"),
    ("/api/v1/flags/%FF", 400, "invalid", "UTF-8"),
    ("/api/v1/flags/none/why", 404, "unknown-flag", "`none`"),
    ("/api/v1/flags/none/beta", 404, "unknown-flag", "`none`"),
    ("/api/v1/flags/none/explain", 404, "unknown-flag", "`none`"),
    ("/api/v1/flags/Upper/seconds", 404, "unknown-flag", "`Upper`"),
    ("/api/v1/flags/%FF/why", 400, "invalid", "UTF-8"),
    ("/api/v1/flags/F/explain?usr=a", 400, "invalid", "`usr`"),
    ("/api/v1/flags/F/explain?user=a&User=b", 400, "invalid", "`User`"),
    ("/api/v1/flags/F/explain?user=a&user=b", 400, "invalid", "`user` is given twice"),
    ("/api/v1/flags/F/explain?header=a", 400, "invalid", "`header`"),
    ("/api/v1/flags/F/explain?header=", 400, "invalid", "`header`"),
    ("/api/v1/flags/F/explain?client=here", 400, "invalid", "`client`"),
    ("/api/v1/flags/F/explain?client=1.2.3.4:80", 400, "invalid", "`client`"),
    ("/api/v1/flags/F/explain?client=300.1.1.1", 400, "invalid", "`client`"),
    ("/api/v1/flags/F/explain?path=api", 400, "invalid", "`path`"),
    ("/api/v1/flags/F/explain?path=", 400, "invalid", "`path`"),
    ("/api/v1/flags/F/beta?limit=0", 400, "invalid", "`limit`"),
    ("/api/v1/flags/F/beta?limit=10001", 400, "invalid", "`limit`"),
    ("/api/v1/flags/F/beta?limit=-1", 400, "invalid", "limit"),
    ("/api/v1/flags/F/beta?limit=", 400, "invalid", "limit"),
    ("/api/v1/flags/F/beta?page=2", 400, "invalid", "unknown field `page`"),
    ("/api/v1/flags/F/beta?cursor=", 400, "invalid", "`cursor`"),
    ("/api/v1/flags/F/beta?cursor=a", 400, "invalid", "`cursor`"),
    ("/api/v1/flags/F/beta?cursor=z:1", 400, "invalid", "`cursor`"),
    ("/api/v1/flags/F/seconds?until=1", 400, "invalid", "unknown field `until`"),
    ("/api/v1/events?limit=0", 400, "invalid", "`limit`"),
    ("/api/v1/events?limit=1001", 400, "invalid", "`limit`"),
    ("/api/v1/events?limit=many", 400, "invalid", "limit"),
    ("/api/v1/events?limit=1&limit=2", 400, "invalid", "duplicate field"),
    ("/api/v1/events?before=x", 400, "invalid", "before"),
    ("/api/v1/events?before=1&after=1", 400, "invalid", "give one of them"),
    ("/api/v1/events?before=99999999999999999999", 400, "invalid", "before"),
    ("/api/v1/events?flags=F", 400, "invalid", "unknown field `flags`"),
    ("/api/v1/events?flag=No", 404, "unknown-flag", "`No`"),
    ("/api/v1/events/verify?hash=0", 400, "invalid", "64 hexadecimal digits"),
    ("/api/v1/export/flagd?flags=F", 400, "invalid", "`flags`"),
];

/// Methods that do not go with their paths.
const METHODS: [(&str, &str); 25] = [
    ("POST", "/health"),
    ("DELETE", "/health"),
    ("PUT", "/ready"),
    ("POST", "/metrics"),
    ("OPTIONS", "/metrics"),
    ("POST", "/openapi.json"),
    ("POST", "/api/v1/flags"),
    ("PUT", "/api/v1/flags"),
    ("DELETE", "/api/v1/flags"),
    ("POST", "/api/v1/flags/F"),
    ("PUT", "/api/v1/flags/F"),
    ("DELETE", "/api/v1/flags/F"),
    ("TRACE", "/api/v1/flags/F"),
    ("PURGE", "/api/v1/flags/F"),
    ("GET", "/api/v1/flags/F/pause"),
    ("PATCH", "/api/v1/flags/F/pause"),
    ("DELETE", "/api/v1/flags/F/rollback"),
    ("GET", "/api/v1/flags/F/nothing"),
    ("PUT", "/api/v1/flags/F/beta"),
    ("PATCH", "/api/v1/flags/F/why"),
    ("DELETE", "/api/v1/events"),
    ("POST", "/api/v1/events/stream"),
    ("DELETE", "/api/v1/events/verify"),
    ("PATCH", "/api/v1/instances"),
    ("POST", "/api/v1/export/flagd"),
];

/// Headers that cannot be meant, with a change that is good.
const HEADERS: [(&str, &str, u16, &str); 26] = [
    ("idempotency-key", "", 400, "invalid"),
    ("idempotency-key", "\"\"", 400, "invalid"),
    ("idempotency-key", "a key", 400, "invalid"),
    ("idempotency-key", "\"a", 400, "invalid"),
    ("if-match", "7", 400, "invalid"),
    ("if-match", "seven", 400, "invalid"),
    ("if-match", "\"seven\"", 400, "invalid"),
    ("if-match", "\"-1\"", 400, "invalid"),
    ("if-match", "\"1", 400, "invalid"),
    ("if-match", "", 400, "invalid"),
    ("if-match", "W/\"1\"", 400, "invalid"),
    ("if-match", "\"1\", \"2\"", 400, "invalid"),
    ("if-match", "\"99999999999999999999\"", 400, "invalid"),
    ("if-match", "\"99\"", 412, "stale"),
    ("if-match", "\"0\"", 412, "stale"),
    ("content-type", "text/plain", 415, "media-type"),
    ("content-type", "application/x-www-form-urlencoded", 415, "media-type"),
    ("content-type", "application/jsonp", 415, "media-type"),
    ("content-type", "multipart/form-data; boundary=x", 415, "media-type"),
    ("content-type", "application/json; charset=utf-16", 415, "media-type"),
    ("content-encoding", "gzip", 415, "media-type"),
    ("content-encoding", "br", 415, "media-type"),
    ("origin", "https://elsewhere.test", 403, "other-site"),
    ("origin", "null", 403, "other-site"),
    ("host", "rebound.test", 403, "other-site"),
    ("host", "localhost.evil.test:8081", 403, "other-site"),
];

fn request(gateway: &Gateway, method: &str, path: &str) -> RequestBuilder {
    let path = path.replace("/F", &format!("/{FLAG}"));
    gateway.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", gateway.admin))
}

fn with_json(gateway: &Gateway, method: &str, path: &str, body: impl Into<String>) -> RequestBuilder {
    request(gateway, method, path).header(CONTENT_TYPE, "application/json").body(body.into())
}

/// Everything above and what is too long for a table: a name to tell it by, the request, its status and kind, and a word.
fn table(gateway: &Gateway) -> Vec<(String, RequestBuilder, u16, &'static str, &'static str)> {
    let mut rows = Vec::new();
    for (body, word) in BODIES {
        rows.push((body.to_owned(), with_json(gateway, "PATCH", "/api/v1/flags/F", body), 400, "invalid", word));
    }
    for action in ACTIONS {
        for (body, word) in ACTION_BODIES {
            let path = format!("/api/v1/flags/F/{action}");
            rows.push((format!("{action} {body}"), with_json(gateway, "POST", &path, body), 400, "invalid", word));
        }
    }
    for (path, status, kind, word) in QUESTIONS {
        rows.push((path.to_owned(), request(gateway, "GET", path), status, kind, word));
    }
    for (method, path) in METHODS {
        let told = format!("{method} {path}");
        rows.push((told, request(gateway, method, path), 405, "method-not-allowed", "does not go with this path"));
    }
    for (name, value, status, kind) in HEADERS {
        let request = request(gateway, "PATCH", "/api/v1/flags/F").body("{\"percentage\": 77}");
        let request = if name == "content-type" { request } else { request.header(CONTENT_TYPE, "application/json") };
        rows.push((format!("{name}: {value}"), request.header(name, value), status, kind, ""));
    }
    let long = "x".repeat(1001);
    let users = |user: &str| format!("{{\"beta\": {{\"add\": [\"{user}\"]}}}}");
    let patch = |body: String| with_json(gateway, "PATCH", "/api/v1/flags/F", body);
    let deep = format!("{{\"reason\": {}{}}}", "[".repeat(1000), "]".repeat(1000));
    rows.extend([
        (
            "a long reason".to_owned(),
            patch(format!("{{\"percentage\": 1, \"reason\": \"{long}\"}}")),
            400,
            "invalid",
            "1000",
        ),
        ("a long user".to_owned(), patch(users(&"u".repeat(4097))), 400, "invalid", "4096"),
        ("a user with a line break".to_owned(), patch(users("a\\nb")), 400, "invalid", "control characters"),
        ("a deep body".to_owned(), patch(deep), 400, "invalid", "the body cannot be used"),
        ("a large body".to_owned(), patch("x".repeat(70_000)), 413, "too-large", "cannot be read"),
        ("no text".to_owned(), patch(String::new()).body(vec![0xFF, 0xFE]), 400, "invalid", "the body cannot be used"),
        (
            "no type".to_owned(),
            request(gateway, "PATCH", "/api/v1/flags/F").body("{}"),
            415,
            "media-type",
            "application/json",
        ),
        (
            "no such flag".to_owned(),
            with_json(gateway, "PATCH", "/api/v1/flags/none", "{\"percentage\": 1}"),
            404,
            "unknown-flag",
            "`none`",
        ),
        (
            "no such action".to_owned(),
            with_json(gateway, "POST", "/api/v1/flags/F/explode", "{}"),
            404,
            "not-found",
            "nothing here",
        ),
        (
            "no number of an event".to_owned(),
            request(gateway, "GET", "/api/v1/events/stream").header("last-event-id", "x"),
            400,
            "invalid",
            "`Last-Event-ID`",
        ),
        (
            "nothing to resume".to_owned(),
            request(gateway, "POST", "/api/v1/flags/F/resume"),
            409,
            "refused",
            "nothing to resume",
        ),
        ("no ramp".to_owned(), request(gateway, "POST", "/api/v1/flags/F/skip"), 409, "refused", "no ramp"),
        ("no gate".to_owned(), request(gateway, "POST", "/api/v1/flags/F/approve"), 409, "refused", "no ramp"),
    ]);
    rows
}

#[tokio::test]
async fn each_is_told_what_is_wrong() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let before = gateway.flag().await;
    let rows = table(&gateway);
    assert!(rows.len() > 200, "{}", rows.len());
    for (told, request, status, kind, word) in rows {
        let answer = request.send().await.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert_eq!(answer.status().as_u16(), status, "{told}: {}", answer.text().await.unwrap());
        let detail = problem(answer, status, kind).await;
        assert!(detail.contains(word), "{told}: {detail:?} lacks {word:?}");
        assert!(detail.len() > 10, "{told}: {detail}");
    }
    let after = gateway.flag().await;
    assert_eq!((&after["generation"], &after["phase"]), (&before["generation"], &before["phase"]), "nothing was done");
}
