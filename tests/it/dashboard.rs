//! The dashboard, as a release manager uses it: in a real browser, and as somebody who means ill would.

use std::process::Stdio;

use fantoccini::{Client as Browser, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Gateway, Site, eventually, header, pair, stdout};
use crate::upstream::Upstream;

/// A browser of its own, driven through chromedriver on a port that the system assigns.
struct Driven {
    browser: Browser,
    /// Where chromedriver takes what `WebDriver` has no words for.
    devtools: String,
    _driver: Child,
    /// Its home: what it writes is in it, and its processes are known by it.
    home: TempDir,
}

impl Driven {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").env("HOME", home.path()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut driver =
            driver.spawn().unwrap_or_else(|error| panic!("chromedriver, of `scripts/setup.sh test`: {error}"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let data = format!("--user-data-dir={}", home.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &data,
        ];
        let capabilities = json!({"browserName": "chrome", "goog:chromeOptions": {"args": arguments}});
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let browser = builder.capabilities(capabilities.as_object().unwrap().clone());
        let browser = browser.connect(&format!("http://127.0.0.1:{port}")).await.unwrap();
        let session = browser.session_id().await.unwrap().unwrap();
        let devtools = format!("http://127.0.0.1:{port}/session/{session}/goog/cdp/execute");
        Self { browser, devtools, _driver: driver, home }
    }

    /// What a screen reader is told of the page: role and name of everything that is not hidden from it.
    async fn told(&self) -> Vec<(String, String)> {
        let ask = json!({"cmd": "Accessibility.getFullAXTree", "params": {}});
        let tree: Value = Client::new().post(&self.devtools).json(&ask).send().await.unwrap().json().await.unwrap();
        let nodes = tree["value"]["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false);
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
    }

    async fn script(&self, script: &str) -> Value {
        self.browser.execute(script, Vec::new()).await.unwrap()
    }

    async fn open(&self, url: &str) {
        self.browser.goto(url).await.unwrap();
    }

    async fn text(&self, selector: &str) -> String {
        match self.browser.find(Locator::Css(selector)).await {
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    async fn click(&self, selector: &str) {
        eventually(&format!("{selector} can be clicked"), || async {
            match self.browser.find(Locator::Css(selector)).await {
                Ok(element) => element.click().await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    async fn type_into(&self, selector: &str, text: &str) {
        // The page may be drawn anew in between.
        eventually(&format!("{selector} can be typed into"), || async {
            match self.browser.find(Locator::Css(selector)).await {
                Ok(field) => field.clear().await.is_ok() && field.send_keys(text).await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    async fn sees(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} says {text:?}"), || async { self.text(selector).await.contains(text) }).await;
    }
}

impl Drop for Driven {
    /// Ends the browser's processes, which outlive a driver that is killed.
    fn drop(&mut self) {
        let home = self.home.path().to_str().unwrap().as_bytes();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if arguments.windows(home.len()).any(|part| part == home) {
                let id = process.file_name();
                // It may have ended meanwhile.
                let _ = std::process::Command::new("kill").arg("-KILL").arg(id).stderr(Stdio::null()).status();
            }
        }
    }
}

/// A gateway that asks for tokens before a canary that a test can break, an operator's token and a viewer's.
async fn guarded() -> (Upstream, Upstream, Site, Gateway, [String; 2]) {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::with_servers(stable.address(), canary.address());
    site.configure("[admin]\ntoken_file = \"tokens.toml\"\n");
    let mut tokens = Vec::new();
    for (name, role) in [("olga", "operator"), ("vera", "viewer")] {
        tokens.push(stdout(&site.run(&["token", "new", name, "--role", role]).await).trim().to_owned());
    }
    let gateway = site.start().await;
    (stable, canary, site, gateway, tokens.try_into().unwrap())
}

async fn events(gateway: &Gateway, token: &str) -> Value {
    let url = format!("{}/api/v1/events?flag={FLAG}", gateway.admin);
    gateway.client.get(url).bearer_auth(token).send().await.unwrap().json::<Value>().await.unwrap()["events"].clone()
}

#[tokio::test]
async fn a_release_manager_works_in_a_browser() {
    let (_stable, canary, _site, gateway, [olga, _]) = guarded().await;
    let driven = Driven::start().await;
    driven.open(&format!("{}/flags/{FLAG}", gateway.admin)).await;
    driven.sees("h1", "Log in").await;
    driven.type_into("#token", "tidegate_wrong").await;
    driven.click("main button[type=submit]").await;
    driven.sees("[role=alert]", "There is no such token").await;
    driven.type_into("#token", &olga).await;
    driven.click("main button[type=submit]").await;
    driven.sees("h1", FLAG).await;
    driven.sees(".who", "olga operator").await;
    let readable = driven.browser.execute("return document.cookie", Vec::new()).await.unwrap();
    assert_eq!(readable, json!(""), "no script reads the token");

    // What was typed before the page's script was there is not drawn over.
    let typed =
        "document.getElementById('percentage').value = '33'; document.getElementById('connection').textContent = ''";
    driven.browser.execute(typed, Vec::new()).await.unwrap();
    driven.sees("#connection", "live").await;
    let kept = driven.browser.execute("return document.getElementById('percentage').value", Vec::new()).await.unwrap();
    assert_eq!(kept, json!("33"));

    driven.type_into("#percentage", "25").await;
    driven.click("form.percentage button").await;
    driven.sees("#dialog .effect", "15 % of users move to canary").await;
    driven.type_into("#reason", "<b>looks</b> good").await;
    driven.click("#dialog button[type=submit]").await;
    driven.sees("#split", "25 %").await;
    driven.sees("#history", "<b>looks</b> good").await;
    let event = events(&gateway, &olga).await[0].clone();
    assert_eq!((&event["actor"], &event["action"]), (&json!("olga"), &json!("set")));
    assert_eq!(event["reason"], "<b>looks</b> good");

    driven.sees("#connection", "live").await;
    driven.browser.execute("window.untouched = true", Vec::new()).await.unwrap();
    canary.answer_with(500);
    eventually("the canary is rolled back", || async {
        gateway.get("/api/v1/x", "alice").send().await.unwrap();
        events(&gateway, &olga).await[0]["action"] == "rollback"
    })
    .await;
    driven.sees("#head .phase", "rolled back").await;
    driven.sees("#head .notice", "Rolled back by judge").await;
    driven.sees("#announcer", &format!("{FLAG}: rollback by judge")).await;
    let untouched = driven.browser.execute("return window.untouched === true", Vec::new()).await.unwrap();
    assert_eq!(untouched, json!(true), "the page was not loaded anew");

    canary.answer_with(200);
    driven.click("#actions a[href$='/resume']").await;
    driven.sees("#dialog .effect", "Lifts the rollback").await;
    driven.type_into("#dialog input[name=percentage]", "5").await;
    driven.click("#dialog button[type=submit]").await;
    driven.sees("[role=status]", "Resume: done").await;
    driven.sees("#split", "5 %").await;
    let now = events(&gateway, &olga).await[0].clone();
    assert_eq!((&now["action"], &now["new"]["percentage"]), (&json!("resume"), &json!(5.0)));

    driven.type_into("#user", "bob").await;
    driven.click("#explain button").await;
    driven.sees("#explained", "bob is served by async, the canary arm: BETA").await;
    driven.click(".who button").await;
    driven.sees("h1", "Log in").await;
    driven.open(&format!("{}/", gateway.admin)).await;
    driven.sees("h1", "Log in").await;
}

/// What has to have a name, for whoever hears the page.
const NAMED: [&str; 14] = [
    "button",
    "link",
    "textbox",
    "spinbutton",
    "slider",
    "checkbox",
    "combobox",
    "meter",
    "image",
    "img",
    "table",
    "region",
    "navigation",
    "heading",
];

#[tokio::test]
async fn who_hears_the_dashboard_or_has_no_mouse_can_use_it() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let driven = Driven::start().await;
    let one = format!("/flags/{FLAG}");
    for path in ["/", &one, &format!("{one}/set?percentage=30"), "/history", "/flags/nothing"] {
        driven.open(&format!("{}{path}", gateway.admin)).await;
        let told = driven.told().await;
        let nameless: Vec<_> = told.iter().filter(|(role, name)| NAMED.contains(&&**role) && name.is_empty()).collect();
        assert!(nameless.is_empty(), "{path}: {nameless:?}");
        let count = |wanted: &str| told.iter().filter(|(role, _)| role == wanted).count();
        assert_eq!((count("main"), count("banner")), (1, 1), "{path}");
        let first = driven.script("return document.querySelectorAll('h1').length").await;
        assert_eq!(first, json!(1), "{path} has one heading of the first level");
    }
    driven.open(&format!("{}{one}", gateway.admin)).await;
    let told = driven.told().await;
    for chart in ["Requests", "Error rate", "Users on canary", "Latency p50", "Latency p99", "Way to a rollback"] {
        let is_it =
            |(role, name): &(String, String)| role == "image" && name.starts_with(&format!("{chart}, since 10 min"));
        assert!(told.iter().any(is_it), "{chart} in words: {told:?}");
    }

    // Whoever stands on something stands on it when the page is drawn anew, wherever it is by then.
    driven.sees("#connection", "live").await;
    driven.script("document.querySelector('#actions a[href$=\"/promote\"]').focus()").await;
    let before = driven.script("return document.querySelectorAll('#actions a').length").await;
    assert_eq!(gateway.act("pause", json!({})).await.status(), 200);
    driven.sees("#head .phase", "paused").await;
    driven.sees("#actions", "Resume").await;
    let stands_on = "return document.activeElement.getAttribute('href')";
    assert_eq!(driven.script(stands_on).await, json!(format!("{one}/promote")), "of {before} actions");

    // What happens meanwhile is told in the dialog, since nothing else is told while it is open.
    driven.click("#actions a[href$='/promote']").await;
    driven.sees("#dialog h1", "Promote").await;
    assert_eq!(gateway.set(20.0).await.status(), 200);
    driven.sees("#split", "20 %").await;
    eventually("it is told", || async {
        let told = driven.script("return document.querySelector('#dialog #announcer')?.textContent ?? ''").await;
        told.as_str().unwrap().contains("canary at 20 %")
    })
    .await;
    driven.click("#dialog [data-close]").await;
    let stands = || async { driven.script(stands_on).await == json!(format!("{one}/promote")) };
    eventually("whoever closes the dialog is where they were", stands).await;
    assert_eq!(driven.script("return document.querySelector('body > #announcer') !== null").await, json!(true));
}

/// A client that keeps no cookies and goes where it is sent by hand.
struct Visitor<'g> {
    client: Client,
    gateway: &'g Gateway,
    cookie: String,
}

impl<'g> Visitor<'g> {
    async fn log_in(gateway: &'g Gateway, token: &str) -> Self {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        let mut visitor = Self { client, gateway, cookie: String::new() };
        let answer = visitor.post("/login", &[("token", token), ("next", "/history")]).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), header(answer.headers(), LOCATION.as_str())), (303, Some("/history")));
        let cookie = header(answer.headers(), SET_COOKIE.as_str()).unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        visitor.cookie = cookie.split(';').next().unwrap().to_owned();
        visitor
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.gateway.admin)).header(COOKIE, &self.cookie)
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.client
            .post(format!("{}{path}", self.gateway.admin))
            .header(COOKIE, &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"))
    }

    /// The proof of this session's forms, as its pages have it.
    async fn proof(&self, path: &str) -> String {
        let page = self.get(path).send().await.unwrap().text().await.unwrap();
        let (_, after) = page.split_once("name=\"csrf\" value=\"").unwrap();
        after.split('"').next().unwrap().to_owned()
    }
}

async fn page(response: Response, status: u16) -> String {
    assert_eq!(response.status().as_u16(), status, "{response:?}");
    let policy = header(response.headers(), CONTENT_SECURITY_POLICY.as_str()).unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"));
    assert_eq!(header(response.headers(), CACHE_CONTROL.as_str()), Some("no-store"));
    let page = response.text().await.unwrap();
    assert!(!page.contains("style=\"") && !page.contains("<script>"), "nothing that the policy would refuse");
    page
}

#[tokio::test]
async fn forms_of_others_and_old_pages_are_refused() {
    let (_stable, _canary, _site, gateway, [olga, vera]) = guarded().await;
    let visitor = Visitor::log_in(&gateway, &olga).await;
    let path = format!("/flags/{FLAG}/set");
    let proof = visitor.proof(&format!("{path}?percentage=30")).await;
    let fields = |proof| [("csrf", proof), ("generation", "1"), ("percentage", "30"), ("reason", "a+b%26c")];
    let foreign = page(visitor.post(&path, &fields("")).send().await.unwrap(), 403).await;
    assert!(foreign.contains("This form is none of this session's"), "{foreign}");
    let again = Visitor::log_in(&gateway, &olga).await;
    page(again.post(&path, &fields(&proof)).send().await.unwrap(), 403).await;
    let other = visitor.post(&path, &fields(&proof)).header("sec-fetch-site", "cross-site");
    page(other.send().await.unwrap(), 403).await;
    let elsewhere = visitor.post(&path, &fields(&proof)).header(ORIGIN, "https://evil.test");
    assert_eq!(elsewhere.send().await.unwrap().status(), 403);
    assert_eq!(events(&gateway, &olga).await.as_array().unwrap().len(), 1, "nothing was done");

    let done = visitor.post(&path, &fields(&proof)).send().await.unwrap();
    assert_eq!(header(done.headers(), LOCATION.as_str()), Some(format!("/flags/{FLAG}?done=set").as_str()));
    assert_eq!(events(&gateway, &olga).await[0]["reason"], "a b&c");
    let stale = page(visitor.post(&path, &fields(&proof)).send().await.unwrap(), 412).await;
    assert!(stale.contains("Nothing was done: the rollout has changed since this page was shown."), "{stale}");
    assert!(stale.contains("name=\"generation\" value=\"2\""), "it can be decided anew");
    let resume = format!("/flags/{FLAG}/resume");
    let refused = [("csrf", proof.as_str()), ("generation", "2")];
    let refused = page(visitor.post(&resume, &refused).send().await.unwrap(), 409).await;
    assert!(refused.contains("Nothing to resume"), "{refused}");
    for (query, status) in [("percentage=101", 400), ("percentage=x", 400), ("", 400), ("percentage=%ff", 400)] {
        page(visitor.get(&format!("{path}?{query}")).send().await.unwrap(), status).await;
    }

    let viewer = Visitor::log_in(&gateway, &vera).await;
    let seen = page(viewer.get(&format!("/flags/{FLAG}")).send().await.unwrap(), 200).await;
    assert!(!seen.contains("/promote") && seen.contains("takes a token of role operator"));
    let proof = viewer.proof("/").await;
    let promote = [("csrf", proof.as_str()), ("generation", "2")];
    page(viewer.post(&format!("/flags/{FLAG}/promote"), &promote).send().await.unwrap(), 403).await;
    page(viewer.get(&format!("/flags/{FLAG}/promote")).send().await.unwrap(), 403).await;
    assert_eq!(viewer.get("/api/v1/flags").send().await.unwrap().status(), 401, "the cookie is for pages alone");
}

#[tokio::test]
async fn strangers_see_the_login_and_its_files_alone() {
    let (_stable, _canary, site, gateway, [olga, _]) = guarded().await;
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    let get = async |path: &str, cookie: &str| {
        client.get(format!("{}{path}", gateway.admin)).header(COOKIE, cookie).send().await.unwrap()
    };
    let flag = format!("/flags/{FLAG}");
    let next = format!("/login?next={flag}");
    for (path, location) in [("/", "/login"), (&flag, &next), ("/history", "/login?next=/history")] {
        let sent = get(path, "").await;
        assert_eq!(
            (sent.status().as_u16(), header(sent.headers(), LOCATION.as_str())),
            (303, Some(location)),
            "{path}"
        );
    }
    let linked = client.get(format!("{}{flag}", gateway.admin)).header("sec-fetch-site", "cross-site").send();
    assert!(page(linked.await.unwrap(), 200).await.contains("http-equiv=\"refresh\""), "a link brings no cookie along");
    let login = page(get("/login", "").await, 200).await;
    for kind in [".css", ".js", ".svg"] {
        let (before, _) = login.split_once(&format!("{kind}\"")).unwrap();
        let path = format!("{}{kind}", before.rsplit('"').next().unwrap());
        let file = get(&path, "").await;
        assert_eq!(file.status(), 200, "{path}");
        assert!(header(file.headers(), CACHE_CONTROL.as_str()).unwrap().contains("immutable"));
    }
    let visitor = Visitor::log_in(&gateway, &olga).await;
    page(visitor.get("/").send().await.unwrap(), 200).await;
    stdout(&site.run(&["token", "revoke", "olga"]).await);
    eventually("a revoked token ends the session", || async { visitor.get("/").send().await.unwrap().status() == 303 })
        .await;
    let ended = visitor.get("/").send().await.unwrap();
    assert!(header(ended.headers(), SET_COOKIE.as_str()).unwrap().contains("Max-Age=0"));
    let mut slowed = false;
    for number in 0..100 {
        let token = format!("tidegate_{number}");
        let answer = visitor.post("/login", &[("token", token.as_str())]).send().await.unwrap();
        slowed = answer.status() == 429;
        if slowed {
            break;
        }
    }
    assert!(slowed, "somebody who tries a hundred tokens is slowed");
}
