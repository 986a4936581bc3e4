//! The description of the admin API, held to what a running gateway answers.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{DEADLINE, FLAG, Gateway, eventually, header, pair};

/// The document of a running gateway, and what was held to it.
struct Document<'g> {
    gateway: &'g Gateway,
    root: Value,
    seen: BTreeSet<(String, String)>,
}

impl<'g> Document<'g> {
    async fn of(gateway: &'g Gateway) -> Self {
        let root = gateway.admin_json("/openapi.json").await;
        Self { gateway, root, seen: BTreeSet::new() }
    }

    /// Sends a request, and holds its answer to what the document says of `path`.
    async fn ask(&mut self, method: Method, path: &str, asked: &str, body: Option<Value>) -> Value {
        let url = format!("{}{asked}", self.gateway.admin);
        let request = self.gateway.client.request(method.clone(), url);
        let request = body.into_iter().fold(request, |request, body| request.json(&body));
        self.hold(&method, path, request.send().await.unwrap()).await
    }

    async fn hold(&mut self, method: &Method, path: &str, response: Response) -> Value {
        let status = response.status().as_u16().to_string();
        let method = method.as_str().to_ascii_lowercase();
        let told = format!("{method} {path} {status}");
        let described = &self.root["paths"][path][&method]["responses"][&status]["content"];
        let media_type =
            header(response.headers(), CONTENT_TYPE.as_str()).unwrap().split(';').next().unwrap().to_owned();
        let schema =
            described.get(&media_type).unwrap_or_else(|| panic!("{told} {media_type}: {described}"))["schema"].clone();
        let item = described[&media_type]["x-itemSchema"].clone();
        self.seen.insert((method, path.to_owned()));
        match media_type.as_str() {
            "text/event-stream" => self.hold_first(item, response).await,
            "application/openmetrics-text" => Value::String(response.text().await.unwrap()),
            _ => {
                let body: Value = response.json().await.unwrap();
                self.valid(&schema, &body).unwrap_or_else(|wrong| panic!("{told}: {wrong}\n{body:#}"));
                body
            }
        }
    }

    /// Holds the first message of a stream to what the document says of each. The stream has no end.
    async fn hold_first(&self, item: Value, mut response: Response) -> Value {
        assert_eq!(self.gateway.act("pause", json!({})).await.status(), 200);
        assert_eq!(self.gateway.act("resume", json!({})).await.status(), 200);
        let mut text = String::new();
        while !text.contains("\n\n") || !text.contains("data:") {
            let chunk = timeout(DEADLINE, response.chunk()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let fields = text
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| !name.is_empty());
        let message: Value = fields.map(|(name, value)| (name.to_owned(), Value::from(value.trim_start()))).collect();
        self.valid(&item, &message).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        let event = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
        self.valid(&item["properties"]["data"]["contentSchema"], &event)
            .unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
        event
    }

    /// Says where `value` is not what `schema` describes, by as much of JSON Schema as there is in the document.
    fn valid(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let parts = |of: &Value| of.as_array().unwrap().clone();
        let number = |of: &Value| of.as_f64().unwrap();
        for (keyword, wanted) in schema.as_object().ok_or(format!("{schema} is no schema"))? {
            let holds = match keyword.as_str() {
                "description" | "format" | "default" | "contentMediaType" | "contentSchema" => true,
                "$ref" => {
                    let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                    let found = self.root.pointer(path).ok_or(format!("there is no {wanted}"))?;
                    self.valid(found, value).map_err(|wrong| format!("{path}: {wrong}"))?;
                    true
                }
                "oneOf" => parts(wanted).iter().filter(|part| self.valid(part, value).is_ok()).count() == 1,
                "allOf" => parts(wanted).iter().all(|part| self.valid(part, value).is_ok()),
                "enum" => parts(wanted).contains(value),
                "type" => match wanted {
                    Value::Array(kinds) => kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), value)),
                    kind => is_a(kind.as_str().unwrap(), value),
                },
                "required" => parts(wanted).iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
                "properties" => {
                    for (key, part) in value.as_object().into_iter().flatten() {
                        let known = wanted.get(key).ok_or(format!("`{key}` is not in the document"))?;
                        self.valid(known, part).map_err(|wrong| format!("{key}: {wrong}"))?;
                    }
                    true
                }
                "additionalProperties" => wanted == &json!(false),
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.valid(wanted, item)?;
                    }
                    true
                }
                "minimum" => value.as_f64().is_none_or(|value| value >= number(wanted)),
                "maximum" => value.as_f64().is_none_or(|value| value <= number(wanted)),
                "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= number(wanted)),
                "maxItems" => value.as_array().is_none_or(|items| items.len() as f64 <= number(wanted)),
                other => panic!("teach the test {other}"),
            };
            if !holds {
                return Err(format!("{keyword} {wanted}, not {value}"));
            }
        }
        Ok(())
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let (_stable, canary, site, gateway) = pair().await;
    let flag = std::fs::read_to_string(site.flag_file()).unwrap();
    let rule = "[[rules]]\nwhen = [{ any = [{ header = \"x-a\", equals = \"1\" }, { path = \"/api/\" }] }]\nserve = \"canary\"\n";
    site.write(
        "flags/async-database.toml",
        &format!("{flag}{rule}[ramp]\nsteps = [\"5% 1h\", \"10% approve\", \"100%\"]\n"),
    );
    eventually("the ramp is there", || async { gateway.flag().await["ramp"].is_object() }).await;
    let mut document = Document::of(&gateway).await;
    assert_eq!(document.root["openapi"], "3.1.0");
    let of_flag = |rest: &str| format!("/api/v1/flags/{FLAG}{rest}");
    let (get, post) = (Method::GET, Method::POST);
    let one = "/api/v1/flags/{key}";
    for (path, asked) in [
        ("/health", "/health"),
        ("/ready", "/ready"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/api/v1/flags", "/api/v1/flags"),
        ("/api/v1/instances", "/api/v1/instances"),
        ("/api/v1/approvals", "/api/v1/approvals"),
        ("/api/v1/approvals", "/api/v1/approvals?flag=none"),
        ("/api/v1/approvals", "/api/v1/approvals?flags=none"),
        ("/api/v1/events", "/api/v1/events?limit=1"),
        ("/api/v1/events", "/api/v1/events?limit=0"),
        ("/api/v1/events", "/api/v1/events?flag=No"),
        ("/api/v1/events/stream", "/api/v1/events/stream"),
        ("/api/v1/events/stream", "/api/v1/events/stream?flag=No"),
        ("/api/v1/events/verify", "/api/v1/events/verify"),
        ("/api/v1/events/verify", "/api/v1/events/verify?hash=0"),
        ("/api/v1/export/flagd", "/api/v1/export/flagd"),
        ("/api/v1/export/flagd", "/api/v1/export/flagd?flag=none"),
    ] {
        document.ask(get.clone(), path, asked, None).await;
    }
    for rest in [
        "",
        "/explain",
        "/explain?user=a&header=x-a:1",
        "/explain?x=y",
        "/why",
        "/diffs",
        "/beta",
        "/beta?limit=1",
        "/beta?limit=0",
        "/seconds",
    ] {
        let path = format!("{one}{}", rest.split('?').next().unwrap());
        document.ask(get.clone(), &path, &of_flag(rest), None).await;
        document.ask(get.clone(), &path, &format!("/api/v1/flags/none{rest}"), None).await;
    }
    for body in [json!({"beta": {"add": ["eve"], "remove": ["bob"]}}), json!({"percentage": 101}), json!({"x": 1})] {
        document.ask(Method::PATCH, one, &of_flag(""), Some(body)).await;
    }
    for action in ["pause", "resume", "approve", "skip", "approve", "promote", "resume", "rollback", "promote"] {
        let path = format!("{one}/{action}");
        document.ask(post.clone(), &path, &of_flag(&format!("/{action}")), Some(json!({"reason": "to see"}))).await;
        document.ask(post.clone(), &path, &format!("/api/v1/flags/none/{action}"), None).await;
    }
    for method in [post.clone(), Method::DELETE] {
        let (path, asked) = (format!("{one}/approvals/{{id}}"), of_flag("/approvals/0"));
        document.ask(method, &path, &asked, None).await;
    }
    document.ask(post.clone(), "/api/v1/config/reload", "/api/v1/config/reload", None).await;
    let pause = format!("{}{}", gateway.admin, of_flag("/pause"));
    for (name, value) in [(IF_MATCH, "\"1\""), (IF_MATCH, "x")] {
        let answer = gateway.client.post(&pause).header(name, value).send().await.unwrap();
        document.hold(&post, "/api/v1/flags/{key}/pause", answer).await;
    }
    let typed = gateway.client.post(&pause).header(CONTENT_TYPE, "text/plain").body("{}").send().await.unwrap();
    document.hold(&post, "/api/v1/flags/{key}/pause", typed).await;

    // A canary that the judge takes out has the most to tell.
    document.ask(post.clone(), "/api/v1/flags/{key}/resume", &of_flag("/resume"), None).await;
    document.ask(post.clone(), "/api/v1/flags/{key}/promote", &of_flag("/promote"), None).await;
    canary.answer_with(500);
    eventually("the canary is rolled back", || async {
        for user in 0..20 {
            gateway.get("/api/v1/x", &format!("user-{user}")).send().await.unwrap();
        }
        gateway.flag().await["rollback"]["why"].is_object()
    })
    .await;
    for rest in ["", "/why", "/beta", "/explain?user=u", "/explain?user=alice"] {
        let path = format!("{one}{}", rest.split('?').next().unwrap());
        document.ask(get.clone(), &path, &of_flag(rest), None).await;
    }
    eventually("seconds are kept", || async {
        let kept = gateway.admin_json(&of_flag("/seconds")).await;
        !kept["seconds"].as_array().unwrap().is_empty()
    })
    .await;
    document.ask(get.clone(), "/api/v1/flags/{key}/seconds", &of_flag("/seconds"), None).await;
    document.ask(get.clone(), "/api/v1/events", "/api/v1/events", None).await;

    let described =
        document.root["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        });
    let unseen: Vec<_> = described.filter(|operation| !document.seen.contains(operation)).collect();
    assert_eq!(unseen, [], "each operation is asked for here");
}

#[tokio::test]
async fn every_route_is_in_the_document() {
    let (_stable, _canary, _site, gateway) = pair().await;
    let root = gateway.admin_json("/openapi.json").await;
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin.rs")).unwrap();
    let mut routed = BTreeSet::new();
    for route in source.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').unwrap();
        let handlers = rest.split('\n').next().unwrap();
        for method in ["get", "post", "patch", "put", "delete"] {
            if handlers.contains(&format!("{method}(")) {
                routed.insert((path.to_owned(), method.to_owned()));
            }
        }
    }
    let any = ("/api/v1/flags/{key}/{action}".to_owned(), "post".to_owned());
    assert!(routed.remove(&any), "{routed:?}");
    for action in ["pause", "resume", "promote", "rollback", "approve", "skip"] {
        routed.insert((format!("/api/v1/flags/{{key}}/{action}"), "post".to_owned()));
    }
    let described: BTreeSet<_> = root["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (path.clone(), method.clone())))
        .collect();
    assert_eq!(described, routed, "left is the document, right the router");
}
