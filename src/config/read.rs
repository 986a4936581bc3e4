//! What values of several sections can be read as.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::document::{Placed, Section, Value, duration, size, string, strings};
use crate::proxy::MAX_RETRY_BUFFER;

/// A duration in which something can happen.
pub(crate) fn some_time(value: &Value) -> Result<Duration, String> {
    duration(value)
        .and_then(|time| if time.is_zero() { Err("no time at all is too short".to_owned()) } else { Ok(time) })
}

/// The most of a request's body that is kept for repeating it.
pub(crate) fn retry_buffer(value: &Value) -> Result<usize, String> {
    let bytes = usize::try_from(size(value)?).unwrap_or(usize::MAX);
    if bytes > MAX_RETRY_BUFFER {
        return Err(format!("{bytes} bytes are too many: at most {MAX_RETRY_BUFFER} of a request are kept"));
    }
    Ok(bytes)
}

/// A share from 0 to 1, written as a percentage: `"20%"`.
pub(crate) fn share(value: &Value) -> Result<f64, String> {
    let text = string(value).map_err(|_| "wants a percentage, such as \"20%\"".to_owned())?;
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("\"{text}\" is no share; write a percentage from \"0%\" to \"100%\"")),
    }
}

/// The strings of an array, each read as a `T`; `None` if one of them cannot be.
pub(crate) fn each<T: FromStr<Err: Display>>(section: &mut Section<'_>, key: &'static str) -> Option<Vec<T>> {
    let Placed { value, place } = section.optional(key, strings)?;
    let read = value.iter().map(|text| {
        let read = text.parse();
        read.map_err(|error| section.problems().report(&place, format!("`{key}`: \"{text}\": {error}"))).ok()
    });
    // All of them first, so that every problem is told.
    read.collect::<Vec<_>>().into_iter().collect()
}
