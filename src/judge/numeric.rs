//! Sums and divergences that stay exact where rates are tiny and evidence is huge.

/// `ln(exp(a) + exp(b))`, without leaving the range of a number on the way. Minus infinity stands for nothing.
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The Kullback-Leibler divergence of a coin that fails at rate `q` from one that fails at `p`, in nats a toss: what one
/// outcome of the second is worth on average as evidence against the first.
///
/// `q` must lie between 0 and 1, neither included.
pub(crate) fn divergence(p: f64, q: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    (part(p, q) + part(1.0 - p, 1.0 - q)).max(0.0)
}

/// The rate whose odds are `ratio` times those of `rate`.
pub(crate) fn with_odds(rate: f64, ratio: f64) -> f64 {
    let scaled = ratio * rate;
    scaled / (1.0 - rate + scaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_add_is_exact_at_both_ends() {
        assert!((log_add(0.0, 0.0) - 2.0_f64.ln()).abs() < 1e-15);
        assert_eq!(log_add(1e19, 3.0), 1e19);
        assert_eq!(log_add(-1e19, 3.0), 3.0);
        assert_eq!(log_add(f64::NEG_INFINITY, -4.0), -4.0);
    }

    #[test]
    fn divergence_is_zero_only_between_equals() {
        assert_eq!(divergence(0.3, 0.3), 0.0);
        assert!((divergence(0.0, 0.5) - 2.0_f64.ln()).abs() < 1e-15);
        assert!((divergence(1.0, 0.25) - 4.0_f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn odds_multiply() {
        let rate = with_odds(0.01, 9.0);
        assert!((rate / (1.0 - rate) / (0.01 / 0.99) - 9.0).abs() < 1e-12);
    }
}
