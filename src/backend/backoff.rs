//! How long to wait before a try is repeated.

use std::time::Duration;

/// The longest first wait.
const BASE: Duration = Duration::from_millis(5);

/// The longest wait of all.
const CAP: Duration = Duration::from_millis(500);

/// The wait before the next try, after `tries` that failed; `draw` is an even draw from [0, 1).
///
/// Exponential backoff with full jitter: an even draw from nothing to `min(CAP, BASE · 2^(tries − 1))`, which spreads
/// competitors best (Brooker: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). `None` if the wait would
/// not end before `left` is over, so that nobody is kept waiting for an answer that comes too late.
pub(crate) fn wait(tries: u32, draw: f64, left: Duration) -> Option<Duration> {
    let doubled = 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
    let ceiling = BASE.saturating_mul(doubled).min(CAP);
    let wait = ceiling.mul_f64(draw.clamp(0.0, 1.0));
    (wait < left).then_some(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_are_bounded_by_the_cap_and_by_what_is_left(tries in 0_u32..100, draw in 0.0_f64..1.0, left in 0_u64..2_000) {
            let left = Duration::from_millis(left);
            if let Some(wait) = wait(tries, draw, left) {
                prop_assert!(wait <= CAP && wait < left);
            }
        }
    }

    #[test]
    fn the_ceiling_doubles() {
        let left = Duration::from_secs(60);
        let ceilings: Vec<_> = (1..=9).map(|tries| wait(tries, 1.0, left).unwrap().as_millis()).collect();
        assert_eq!(ceilings, [5, 10, 20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(wait(3, 0.0, left), Some(Duration::ZERO));
        assert_eq!(wait(1, 0.5, Duration::ZERO), None);
    }
}
