//! What values of several sections can be read as.

use std::time::Duration;

use crate::document::{Value, duration};

/// A duration in which something can happen.
pub(crate) fn some_time(value: &Value) -> Result<Duration, String> {
    duration(value)
        .and_then(|time| if time.is_zero() { Err("no time at all is too short".to_owned()) } else { Ok(time) })
}
