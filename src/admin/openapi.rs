//! The description of the admin API for tools, in `OpenAPI` 3.1.
//!
//! The schemas are derived from the wire types themselves; a test holds every route to its place here, and every answer
//! of a running gateway to its schema.

mod operations;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::admin::openapi::operations::{Answer, Operation, Parameter, operations};
use crate::api::{
    ApprovalList, BetaPage, ChainReport, Change, Changed, Diffs, EventList, Explanation, FlagList, FlagStatus,
    FlagdExport, Health, InstanceList, Problem, Readiness, Reloaded, SecondList, Why,
};

/// The version of the specification that the document keeps to.
const OPENAPI: &str = "3.1.0";

/// Whatever may be answered to anything: nobody let in, too many attempts, another site's page.
const ALWAYS: [u16; 4] = [400, 401, 403, 429];

/// What is answered without a token.
const FOR_ALL: [&str; 2] = ["/health", "/ready"];

/// The whole document.
pub(crate) fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations() {
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described(&operation));
    }
    json!({
        "openapi": OPENAPI,
        "info": {
            "title": "Tidegate admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Rollouts of a canary gateway: seen, changed and judged.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "A token of `tidegate token new`. A viewer reads, an operator changes. Without configured \
                                tokens nobody is asked for one.",
            }},
            "schemas": schemas(),
        },
    })
}

fn described(operation: &Operation) -> Value {
    let Operation { method, path, summary, parameters, body, answer, problems } = operation;
    let mut responses = Map::new();
    let status = if matches!(answer, Answer::Nothing) { "204" } else { "200" };
    responses.insert(status.to_owned(), success(answer));
    if let Answer::Tagged("Changed") = answer {
        responses.insert("202".to_owned(), waits(answer));
    }
    if *path == "/ready" {
        responses.insert("503".to_owned(), success(answer));
    }
    for status in ALWAYS.iter().chain(*problems) {
        responses.insert(status.to_string(), problem(*status));
    }
    let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let named = in_path.map(|name| Parameter::in_path(name).described());
    let parameters: Vec<_> = named.chain(parameters.iter().map(Parameter::described)).collect();
    let mut described = json!({
        "operationId": operation_id(method, path),
        "summary": summary,
        "tags": [path.trim_start_matches("/api/v1/").trim_start_matches('/').split('/').next()],
        "parameters": parameters,
        "responses": responses,
    });
    if let (Some(needed), Some(object)) = (body, described.as_object_mut()) {
        let content = json!({"application/json": {"schema": reference("Change")}});
        object.insert("requestBody".to_owned(), json!({"required": needed, "content": content}));
    }
    if let (true, Some(object)) = (FOR_ALL.contains(path), described.as_object_mut()) {
        object.insert("security".to_owned(), json!([{}, {"token": []}]));
    }
    described
}

/// A name for programs: the method and the words of the path.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1").split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

fn success(answer: &Answer) -> Value {
    match answer {
        Answer::Json(schema) => {
            json!({"description": "As asked for", "content": {"application/json": {"schema": reference(schema)}}})
        }
        Answer::OrNull(schema) => {
            let schema = json!({"oneOf": [reference(schema), {"type": "null"}]});
            json!({"description": "As asked for", "content": {"application/json": {"schema": schema}}})
        }
        Answer::Tagged(schema) => json!({
            "description": "The flag, or what became of it; its generation is the ETag",
            "headers": {"etag": {"description": "For `If-Match`", "schema": {"type": "string"}}},
            "content": {"application/json": {"schema": reference(schema)}},
        }),
        Answer::Nothing => json!({"description": "It is done"}),
        Answer::Object => {
            json!({"description": "As asked for", "content": {"application/json": {"schema": {"type": "object"}}}})
        }
        // OpenAPI 3.2 calls it `itemSchema`; 3.1 has no word for the events of a stream.
        Answer::Stream(schema) => {
            let data = json!({
                "type": "string", "contentMediaType": "application/json", "contentSchema": reference(schema),
            });
            let item = json!({
                "type": "object",
                "required": ["id", "event", "data"],
                "properties": {"id": {"type": "string"}, "event": {"enum": ["change"]}, "data": data},
            });
            let stream = json!({"schema": {"type": "string"}, "x-itemSchema": item});
            json!({"description": "One message for each event", "content": {"text/event-stream": stream}})
        }
        Answer::Text(media_type) => {
            json!({"description": "As asked for", "content": {*media_type: {"schema": {"type": "string"}}}})
        }
    }
}

/// The same answer, to what is not done yet.
fn waits(answer: &Answer) -> Value {
    let mut described = success(answer);
    if let Some(object) = described.as_object_mut() {
        let text = "Nothing is done yet: it waits for a second operator, as `approval`";
        object.insert("description".to_owned(), text.into());
    }
    described
}

fn problem(status: u16) -> Value {
    let description = match status {
        400 => "What was sent makes no sense",
        401 => "A token is needed, or it is unknown",
        403 => "The token's role does not allow it, it takes another operator, or another site's page asks",
        404 => "There is no such flag",
        409 => "What is in force does not allow it, or it is under way",
        412 => "It has changed since `If-Match`",
        413 => "The body is too large",
        415 => "The body is no JSON",
        422 => "What is to be put in force is bad, or the `Idempotency-Key` was another request's",
        429 => "Too many attempts or requests; wait",
        503 => "The store cannot be used",
        _ => "Refused",
    };
    json!({"description": description, "content": {Problem::MEDIA_TYPE: {"schema": reference("Problem")}}})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// Every schema that an answer or a body has, and those that they refer to.
fn schemas() -> BTreeMap<String, RefOr<Schema>> {
    let mut found = Vec::new();
    add::<ApprovalList>(&mut found);
    add::<BetaPage>(&mut found);
    add::<ChainReport>(&mut found);
    add::<Change>(&mut found);
    add::<Changed>(&mut found);
    add::<Diffs>(&mut found);
    add::<EventList>(&mut found);
    add::<Explanation>(&mut found);
    add::<FlagList>(&mut found);
    add::<FlagStatus>(&mut found);
    add::<FlagdExport>(&mut found);
    add::<Health>(&mut found);
    add::<InstanceList>(&mut found);
    add::<Problem>(&mut found);
    add::<Readiness>(&mut found);
    add::<Reloaded>(&mut found);
    add::<SecondList>(&mut found);
    add::<Why>(&mut found);
    found.into_iter().collect()
}

fn add<T: ToSchema>(found: &mut Vec<(String, RefOr<Schema>)>) {
    found.push((T::name().into_owned(), <T as PartialSchema>::schema()));
    T::schemas(found);
}
