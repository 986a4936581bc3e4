//! The one clock: everything else takes the time as an argument, or asks here.

use std::time::Instant;

use jiff::Timestamp;

/// The moment, for measuring spans.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The moment, for people and for the store.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one clock")]
pub fn wall() -> Timestamp {
    Timestamp::now()
}
