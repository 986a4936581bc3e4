//! Percentages in steps of 0.001, which is one bucket.

use std::fmt;
use std::str::FromStr;

use crate::flag::bucket::{BUCKETS, Bucket};

/// A share of targeting keys: 0 to 100 % in steps of 0.001 %, held as the number of buckets that it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentage(u32);

/// Why a number is not a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PercentageError {
    /// Not a number, or outside 0 to 100.
    #[error("a percentage is a number from 0 to 100")]
    OutOfRange,
    /// Finer than the buckets can show.
    #[error("a percentage goes in steps of 0.001")]
    TooFine,
}

/// Buckets in one percent.
const BUCKETS_PER_PERCENT: f64 = BUCKETS as f64 / 100.0;

impl Percentage {
    /// Nobody.
    pub const ZERO: Self = Self(0);
    /// Everybody.
    pub const FULL: Self = Self(BUCKETS);

    /// The percentage that `percent` writes.
    ///
    /// # Errors
    ///
    /// If `percent` is not in 0 to 100, or is not a multiple of 0.001 (to within the rounding of an `f64`).
    pub fn from_percent(percent: f64) -> Result<Self, PercentageError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(PercentageError::OutOfRange);
        }
        let buckets = (percent * BUCKETS_PER_PERCENT).round();
        if (buckets / BUCKETS_PER_PERCENT - percent).abs() > 1e-9 {
            return Err(PercentageError::TooFine);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number in 0 to 100,000")]
        Ok(Self(buckets as u32))
    }

    /// The percentage of `thousandths` of a percent, 0 to 100,000; `None` above.
    #[must_use]
    pub fn from_thousandths(thousandths: u32) -> Option<Self> {
        (thousandths <= BUCKETS).then_some(Self(thousandths))
    }

    /// In thousandths of a percent, 0 to 100,000.
    #[must_use]
    pub fn thousandths(self) -> u32 {
        self.0
    }

    /// In percent, 0 to 100.
    #[must_use]
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / BUCKETS_PER_PERCENT
    }

    /// Whether the canary owns `bucket` at this percentage: it owns `[0, percentage)`, so raising only ever adds.
    #[must_use]
    pub fn owns(self, bucket: Bucket) -> bool {
        bucket.get() < self.0
    }
}

impl FromStr for Percentage {
    type Err = PercentageError;

    /// Reads `25`, `0.5` and, as people write it, `25%`.
    fn from_str(text: &str) -> Result<Self, PercentageError> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        Self::from_percent(number.parse().map_err(|_| PercentageError::OutOfRange)?)
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.as_percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(percent: f64, expected: Result<u32, PercentageError>) {
        assert_eq!(Percentage::from_percent(percent).map(|percentage| percentage.0), expected, "{percent}");
    }

    #[test]
    fn a_percentage_is_a_number_of_buckets() {
        check(0.0, Ok(0));
        check(0.001, Ok(1));
        check(10.0, Ok(10_000));
        check(33.333, Ok(33_333));
        check(99.999, Ok(99_999));
        check(100.0, Ok(100_000));
        check(-0.001, Err(PercentageError::OutOfRange));
        check(100.001, Err(PercentageError::OutOfRange));
        check(f64::NAN, Err(PercentageError::OutOfRange));
        check(f64::INFINITY, Err(PercentageError::OutOfRange));
        check(0.0005, Err(PercentageError::TooFine));
    }

    #[test]
    fn every_step_survives_its_decimal_form() {
        for buckets in 0..=BUCKETS {
            let percentage = Percentage(buckets);
            assert_eq!(format!("{}", percentage.as_percent()).parse(), Ok(percentage));
        }
    }

    #[test]
    fn people_may_write_the_sign() {
        assert_eq!("25%".parse(), Percentage::from_percent(25.0));
        assert_eq!("0.5 %".parse(), Percentage::from_percent(0.5));
        assert_eq!("many".parse::<Percentage>(), Err(PercentageError::OutOfRange));
    }
}
