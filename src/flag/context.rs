//! What a decision may know about a request, without knowing what a request is.

// Of `core`, which has the addresses of `std` and none of its sockets.
use core::net::IpAddr;
use std::fmt;

use crate::flag::Arm;

/// The longest targeting key, in bytes; a longer one counts as none.
pub const MAX_TARGETING_KEY_BYTES: usize = 4096;

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// The moment `millis` milliseconds after the Unix epoch, before it if negative.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// In milliseconds since the Unix epoch.
    #[must_use]
    pub fn as_unix_millis(self) -> i64 {
        self.0
    }
}

/// As RFC 3339 has it, in UTC, to the millisecond.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        // Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`. Years begin in March
        // there, so that the leap day is a year's last.
        let (days, millis) = (self.0.div_euclid(DAY_MS) + 719_468, self.0.rem_euclid(DAY_MS));
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}")?;
        if millis % 1000 != 0 {
            write!(f, ".{:03}", millis % 1000)?;
        }
        f.write_str("Z")
    }
}

/// What rules may ask of a request. Every answer is borrowed from it; `None` is missing data.
pub trait Attributes: fmt::Debug {
    /// The first value of the header `name`, which is in lower case.
    fn header(&self, name: &str) -> Option<&str>;
    /// The value of the first cookie called `name`.
    fn cookie(&self, name: &str) -> Option<&str>;
    /// The query as it was sent, without its `?`.
    fn query(&self) -> Option<&str>;
    /// The path as it was sent, without the query.
    fn path(&self) -> Option<&str>;
    /// The method.
    fn method(&self) -> Option<&str>;
    /// The host that the request names, perhaps with a port.
    fn host(&self) -> Option<&str>;
    /// The address of the client.
    fn client(&self) -> Option<IpAddr>;
}

/// No request at all: every attribute is missing.
#[derive(Debug, Clone, Copy)]
pub struct NoRequest;

impl Attributes for NoRequest {
    fn header(&self, _: &str) -> Option<&str> {
        None
    }

    fn cookie(&self, _: &str) -> Option<&str> {
        None
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn path(&self) -> Option<&str> {
        None
    }

    fn method(&self) -> Option<&str> {
        None
    }

    fn host(&self) -> Option<&str> {
        None
    }

    fn client(&self) -> Option<IpAddr> {
        None
    }
}

/// Everything that a decision is made on, beside the flag and its rollout.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationContext<'r> {
    /// The user, or other unit, that the decision sticks to.
    pub targeting_key: Option<&'r str>,
    /// When the request came in.
    pub now: Moment,
    /// What else is known of the request.
    pub attributes: &'r dyn Attributes,
    /// The arm that a tester asked for, who may.
    pub chosen: Option<Arm>,
}

impl<'r> EvaluationContext<'r> {
    /// A context that knows of nothing but a targeting key.
    #[must_use]
    pub fn of_key(targeting_key: Option<&'r str>, now: Moment) -> Self {
        Self { targeting_key, now, attributes: &NoRequest, chosen: None }
    }

    /// The same, but without a targeting key that is empty or too long to be one.
    pub(crate) fn usable(self) -> Self {
        let fits = |key: &&str| !key.is_empty() && key.len() <= MAX_TARGETING_KEY_BYTES;
        Self { targeting_key: self.targeting_key.filter(fits), ..self }
    }
}

/// The value of the first cookie called `name` in the value of a `Cookie` header.
#[must_use]
pub fn cookie_in<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(millis: i64, text: &str) {
        assert_eq!(Moment::from_unix_millis(millis).to_string(), text);
    }

    #[test]
    fn a_moment_is_written_as_people_read_it() {
        check(0, "1970-01-01T00:00:00Z");
        check(-1, "1969-12-31T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        check(1_795_254_000_500, "2026-11-21T09:40:00.500Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        assert_eq!(cookie_in("a=b; uid=\"bob\"; uid=eve", "uid"), Some("bob"));
        assert_eq!(cookie_in("xuid=bob; uid", "uid"), None);
    }
}
