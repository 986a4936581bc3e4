//! Reads a JSON object field by field and collects what is wrong, so that one answer names every bad field.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::backend::problem::{FieldError, Problem};

/// A JSON object whose fields are taken out one by one.
///
/// A field that does not validate leaves a stand-in value and a complaint; [`Fields::finish`] hands the result out
/// only if there was no complaint.
#[derive(Debug)]
pub(crate) struct Fields {
    left: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(crate) fn new(body: Map<String, Value>) -> Self {
        Self { left: body, errors: Vec::new() }
    }

    /// A required text of 1 to `max` characters, without the white space around it.
    pub(crate) fn text(&mut self, field: &str, max: usize) -> String {
        let complaint = match self.left.remove(field) {
            None => "is required".to_owned(),
            Some(Value::String(text)) if text.trim().is_empty() => "must not be blank".to_owned(),
            // Counting stops one past the limit, however long the text is.
            Some(Value::String(text)) if text.chars().nth(max).is_some() => {
                format!("must be at most {max} characters")
            }
            Some(Value::String(text)) => return text.trim().to_owned(),
            Some(_) => "must be a string".to_owned(),
        };
        self.complain(field, complaint);
        String::new()
    }

    /// A required text that is stored: without the one character that `PostgreSQL` cannot keep.
    pub(crate) fn stored_text(&mut self, field: &str, max: usize) -> String {
        let text = self.text(field, max);
        if text.contains('\0') {
            self.complain(field, "must not contain the character U+0000".to_owned());
        }
        text
    }

    /// A required array of at most `max` values.
    pub(crate) fn array(&mut self, field: &str, max: usize) -> Vec<Value> {
        let complaint = match self.left.remove(field) {
            None => "is required".to_owned(),
            Some(Value::Array(values)) if values.len() <= max => return values,
            Some(Value::Array(_)) => format!("must be at most {max} values"),
            Some(_) => "must be an array".to_owned(),
        };
        self.complain(field, complaint);
        Vec::new()
    }

    /// A required array of different texts that are stored.
    pub(crate) fn texts(&mut self, field: &str, max: usize, max_text: usize) -> Vec<String> {
        let values = self.array(field, max);
        let texts: Vec<String> = values.iter().filter_map(Value::as_str).map(str::trim).map(str::to_owned).collect();
        let sound = |text: &String| !text.is_empty() && !text.contains('\0') && text.chars().nth(max_text).is_none();
        let distinct: std::collections::HashSet<&String> = texts.iter().collect();
        if texts.len() != values.len() || !texts.iter().all(sound) || distinct.len() != texts.len() {
            self.complain(field, format!("must be different texts of 1 to {max_text} characters"));
        }
        texts
    }

    /// A required array of different choices, at least one, as their names.
    pub(crate) fn choices<T: Copy>(
        &mut self,
        field: &str,
        choices: &[T],
        name: fn(T) -> &'static str,
    ) -> Vec<&'static str> {
        if !self.left.contains_key(field) {
            self.complain(field, "is required".to_owned());
            return Vec::new();
        }
        let values = self.array(field, choices.len());
        let mut names: Vec<&'static str> = Vec::new();
        for value in &values {
            let found = choices.iter().map(|choice| name(*choice)).find(|name| value.as_str() == Some(name));
            names.extend(found.filter(|name| !names.contains(name)));
        }
        if names.is_empty() || names.len() != values.len() {
            let all: Vec<&str> = choices.iter().copied().map(name).collect();
            self.complain(field, format!("must be different ones of {}, at least one", all.join(", ")));
        }
        names
    }

    /// One of `choices` by its name.
    pub(crate) fn choice<T: Copy>(&mut self, field: &str, choices: &[T], name: fn(T) -> &'static str) -> Option<T> {
        if !self.left.contains_key(field) {
            self.complain(field, "is required".to_owned());
            return None;
        }
        if self.left.get(field).is_some_and(Value::is_null) {
            let names: Vec<&str> = choices.iter().copied().map(name).collect();
            self.complain(field, format!("must be one of {}", names.join(", ")));
        }
        self.optional_choice(field, choices, name)
    }

    /// A number within `range`, if one is given.
    pub(crate) fn optional_number(&mut self, field: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let number = self.given(field)?.as_f64().filter(|number| range.contains(number));
        if number.is_none() {
            self.complain(field, format!("must be a number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// `true` or `false`, if one is given.
    pub(crate) fn optional_boolean(&mut self, field: &str) -> Option<bool> {
        let truth = self.given(field)?.as_bool();
        if truth.is_none() {
            self.complain(field, "must be true or false".to_owned());
        }
        truth
    }

    /// A whole number within `range`, if one is given.
    pub(crate) fn optional_integer(&mut self, field: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.given(field)?;
        let number =
            value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.complain(field, format!("must be an integer from {low} to {high}"));
        }
        number
    }

    /// One of `choices` by its name, if one is given.
    pub(crate) fn optional_choice<T: Copy>(
        &mut self,
        field: &str,
        choices: &[T],
        name: fn(T) -> &'static str,
    ) -> Option<T> {
        let value = self.given(field)?;
        let choice = choices.iter().copied().find(|choice| value.as_str() == Some(name(*choice)));
        if choice.is_none() {
            let names: Vec<&str> = choices.iter().copied().map(name).collect();
            self.complain(field, format!("must be one of {}", names.join(", ")));
        }
        choice
    }

    /// Hands out what was read, unless a field did not validate or was never asked for.
    pub(crate) fn finish<T>(self, checked: T) -> Result<T, Problem> {
        self.complete().map(|()| checked).map_err(Problem::invalid)
    }

    /// What did not validate, or was never asked for.
    pub(crate) fn complete(self) -> Result<(), Vec<FieldError>> {
        let mut errors = self.errors;
        errors.extend(
            self.left.into_iter().map(|(field, _)| FieldError { field, message: "is not a known field".to_owned() }),
        );
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// An optional field's value; `null` is the same as leaving it out.
    fn given(&mut self, field: &str) -> Option<Value> {
        self.left.remove(field).filter(|value| !value.is_null())
    }

    fn complain(&mut self, field: &str, message: String) {
        self.errors.push(FieldError { field: field.to_owned(), message });
    }
}
