//! Whole numbers as other programs write them in JSON.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A whole number, 0 or more. `5.0` is one too: many programs know only one kind of number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count(pub(crate) u64);

/// Above this not every whole number can be told from the next in a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, 0 or more")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Count, E> {
                u64::try_from(value).map(Count).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
            }

            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be whole and in range"
            )]
            fn visit_f64<E: Error>(self, value: f64) -> Result<Count, E> {
                if value.fract().abs() > 0.0 || !(0.0..=EXACT).contains(&value) {
                    return Err(E::invalid_value(Unexpected::Float(value), &self));
                }
                Ok(Count(value as u64))
            }
        }

        deserializer.deserialize_any(Whole)
    }
}
