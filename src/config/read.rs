//! What values of several sections can be read as.

use std::time::Duration;

use crate::document::{Value, duration, integer, string};
use crate::proxy::MAX_RETRY_BUFFER;

/// A duration in which something can happen.
pub(crate) fn some_time(value: &Value) -> Result<Duration, String> {
    duration(value)
        .and_then(|time| if time.is_zero() { Err("no time at all is too short".to_owned()) } else { Ok(time) })
}

/// A number of bytes: `65536`, `"64KiB"`, `"1MiB"`, `"1GiB"`.
pub(crate) fn size(value: &Value) -> Result<usize, String> {
    if let Ok(bytes) = integer(value) {
        return Ok(bytes);
    }
    let text = string(value).map_err(|_| "wants a number of bytes, such as 65536 or \"64KiB\"".to_owned())?;
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let read = units.into_iter().find_map(|(unit, bytes)| {
        let number: usize = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(bytes)
    });
    read.ok_or_else(|| format!("\"{text}\" is no size; write it like 65536, \"64KiB\" or \"1MiB\""))
}

/// The most of a request's body that is kept for repeating it.
pub(crate) fn retry_buffer(value: &Value) -> Result<usize, String> {
    let bytes = size(value)?;
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
