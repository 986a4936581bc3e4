//! What the canary fails, stable serves, as far as that is safe and stable can bear it.

use reqwest::{Method, Response};

use crate::harness::{Gateway, Site, eventually, header, problem};
use crate::upstream::{RawUpstream, Upstream, nobody};

/// Two upstreams, of which the canary may fail as it likes, and a gateway in front of them.
async fn pair() -> (Upstream, Upstream, Site, Gateway) {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address()).without_judge();
    let gateway = site.start().await;
    (stable, canary, site, gateway)
}

/// A request as alice, who is on the canary.
async fn ask(gateway: &Gateway, method: Method, key: Option<&str>, body: Vec<u8>) -> Response {
    let mut request = gateway.client.request(method, format!("{}/api/v1/x", gateway.http)).header("x-user-id", "alice");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(body).send().await.unwrap()
}

async fn rescued(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_rescued_requests_total{flag=\"async-database\"}").await
}

#[track_caller]
fn served_by(response: &Response, variant: &str, status: u16) {
    assert_eq!((header(response.headers(), "x-tidegate-variant"), response.status().as_u16()), (Some(variant), status));
}

#[tokio::test]
async fn a_canary_that_answers_5xx_is_charged_and_no_user_sees_it() {
    let (stable, canary, _site, gateway) = pair().await;
    canary.answer_with(503);
    let body = b"once more".to_vec();
    let response = ask(&gateway, Method::PUT, None, body.clone()).await;
    served_by(&response, "sync", 200);
    assert_eq!(header(response.headers(), "got-x-tidegate-variant"), Some("sync"));
    assert_eq!(response.bytes().await.unwrap(), body, "the body is sent again");
    assert_eq!((canary.requests(), stable.requests()), (1, 1));
    eventually("it is charged to the canary", || async { gateway.outcomes("async", "failure").await == 1.0 }).await;
    assert_eq!(gateway.outcomes("sync", "success").await, 0.0, "and stable is not judged by it");
    assert_eq!(rescued(&gateway).await, 1.0);
}

#[tokio::test]
async fn only_what_may_be_repeated_is() {
    let (stable, canary, _site, gateway) = pair().await;
    canary.answer_with(500);
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        served_by(&ask(&gateway, method, None, Vec::new()).await, "sync", 200);
    }
    served_by(&ask(&gateway, Method::POST, Some("\"a\""), b"x".to_vec()).await, "sync", 200);
    assert_eq!(stable.requests(), 6);
    for method in [Method::POST, Method::PATCH] {
        served_by(&ask(&gateway, method, None, b"x".to_vec()).await, "async", 500);
    }
    assert_eq!(stable.requests(), 6, "the canary may have done it");
    eventually("all are charged", || async { gateway.outcomes("async", "failure").await == 8.0 }).await;
    assert_eq!(rescued(&gateway).await, 6.0);
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again() {
    let (stable, canary, _site, gateway) = pair().await;
    canary.answer_with(500);
    let put = |size: usize| {
        let request = gateway.client.put(format!("{}/api/v1/late", gateway.http)).header("x-user-id", "alice");
        request.body(vec![b'x'; size]).send()
    };
    served_by(&put(65_536).await.unwrap(), "sync", 200);
    assert_eq!(stable.requests(), 1);
    served_by(&put(65_537).await.unwrap(), "async", 500);
    assert_eq!(stable.requests(), 1);
}

#[tokio::test]
async fn nobody_at_the_canarys_address_is_no_users_trouble() {
    let stable = Upstream::start().await;
    let (address, _socket) = nobody();
    let site = Site::with_servers(stable.address(), &address).without_judge();
    let gateway = site.start().await;
    served_by(&ask(&gateway, Method::GET, None, Vec::new()).await, "sync", 200);
    // It was never sent, so it is not repeated.
    let response = ask(&gateway, Method::POST, None, b"new".to_vec()).await;
    served_by(&response, "sync", 200);
    assert_eq!(response.bytes().await.unwrap(), "new");
    eventually("both are charged", || async { gateway.outcomes("async", "failure").await == 2.0 }).await;
    assert_eq!(gateway.flag().await["arms"]["canary"]["failures"], 2);
}

#[tokio::test]
async fn a_canary_that_never_answers_is_given_up() {
    let (stable, canary) = (Upstream::start().await, RawUpstream::start(None).await);
    let site = Site::with_impatience(stable.address(), canary.address(), "200ms").without_judge();
    let gateway = site.start().await;
    served_by(&ask(&gateway, Method::GET, None, Vec::new()).await, "sync", 200);
    problem(ask(&gateway, Method::POST, None, b"x".to_vec()).await, 504, "upstream-timeout").await;
    eventually("both are charged", || async { gateway.outcomes("async", "failure").await == 2.0 }).await;
    assert_eq!((rescued(&gateway).await, stable.requests()), (1.0, 1));
}

#[tokio::test]
async fn if_stable_fails_it_too_the_user_sees_what_stable_said() {
    let (stable, canary, _site, gateway) = pair().await;
    canary.answer_with(502);
    stable.answer_with(500);
    served_by(&ask(&gateway, Method::GET, None, Vec::new()).await, "sync", 500);
    eventually("it is charged once", || async { gateway.outcomes("async", "failure").await == 1.0 }).await;
    assert_eq!(gateway.outcomes("sync", "failure").await, 0.0);
    assert_eq!(rescued(&gateway).await, 0.0, "the user met a failure");
}

#[tokio::test]
async fn what_stable_bears_is_bounded() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address()).without_judge();
    site.configure(
        "[backends.sync.rescue_budget]\nshare = \"50%\"\nfloor = 0\n[[routes]]\npath = \"/api/v1/\"\n\
         flag = \"async-database\"\n",
    );
    let gateway = site.start().await;
    canary.answer_with(500);
    let mut rescued = 0;
    for _ in 0..10 {
        let response = ask(&gateway, Method::GET, None, Vec::new()).await;
        rescued += usize::from(response.status() == 200);
    }
    assert_eq!((rescued, stable.requests()), (5, 5), "every other one");
}

#[tokio::test]
async fn backends_and_routes_can_do_without() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address()).without_judge().without_rescue();
    site.configure(
        "[[routes]]\npath = \"/api/v1/\"\nflag = \"async-database\"\n[[routes]]\n\
         path = \"/api/v1/rescued\"\nflag = \"async-database\"\nrescue = true\nretry_buffer = \"1KiB\"\n",
    );
    let gateway = site.start().await;
    canary.answer_with(500);
    let put = |path: &str, size: usize| {
        let request = gateway.client.put(format!("{}{path}", gateway.http)).header("x-user-id", "alice");
        request.body(vec![b'x'; size]).send()
    };
    served_by(&put("/api/v1/x", 1).await.unwrap(), "async", 500);
    served_by(&put("/api/v1/rescued/late", 1024).await.unwrap(), "sync", 200);
    served_by(&put("/api/v1/rescued/late", 1025).await.unwrap(), "async", 500);
}
