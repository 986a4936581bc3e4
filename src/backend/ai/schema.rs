//! The JSON Schemas of what the endpoint may say, and the check by them.

use serde_json::Value;

/// What an analysis has to be.
pub(crate) const ANALYSIS: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "required": ["score", "missingKeywords", "matchedKeywords", "improvements"],
    "properties": {
        "score": {"type": "integer", "minimum": 0, "maximum": 100},
        "missingKeywords": {"type": "array", "maxItems": 30, "items": {"type": "string", "minLength": 1, "maxLength": 100}},
        "matchedKeywords": {"type": "array", "maxItems": 30, "items": {"type": "string", "minLength": 1, "maxLength": 100}},
        "improvements": {"type": "array", "maxItems": 10, "items": {"type": "string", "minLength": 1, "maxLength": 500}}
    }
}"#;

/// What made-up questions have to be.
pub(crate) const QUESTIONS: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "required": ["questions"],
    "properties": {
        "questions": {"type": "array", "minItems": 1, "maxItems": 20, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["text", "category", "difficulty", "skills"],
            "properties": {
                "text": {"type": "string", "minLength": 10, "maxLength": 1000},
                "category": {"type": "string", "enum": ["technical", "system-design", "problem-solving", "behavioral"]},
                "difficulty": {"type": "string", "enum": ["easy", "medium", "hard"]},
                "skills": {"type": "array", "maxItems": 10, "items": {"type": "string", "minLength": 1, "maxLength": 100}}
            }
        }}
    }
}"#;

/// Holds a value against a schema of the keywords used above (JSON Schema 2020-12), and says what does not fit, where.
pub(crate) fn check(schema: &Value, value: &Value) -> Result<(), String> {
    at(schema, value, "$")
}

fn at(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let number = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let refuse = |what: &str| Err(format!("{place} {what}"));
    let fits = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        _ => false,
    };
    if !fits {
        return refuse("is of another type");
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|choices| !choices.contains(value)) {
        return refuse("is none of the choices");
    }
    if let Some(found) = value.as_i64() {
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
        if bound("minimum").is_some_and(|least| found < least) || bound("maximum").is_some_and(|most| found > most) {
            return refuse("is out of range");
        }
    }
    let size = match value {
        Value::String(text) => Some((text.chars().count(), "minLength", "maxLength")),
        Value::Array(items) => Some((items.len(), "minItems", "maxItems")),
        _ => None,
    };
    if let Some((size, least, most)) = size {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if number(least).is_some_and(|least| size < least) || number(most).is_some_and(|most| size > most) {
            return refuse("is too short or too long");
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (number, item) in items.iter().enumerate() {
            at(schema, item, &format!("{place}[{number}]"))?;
        }
    }
    if let Some(object) = value.as_object() {
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return refuse(&format!("lacks {name}"));
            }
        }
        for (name, member) in object {
            match schema.get("properties").and_then(|properties| properties.get(name)) {
                Some(schema) => at(schema, member, &format!("{place}.{name}"))?,
                None => return refuse(&format!("has the unknown member {name}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn refused(schema: &str, value: &Value, complaint: &str) {
        let schema = serde_json::from_str(schema).unwrap();
        assert_eq!(check(&schema, value).err().as_deref(), Some(complaint), "{value}");
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let good = json!({"score": 50, "missingKeywords": ["Rust"], "matchedKeywords": [], "improvements": ["More."]});
        assert_eq!(check(&serde_json::from_str(ANALYSIS).unwrap(), &good), Ok(()));
        let with = |name: &str, value: Value| {
            let mut changed = good.clone();
            changed[name] = value;
            changed
        };
        refused(ANALYSIS, &json!([]), "$ is of another type");
        refused(ANALYSIS, &with("score", json!(101)), "$.score is out of range");
        refused(ANALYSIS, &with("score", json!(-1)), "$.score is out of range");
        refused(ANALYSIS, &with("score", json!(50.5)), "$.score is of another type");
        refused(
            ANALYSIS,
            &with("improvements", json!(["x".repeat(501)])),
            "$.improvements[0] is too short or too long",
        );
        refused(ANALYSIS, &with("matchedKeywords", json!(["a", 7])), "$.matchedKeywords[1] is of another type");
        refused(ANALYSIS, &with("mood", json!("good")), "$ has the unknown member mood");
        refused(ANALYSIS, &json!({"score": 1}), "$ lacks missingKeywords");
        let question =
            json!({"questions": [{"text": "Why is it so?", "category": "magic", "difficulty": "easy", "skills": []}]});
        refused(QUESTIONS, &question, "$.questions[0].category is none of the choices");
        refused(QUESTIONS, &json!({"questions": []}), "$.questions is too short or too long");
    }
}
