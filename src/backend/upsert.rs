//! Many questions at once: what a request may hold, and what becomes of each row.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::backend::api::Fields;
use crate::backend::bank::{Category, Difficulty, starting_values};
use crate::backend::problem::{FieldError, Problem};
use crate::backend::role::Role;

/// The most rows of a request.
const MAX_ROWS: usize = 10_000;

/// The largest request body, in bytes: 10,000 rows of 1,600 bytes.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;

/// The longest id and the longest name of a skill, in characters.
const MAX_NAME: usize = 100;

/// The longest text of a question, in characters.
const MAX_TEXT: usize = 2_000;

/// The most skills of a question.
const MAX_SKILLS: usize = 20;

/// What becomes of a row whose id is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConflict {
    /// It replaces what is there, all but the usage count.
    Update,
    /// What is there stays.
    Skip,
    /// It is reported as an error, and what is there stays.
    Fail,
}

impl OnConflict {
    const ALL: [Self; 3] = [Self::Update, Self::Skip, Self::Fail];

    const fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Skip => "skip",
            Self::Fail => "fail",
        }
    }
}

/// A checked body of `PUT /api/v1/questions`.
#[derive(Debug)]
pub(crate) struct Upsert {
    pub(crate) on_conflict: OnConflict,
    /// Whether one bad row keeps all others out.
    pub(crate) all_or_nothing: bool,
    /// The good rows: their number in the request, and id.
    pub(crate) rows: Vec<(usize, String)>,
    /// The same in full.
    json_rows: Vec<Value>,
    /// The same as the JSON array that the statements take.
    pub(crate) json: String,
    /// What is wrong with the others.
    pub(crate) errors: Vec<RowError>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RowError {
    /// The row's number, from 0.
    pub(crate) row: usize,
    pub(crate) field: String,
    pub(crate) message: String,
}

/// What became of the rows.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Upserted {
    pub(crate) inserted: usize,
    pub(crate) updated: usize,
    pub(crate) skipped: usize,
    pub(crate) errors: Vec<RowError>,
}

impl Upsert {
    /// Checks every row, and names every bad field of each.
    pub(crate) fn check(body: Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::new(body);
        let on_conflict = fields.optional_choice("onConflict", &OnConflict::ALL, OnConflict::name);
        let all_or_nothing = fields.optional_boolean("allOrNothing").unwrap_or(false);
        let rows = fields.array("questions", MAX_ROWS);
        let (on_conflict, all_or_nothing, rows) =
            fields.finish((on_conflict.unwrap_or(OnConflict::Update), all_or_nothing, rows))?;
        let mut good = Vec::new();
        let mut json_rows = Vec::new();
        let mut errors = Vec::new();
        let mut ids: HashMap<String, usize> = HashMap::new();
        for (number, value) in rows.into_iter().enumerate() {
            match row(value) {
                Ok((id, checked)) => match ids.get(&id) {
                    Some(earlier) => errors.push(RowError {
                        row: number,
                        field: "id".to_owned(),
                        message: format!("is that of row {earlier} as well"),
                    }),
                    None => {
                        ids.insert(id.clone(), number);
                        good.push((number, id));
                        json_rows.push(checked);
                    }
                },
                Err(bad) => errors.extend(bad.into_iter().map(|error| RowError {
                    row: number,
                    field: error.field,
                    message: error.message,
                })),
            }
        }
        let json = serde_json::to_string(&json_rows).unwrap_or_else(|_| "[]".to_owned());
        Ok(Self { on_conflict, all_or_nothing, rows: good, json_rows, json, errors })
    }

    /// What became of the rows, when those of `there` were there before.
    pub(crate) fn outcome(&self, there: &[String]) -> Upserted {
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        let old = self.rows.iter().filter(|(_, id)| there.contains(id.as_str()));
        let count = old.clone().count();
        let mut errors = self.errors.clone();
        let (updated, skipped) = match self.on_conflict {
            OnConflict::Update => (count, 0),
            OnConflict::Skip => (0, count),
            OnConflict::Fail => {
                errors.extend(old.map(|(row, _)| RowError {
                    row: *row,
                    field: "id".to_owned(),
                    message: "is there already".to_owned(),
                }));
                errors.sort_by_key(|error| error.row);
                (0, 0)
            }
        };
        Upserted { inserted: self.rows.len().saturating_sub(count), updated, skipped, errors }
    }

    /// The JSON array of what is written, when those of `there` were there before.
    pub(crate) fn rows_to_write(&self, there: &[String]) -> Cow<'_, str> {
        if self.on_conflict == OnConflict::Update || there.is_empty() {
            return Cow::Borrowed(&self.json);
        }
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        let is_new = |row: &&Value| row.get("id").and_then(Value::as_str).is_some_and(|id| !there.contains(id));
        let new: Vec<&Value> = self.json_rows.iter().filter(is_new).collect();
        // Values that were read can be written.
        Cow::Owned(serde_json::to_string(&new).unwrap_or_else(|_| "[]".to_owned()))
    }

    /// Whether nothing may be written, since a row is bad and all or nothing was asked for.
    pub(crate) fn is_refused(&self, outcome: &Upserted) -> bool {
        self.all_or_nothing && !outcome.errors.is_empty()
    }
}

/// A row's id, and the row with everything that the statements need.
fn row(value: Value) -> Result<(String, Value), Vec<FieldError>> {
    let Value::Object(object) = value else {
        return Err(vec![FieldError { field: "row".to_owned(), message: "must be an object".to_owned() }]);
    };
    let mut fields = Fields::new(object);
    let id = fields.stored_text("id", MAX_NAME);
    let text = fields.stored_text("text", MAX_TEXT);
    let category = fields.choice("category", &Category::ALL, Category::name).unwrap_or(Category::Technical);
    let difficulty = fields.choice("difficulty", &Difficulty::ALL, Difficulty::name).unwrap_or(Difficulty::Medium);
    let roles = fields.choices("roles", &Role::ALL, Role::slug);
    let skills = fields.texts("skills", MAX_SKILLS, MAX_NAME);
    let (discrimination, location) = starting_values(category, difficulty);
    let discrimination = fields.optional_number("discrimination", 0.05..=5.0).unwrap_or(discrimination);
    let location = fields.optional_number("location", -6.0..=6.0).unwrap_or(location);
    fields.complete()?;
    let checked = json!({
        "id": id, "text": text, "category": category.name(), "difficulty": difficulty.name(),
        "rank": difficulty.rank(), "discrimination": discrimination, "location": location,
        "search": text.to_lowercase(), "roles": roles, "skills": skills,
    });
    Ok((id, checked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: Value, extra: (&str, Value)) -> Upsert {
        let mut body = Map::new();
        body.insert("questions".to_owned(), rows);
        body.insert(extra.0.to_owned(), extra.1);
        Upsert::check(body).unwrap()
    }

    fn good(id: &str) -> Value {
        json!({"id": id, "text": "Why?", "category": "technical", "difficulty": "easy", "roles": ["qa"], "skills": []})
    }

    #[test]
    fn bad_rows_are_told_by_number_and_field() {
        let rows = json!([good("a"), {"id": "b"}, good("a"), 7, good("c")]);
        let upsert = check(rows, ("onConflict", json!("update")));
        let told: Vec<_> = upsert.errors.iter().map(|e| (e.row, e.field.as_str(), e.message.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, "text", "is required"),
                (1, "category", "is required"),
                (1, "difficulty", "is required"),
                (1, "roles", "is required"),
                (1, "skills", "is required"),
                (2, "id", "is that of row 0 as well"),
                (3, "row", "must be an object"),
            ]
        );
        assert_eq!(upsert.rows, [(0, "a".to_owned()), (4, "c".to_owned())]);
    }

    #[test]
    fn what_is_there_is_treated_as_asked() {
        for (asked, expected) in [("update", (1, 1, 0, 0)), ("skip", (1, 0, 1, 0)), ("fail", (1, 0, 0, 1))] {
            let upsert = check(json!([good("a"), good("b")]), ("onConflict", json!(asked)));
            let outcome = upsert.outcome(&["b".to_owned()]);
            let found = (outcome.inserted, outcome.updated, outcome.skipped, outcome.errors.len());
            assert_eq!(found, expected, "{asked}");
        }
        let whole = check(json!([good("a"), 7]), ("allOrNothing", json!(true)));
        assert!(whole.is_refused(&whole.outcome(&[])));
    }
}
