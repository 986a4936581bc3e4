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
        let mut errors = self.errors;
        errors.extend(
            self.left.into_iter().map(|(field, _)| FieldError { field, message: "is not a known field".to_owned() }),
        );
        if errors.is_empty() { Ok(checked) } else { Err(Problem::invalid(errors)) }
    }

    /// An optional field's value; `null` is the same as leaving it out.
    fn given(&mut self, field: &str) -> Option<Value> {
        self.left.remove(field).filter(|value| !value.is_null())
    }

    fn complain(&mut self, field: &str, message: String) {
        self.errors.push(FieldError { field: field.to_owned(), message });
    }
}
