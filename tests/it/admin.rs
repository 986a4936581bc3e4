//! The admin API, as tools use it.

use reqwest::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{FLAG, Gateway, eventually, header, pair, problem};
use crate::upstream::Upstream;

fn request(gateway: &Gateway, method: Method, path: &str) -> RequestBuilder {
    gateway.client.request(method, format!("{}{path}", gateway.admin))
}

#[tokio::test]
async fn a_flag_is_shown_as_the_contract_says() {
    let (stable, canary, _site, gateway) = pair().await;
    let mut flag = gateway.flag().await;
    flag["evidence"].take();
    let servers = |upstream: &Upstream| json!([{"name": upstream.address(), "healthy": true, "ejected": false}]);
    assert_eq!(
        flag,
        json!({
            "key": FLAG, "enabled": true, "release": "1", "generation": 1, "phase": "manual", "percentage": 10.0,
            "file_percentage": 10.0, "resume_percentage": null, "beta_users": 2,
            "beta_added": 0, "beta_removed": 0, "owner": "", "description": "",
            "arms": {
                "stable": {"backend": "sync", "requests": 0, "failures": 0, "error_rate": 0.0, "p50_ms": null,
                           "p99_ms": null, "available": true, "servers": servers(&stable)},
                "canary": {"backend": "async", "requests": 0, "failures": 0, "error_rate": 0.0, "p50_ms": null,
                           "p99_ms": null, "available": true, "servers": servers(&canary)},
            },
            "evidence": null, "rollback": null, "ramp": null, "approvals": [], "gateways": 1,
        })
    );
}

#[tokio::test]
async fn a_change_made_on_an_old_picture_is_refused() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let path = format!("/api/v1/flags/{FLAG}");
    let looked = gateway.admin(&path).await;
    let tag = header(looked.headers(), ETAG.as_str()).unwrap().to_owned();
    let change = |tag: &str, percentage: u32| {
        request(&gateway, Method::PATCH, &path).header(IF_MATCH, tag).json(&json!({"percentage": percentage})).send()
    };
    let changed = change(&tag, 20).await.unwrap();
    assert_eq!(changed.status(), 200);
    assert_ne!(header(changed.headers(), ETAG.as_str()), Some(tag.as_str()));
    problem(change(&tag, 30).await.unwrap(), 412, "stale").await;
    assert_eq!(gateway.flag().await["percentage"], 20.0);
    assert_eq!(change("*", 30).await.unwrap().status(), 200);
}

#[tokio::test]
async fn asking_twice_is_no_second_change() {
    let (_stable, _canary, _site, gateway) = pair().await;
    for action in ["pause", "pause", "rollback", "rollback"] {
        assert_eq!(gateway.act(action, json!({})).await.status(), 200);
    }
    assert_eq!(gateway.flag().await["generation"], 3);
    let events = gateway.admin_json("/api/v1/events").await;
    let actions: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| event["action"].clone()).collect();
    assert_eq!(actions, ["rollback", "pause", "release"]);
}

#[tokio::test]
async fn bad_requests_get_problem_documents_and_change_nothing() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let flag = format!("/api/v1/flags/{FLAG}");
    let json_body = |method: Method, path: &str, body: &str| {
        request(&gateway, method, path).header(CONTENT_TYPE, "application/json").body(body.to_owned())
    };
    let before = gateway.flag().await["generation"].clone();
    let pause = format!("{flag}/pause");
    let table = [
        (json_body(Method::PATCH, &flag, "{\"percentage\": 101}"), 400, "invalid"),
        (json_body(Method::PATCH, &flag, "{\"percentage\": 0.0001}"), 400, "invalid"),
        (json_body(Method::PATCH, &flag, "{\"percentage\": \"ten\"}"), 400, "invalid"),
        (json_body(Method::PATCH, &flag, "{\"percentge\": 10}"), 400, "invalid"),
        (json_body(Method::PATCH, &flag, "{\"beta\": {\"add\": [7]}}"), 400, "invalid"),
        (json_body(Method::PATCH, &flag, "{}"), 400, "invalid"),
        (json_body(Method::PATCH, &flag, "{"), 400, "invalid"),
        (json_body(Method::POST, &pause, "{\"percentage\": 1}"), 400, "invalid"),
        (json_body(Method::POST, &pause, &format!("{{\"reason\": \"{}\"}}", "x".repeat(1001))), 400, "invalid"),
        (json_body(Method::POST, &pause, "{\"reason\": \"a\\u001b[31m\"}"), 400, "invalid"),
        (json_body(Method::POST, &format!("{flag}/explode"), "{}"), 404, "not-found"),
        (json_body(Method::PATCH, "/api/v1/flags/none", "{\"percentage\": 1}"), 404, "unknown-flag"),
        (json_body(Method::POST, "/api/v1/flags/none/pause", ""), 404, "unknown-flag"),
        (json_body(Method::POST, &format!("{flag}/resume"), ""), 409, "refused"),
        (request(&gateway, Method::PATCH, &flag).body("{\"percentage\": 1}"), 415, "media-type"),
        (
            request(&gateway, Method::PATCH, &flag).header(IF_MATCH, "seven").json(&json!({"percentage": 1})),
            400,
            "invalid",
        ),
        (request(&gateway, Method::POST, &pause).header("origin", "https://elsewhere.test"), 403, "other-site"),
        (request(&gateway, Method::GET, &flag).header("host", "rebound.test"), 403, "other-site"),
        (request(&gateway, Method::DELETE, &flag), 405, "method-not-allowed"),
        (request(&gateway, Method::GET, "/nothing"), 404, "not-found"),
        (request(&gateway, Method::GET, "/api/v1/flags/none"), 404, "unknown-flag"),
        (request(&gateway, Method::GET, "/api/v1/flags/%FF"), 400, "invalid"),
        (request(&gateway, Method::GET, "/api/v1/flags/none/explain"), 404, "unknown-flag"),
        (request(&gateway, Method::GET, &format!("{flag}/explain?usr=a")), 400, "invalid"),
        (request(&gateway, Method::GET, &format!("{flag}/explain?header=a")), 400, "invalid"),
        (request(&gateway, Method::GET, &format!("{flag}/explain?client=here")), 400, "invalid"),
        (request(&gateway, Method::GET, &format!("{flag}/explain?path=api")), 400, "invalid"),
        (request(&gateway, Method::GET, "/api/v1/events?limit=0"), 400, "invalid"),
        (request(&gateway, Method::GET, "/api/v1/events?limit=1001"), 400, "invalid"),
        (request(&gateway, Method::GET, "/api/v1/events?limit=many"), 400, "invalid"),
    ];
    for (request, status, kind) in table {
        let shown = format!("{request:?}");
        let detail = problem(request.send().await.unwrap(), status, kind).await;
        assert!(detail.len() > 10, "{shown}: {detail}");
    }
    assert_eq!(gateway.flag().await["generation"], before);
}

#[tokio::test]
async fn too_large_a_body_is_refused() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let path = format!("/api/v1/flags/{FLAG}");
    let response = request(&gateway, Method::PATCH, &path).json(&json!({"reason": "x".repeat(100_000)})).send().await;
    problem(response.unwrap(), 413, "too-large").await;
}

#[tokio::test]
async fn metrics_have_their_names() {
    let (_stable, _canary, _site, gateway) = pair().await;
    for user in ["alice", "carol"] {
        gateway.variant(user).await;
    }
    eventually("both are counted", || async {
        gateway.outcomes("async", "success").await == 1.0 && gateway.outcomes("sync", "success").await == 1.0
    })
    .await;
    let arm = "flag=\"async-database\",variant=\"async\"";
    for (name, value) in [
        (format!("tidegate_request_duration_seconds_count{{{arm}}}"), 1.0),
        (format!("tidegate_request_duration_seconds_bucket{{le=\"10.0\",{arm}}}"), 1.0),
        (format!("tidegate_request_duration_seconds_bucket{{le=\"+Inf\",{arm}}}"), 1.0),
        ("tidegate_flag_percentage{flag=\"async-database\"}".to_owned(), 10.0),
        ("tidegate_flag_phase{flag=\"async-database\",phase=\"manual\"}".to_owned(), 1.0),
        ("tidegate_flag_reloads_total{result=\"applied\"}".to_owned(), 1.0),
        ("tidegate_problems".to_owned(), 0.0),
        (format!("tidegate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(gateway.metric(&name).await, value, "{name}");
    }
    let text = gateway.admin("/metrics").await.text().await.unwrap();
    assert!(text.contains("tidegate_flag_set_age_seconds "), "{text}");
    assert!(!text.contains("alice"), "no label holds a user");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn explanations_agree_with_what_is_served() {
    let (_stable, _canary, _site, gateway) = pair().await;
    for number in 0..100 {
        let user = format!("user-{number}");
        let explained: Value = gateway.admin_json(&format!("/api/v1/flags/{FLAG}/explain?user={user}")).await;
        assert_eq!(explained["variant"], gateway.variant(&user).await, "{user}");
        let on_canary = explained["bucket"].as_u64().unwrap() < 10_000;
        assert_eq!(explained["arm"] == "canary", on_canary);
        assert_eq!(explained["reason"], "PERCENTAGE");
    }
    let asked = "user=a&header=x-a:1&header=cookie:b=c&method=PUT&path=/x%3Fy%3Dz&host=h.test&client=192.0.2.1";
    assert_eq!(gateway.admin_json(&format!("/api/v1/flags/{FLAG}/explain?{asked}")).await["user"], "a");
    let nobody = gateway.admin_json(&format!("/api/v1/flags/{FLAG}/explain")).await;
    assert_eq!(
        (&nobody["reason"], &nobody["arm"], &nobody["bucket"]),
        (&json!("NO_KEY"), &json!("stable"), &Value::Null)
    );
}
