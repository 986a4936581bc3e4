//! What values of several sections can be read as.

use std::time::Duration;

use crate::document::{Value, duration, integer, string};

/// A duration in which something can happen.
pub(crate) fn some_time(value: &Value) -> Result<Duration, String> {
    duration(value)
        .and_then(|time| if time.is_zero() { Err("no time at all is too short".to_owned()) } else { Ok(time) })
}

/// A number of bytes, such as `65536`, `"64KiB"`, `"100MiB"` or `"1GiB"`.
pub(crate) fn size(value: &Value) -> Result<u64, String> {
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
