//! Request and answer types, and the checks that stand between a body and a handler.

mod fields;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::backend::ai::Source;
use crate::backend::analysis::Analysis;
use crate::backend::bank::Difficulty;
use crate::backend::generation::Generated;
use crate::backend::problem::{FieldError, Problem};
use crate::backend::selection::Question;
use crate::backend::session::Plan;

pub(crate) use crate::backend::api::fields::Fields;

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

/// What `POST /api/v1/analyze-answer` answers.
#[derive(Debug, Serialize)]
pub(crate) struct Analyzed {
    pub(crate) source: Source,
    #[serde(flatten)]
    pub(crate) analysis: Analysis,
}

/// A checked body of `POST /api/v1/generate-questions`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GenerateQuestions {
    pub(crate) role: String,
    pub(crate) job_description: String,
    pub(crate) count: u32,
}

impl GenerateQuestions {
    /// Checks every field, and names every bad one.
    pub(crate) fn check(body: Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::new(body);
        let checked = Self {
            role: fields.text("role", MAX_ROLE),
            job_description: fields.text("jobDescription", MAX_PROSE),
            count: fields.optional_integer("count", 1..=MAX_COUNT).unwrap_or(DEFAULT_COUNT),
        };
        fields.finish(checked)
    }
}

/// What `POST /api/v1/generate-questions` answers.
#[derive(Debug, Serialize)]
pub(crate) struct GeneratedQuestions {
    pub(crate) source: Source,
    /// The role that the asked title was understood as.
    pub(crate) role: &'static str,
    pub(crate) questions: Vec<Generated>,
}

/// The longest id of a user or a question, in characters.
const MAX_ID: usize = 200;

/// The most questions of a session.
const MAX_SESSION: u32 = 30;

/// How many questions a session has that names no number.
const DEFAULT_SESSION: u32 = 10;

/// Whose session it is.
const USER_HEADER: &str = "x-user-id";

/// A checked body of `POST /api/v1/sessions`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StartSession {
    pub(crate) role: String,
    pub(crate) job_description: String,
    pub(crate) difficulty: Option<Difficulty>,
    pub(crate) plan: Plan,
    pub(crate) limit: u32,
}

impl StartSession {
    /// Checks every field, and names every bad one.
    pub(crate) fn check(body: Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::new(body);
        let checked = Self {
            role: fields.text("role", MAX_ROLE),
            job_description: fields.stored_text("jobDescription", MAX_PROSE),
            difficulty: fields.optional_choice("difficulty", &Difficulty::ALL, Difficulty::name),
            plan: fields.optional_choice("plan", &Plan::ALL, Plan::name).unwrap_or(Plan::Adaptive),
            limit: fields.optional_integer("questionLimit", 1..=MAX_SESSION).unwrap_or(DEFAULT_SESSION),
        };
        fields.finish(checked)
    }
}

/// A checked body of `POST /api/v1/sessions/{id}/answers`: pairs of a question's id and the answer to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubmitAnswers(pub(crate) Vec<(String, String)>);

impl SubmitAnswers {
    /// Checks one answer, `{"questionId", "answer"}`, or several in `{"answers": […]}`.
    pub(crate) fn check(mut body: Map<String, Value>) -> Result<Self, Problem> {
        if !body.contains_key("answers") {
            return one_answer(body).map(|answer| Self(vec![answer])).map_err(Problem::invalid);
        }
        let values = match body.remove("answers") {
            Some(Value::Array(values)) if (1..=MAX_SESSION as usize).contains(&values.len()) => values,
            _ => {
                let message = format!("must be an array of 1 to {MAX_SESSION} answers");
                return Err(Problem::invalid(vec![FieldError { field: "answers".to_owned(), message }]));
            }
        };
        let mut answers: Vec<(String, String)> = Vec::new();
        let mut errors: Vec<FieldError> = Vec::new();
        for (number, value) in values.into_iter().enumerate() {
            let at = |field: &str| format!("answers[{number}].{field}");
            let Value::Object(object) = value else {
                errors
                    .push(FieldError { field: format!("answers[{number}]"), message: "must be an object".to_owned() });
                continue;
            };
            match one_answer(object) {
                Ok((question, _)) if answers.iter().any(|(earlier, _)| *earlier == question) => {
                    errors.push(FieldError { field: at("questionId"), message: "is answered twice".to_owned() });
                }
                Ok(answer) => answers.push(answer),
                Err(bad) => errors.extend(
                    bad.into_iter().map(|error| FieldError { field: at(&error.field), message: error.message }),
                ),
            }
        }
        Fields::new(body).finish(()).map_err(|problem| problem.with(&mut errors))?;
        if errors.is_empty() { Ok(Self(answers)) } else { Err(Problem::invalid(errors)) }
    }
}

fn one_answer(object: Map<String, Value>) -> Result<(String, String), Vec<FieldError>> {
    let mut fields = Fields::new(object);
    let answer = (fields.stored_text("questionId", MAX_ID), fields.stored_text("answer", MAX_PROSE));
    fields.complete().map(|()| answer)
}

/// The user that a request names.
pub(crate) fn user(headers: &HeaderMap) -> Result<String, Problem> {
    let given = headers.get(USER_HEADER).and_then(|value| value.to_str().ok()).map(str::trim);
    let user = given.filter(|user| !user.is_empty() && user.chars().nth(MAX_ID).is_none());
    user.map(str::to_owned).ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("sessions need a user: send {USER_HEADER} of 1 to {MAX_ID} characters"),
        )
    })
}

/// What `GET /api/v1/services` answers. It names no mode, so that it reads the same from either implementation.
#[derive(Debug, Serialize)]
pub(crate) struct Services {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) endpoints: Vec<&'static Endpoint>,
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
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this path takes")
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
