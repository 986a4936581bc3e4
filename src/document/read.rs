//! What a value can be read as. Each function says what it wanted when it gets something else.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::document::Placed;
use crate::document::tree::{self, Data, Value};

/// The value's data, with what came from the environment read as TOML where that is possible.
fn typed(value: &Value) -> Cow<'_, Data> {
    match &value.data {
        Data::Text(text) => {
            tree::parse_value(text, &value.place).map_or_else(|| Cow::Owned(Data::String(text.clone())), Cow::Owned)
        }
        data => Cow::Borrowed(data),
    }
}

fn wanted<T>(what: &str, data: &Data) -> Result<T, String> {
    Err(format!("wants {what}, not {}", data.kind()))
}

/// A string.
///
/// # Errors
///
/// If it is something else.
pub fn string(value: &Value) -> Result<String, String> {
    match &value.data {
        Data::String(text) | Data::Text(text) => Ok(text.clone()),
        other => wanted("a string", other),
    }
}

/// `true` or `false`.
///
/// # Errors
///
/// If it is something else.
pub fn boolean(value: &Value) -> Result<bool, String> {
    match typed(value).as_ref() {
        Data::Boolean(truth) => Ok(*truth),
        other => wanted("true or false", other),
    }
}

/// A number, whole or not.
///
/// # Errors
///
/// If it is something else.
pub fn number(value: &Value) -> Result<f64, String> {
    match typed(value).as_ref() {
        Data::Integer(number) => Ok(*number as f64),
        Data::Float(number) => Ok(*number),
        other => wanted("a number", other),
    }
}

/// A whole number that fits `T`.
///
/// # Errors
///
/// If it is something else, or too large or too small.
pub fn integer<T: TryFrom<i64>>(value: &Value) -> Result<T, String> {
    match typed(value).as_ref() {
        Data::Integer(number) => T::try_from(*number).map_err(|_| format!("{number} is out of range")),
        other => wanted("a whole number", other),
    }
}

/// A span of time such as `"500ms"`, `"30s"`, `"1h"`; not negative.
///
/// # Errors
///
/// If it is something else.
pub fn duration(value: &Value) -> Result<Duration, String> {
    duration_in(&string(value).or_else(|_| wanted("a duration such as \"500ms\" or \"30s\"", &value.data))?)
}

/// The span of time that `text` writes, such as `500ms`, `30s`, `1h30m`; not negative.
///
/// # Errors
///
/// If it is something else.
pub fn duration_in(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| format!("\"{text}\" is no duration; write it like \"500ms\", \"30s\" or \"1h\""))?;
    Duration::try_from(duration).map_err(|_| format!("\"{text}\" is negative"))
}

/// A number of bytes, such as `65536`, `"64KiB"`, `"100MiB"` or `"1GiB"`.
///
/// # Errors
///
/// If it is something else.
pub fn size(value: &Value) -> Result<u64, String> {
    if let Ok(bytes) = integer::<i64>(value) {
        return u64::try_from(bytes).map_err(|_| format!("{bytes} is negative"));
    }
    let text = string(value)?;
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let read = units.into_iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << bits)
    });
    read.ok_or_else(|| format!("\"{text}\" is no size; write it like 65536, \"64KiB\", \"100MiB\" or \"1GiB\""))
}

/// An array of strings, each with its place.
///
/// # Errors
///
/// If it or one of its members is something else.
pub fn placed_strings(value: &Value) -> Result<Vec<Placed<String>>, String> {
    let placed = |value: &Value| Ok(Placed { value: string(value)?, place: value.place.clone() });
    match typed(value).as_ref() {
        Data::Array(values) => values.iter().map(placed).collect(),
        other => wanted("an array of strings", other),
    }
}

/// An array of strings.
///
/// # Errors
///
/// If it or one of its members is something else.
pub fn strings(value: &Value) -> Result<Vec<String>, String> {
    match typed(value).as_ref() {
        Data::Array(values) => values.iter().map(string).collect(),
        other => wanted("an array of strings", other),
    }
}

/// A string, or an array of at least one, each with its place.
///
/// # Errors
///
/// If it or one of its members is something else, or there is none.
pub fn one_or_more(value: &Value) -> Result<Vec<Placed<String>>, String> {
    let placed = |value: &Value| Ok(Placed { value: string(value)?, place: value.place.clone() });
    match typed(value).as_ref() {
        Data::String(_) => Ok(vec![placed(value)?]),
        Data::Array(values) if values.is_empty() => Err("wants at least one string".to_owned()),
        Data::Array(values) => values.iter().map(placed).collect(),
        other => wanted("a string or an array of strings", other),
    }
}

/// A moment, as a date of TOML or as a string.
///
/// # Errors
///
/// If it is something else, or does not say how far from UTC it is meant.
pub fn timestamp(value: &Value) -> Result<Timestamp, String> {
    let text = match &value.data {
        Data::String(text) | Data::Text(text) | Data::Datetime(text) => text,
        other => return wanted("a moment such as 2026-12-01T08:00:00Z", other),
    };
    text.parse().map_err(|_| {
        format!("{text} is no moment; write date, time and offset as RFC 3339 has them: 2026-12-01T08:00:00Z")
    })
}

/// A string that reads as a `T`.
///
/// # Errors
///
/// If it is something else, or `T` refuses it.
pub fn parsed<T: FromStr<Err: Display>>(value: &Value) -> Result<T, String> {
    let text = string(value)?;
    text.parse().map_err(|error: T::Err| format!("\"{text}\": {error}"))
}
