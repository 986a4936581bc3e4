//! Request and answer types, and the checks that stand between a body and a handler.

mod fields;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::backend::api::fields::Fields;
use crate::backend::bank::Difficulty;
use crate::backend::problem::{FieldError, Problem};
use crate::backend::selection::Question;

/// The largest request body that is read, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// The longest role, in characters.
const MAX_ROLE: usize = 200;

/// The longest job description or answer, in characters.
const MAX_PROSE: usize = 20_000;

/// The longest question, in characters.
const MAX_QUESTION: usize = 2_000;

/// The most questions that one request may ask for.
const MAX_COUNT: u32 = 20;

/// How many questions a request gets that names no number.
const DEFAULT_COUNT: u32 = 5;

/// A checked body of `POST /api/v1/parse-jd`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParseJd {
    pub(crate) role: String,
    pub(crate) job_description: String,
    pub(crate) count: u32,
    pub(crate) difficulty: Option<Difficulty>,
}

impl ParseJd {
    /// Checks every field, and names every bad one.
    pub(crate) fn check(body: Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::new(body);
        let checked = Self {
            role: fields.text("role", MAX_ROLE),
            job_description: fields.text("jobDescription", MAX_PROSE),
            count: fields.optional_integer("count", 1..=MAX_COUNT).unwrap_or(DEFAULT_COUNT),
            difficulty: fields.optional_choice("difficulty", &Difficulty::ALL, Difficulty::name),
        };
        fields.finish(checked)
    }
}

/// What `POST /api/v1/parse-jd` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParsedJd {
    /// The role that the asked title was understood as.
    pub(crate) role: &'static str,
    /// The skills that the description names, in its order.
    pub(crate) skills: Vec<&'static str>,
    pub(crate) questions: Vec<Question>,
}

/// A checked body of `POST /api/v1/analyze-answer`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AnalyzeAnswer {
    pub(crate) job_description: String,
    pub(crate) question: String,
    pub(crate) answer: String,
}

impl AnalyzeAnswer {
    /// Checks every field, and names every bad one.
    pub(crate) fn check(body: Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::new(body);
        let checked = Self {
            job_description: fields.text("jobDescription", MAX_PROSE),
            question: fields.text("question", MAX_QUESTION),
            answer: fields.text("answer", MAX_PROSE),
        };
        fields.finish(checked)
    }
}

/// What `GET /api/v1/services` answers. It names no mode, so that it reads the same from either implementation.
#[derive(Debug, Serialize)]
pub(crate) struct Services {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) endpoints: &'static [Endpoint],
}

/// One endpoint of the service.
#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) description: &'static str,
}

/// The JSON object in a request, or the problem that says why there is none.
pub(crate) fn json_object(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Map<String, Value>, Problem> {
    if !is_json(headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON, with content-type application/json",
        ));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY_BYTES} bytes"))
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"),
    })?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::invalid(vec![FieldError {
            field: "body".to_owned(),
            message: "must be a JSON object".to_owned(),
        }])),
        Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}"))),
    }
}

/// Whether the body is declared as `application/json` or `application/…+json` (RFC 6839).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(declared) = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = declared.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    #[track_caller]
    fn check(body: Value, bad: &[(&str, &str)]) {
        let found = match ParseJd::check(object(body.clone())) {
            Ok(_) => Vec::new(),
            Err(problem) => problem.errors().to_vec(),
        };
        let found: Vec<(&str, &str)> =
            found.iter().map(|error| (error.field.as_str(), error.message.as_str())).collect();
        assert_eq!(found, bad, "{body}");
    }

    #[test]
    fn sound_bodies_pass() {
        check(json!({"role": "r", "jobDescription": "d"}), &[]);
        check(
            json!({"role": "ü".repeat(200), "jobDescription": "d".repeat(20_000), "count": 20, "difficulty": "hard"}),
            &[],
        );
        check(json!({"role": "r", "jobDescription": "d", "count": null, "difficulty": null}), &[]);
    }

    #[test]
    fn defaults_fill_what_is_left_out() {
        let body = object(json!({"role": " Backend ", "jobDescription": "d"}));
        assert_eq!(
            ParseJd::check(body).unwrap(),
            ParseJd { role: "Backend".to_owned(), job_description: "d".to_owned(), count: 5, difficulty: None }
        );
    }

    #[test]
    fn every_bad_field_is_named() {
        check(json!({}), &[("role", "is required"), ("jobDescription", "is required")]);
        check(
            json!({"role": 7, "jobDescription": null, "count": "5", "difficulty": "brutal", "cuont": 5}),
            &[
                ("role", "must be a string"),
                ("jobDescription", "must be a string"),
                ("count", "must be an integer from 1 to 20"),
                ("difficulty", "must be one of easy, medium, hard"),
                ("cuont", "is not a known field"),
            ],
        );
        check(
            json!({"role": " \t", "jobDescription": "d".repeat(20_001)}),
            &[("role", "must not be blank"), ("jobDescription", "must be at most 20000 characters")],
        );
        for count in [json!(0), json!(21), json!(-1), json!(2.5), json!(true), json!(u64::MAX)] {
            check(
                json!({"role": "r", "jobDescription": "d", "count": count}),
                &[("count", "must be an integer from 1 to 20")],
            );
        }
        check(
            json!({"role": "r", "jobDescription": "d", "difficulty": ["easy"]}),
            &[("difficulty", "must be one of easy, medium, hard")],
        );
    }

    #[test]
    fn json_is_told_by_its_declared_type() {
        for (declared, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.api+json", true),
            ("text/plain", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(declared));
            assert_eq!(is_json(&headers), expected, "{declared}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
