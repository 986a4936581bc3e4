//! Seeded chance: numbers that look random and come again with the seed.

/// A source of chance: xoshiro256++ by Blackman and Vigna, filled by `SplitMix64`.
#[derive(Debug, Clone)]
pub struct Chance {
    state: [u64; 4],
}

impl Chance {
    /// The source for the `index`-th try under a seed. Different indices give unrelated sources.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        let mut mix = seed ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03);
        let mut next = || {
            mix = mix.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = mix;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let word = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c_mixed, d_mixed) = (c ^ a, d ^ b);
        self.state = [a ^ d_mixed, b ^ c_mixed, c_mixed ^ (b << 17), d_mixed.rotate_left(45)];
        word
    }

    /// A number above 0 up to 1, each as likely.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / 9_007_199_254_740_992.0
    }

    /// Whether something happens that does so with probability `rate`.
    pub(crate) fn happens(&mut self, rate: f64) -> bool {
        self.unit() <= rate
    }

    /// A number below `end`, each as likely.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// How many of `trials` succeed when each does with probability `rate`.
    ///
    /// It jumps from success to success, so the time is that of the rarer outcome.
    pub fn binomial(&mut self, trials: u64, rate: f64) -> u64 {
        if rate > 0.5 {
            return trials - self.binomial(trials, 1.0 - rate);
        }
        if rate <= 0.0 || trials == 0 {
            return 0;
        }
        let log_miss = (-rate).ln_1p();
        let (mut passed, mut successes) = (0.0, 0);
        loop {
            passed += (self.unit().ln() / log_miss).floor() + 1.0;
            if passed > trials as f64 {
                return successes;
            }
            successes += 1;
        }
    }

    /// How many of independent events happen when `mean` of them do on average.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        let (mut passed, mut events) = (0.0, 0);
        loop {
            passed -= self.unit().ln();
            if passed > mean {
                return events;
            }
            events += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut draw: impl FnMut(&mut Chance) -> u64, mean: f64, variance: f64) {
        const DRAWS: u64 = 40_000;
        let mut chance = Chance::new(7, 1);
        let drawn: Vec<f64> = (0..DRAWS).map(|_| draw(&mut chance) as f64).collect();
        let average = drawn.iter().sum::<f64>() / DRAWS as f64;
        let spread = drawn.iter().map(|value| (value - average).powi(2)).sum::<f64>() / DRAWS as f64;
        assert!((average - mean).abs() < 5.0 * (variance / DRAWS as f64).sqrt() + 1e-12, "mean {average}");
        assert!((spread / variance.max(1e-12) - 1.0).abs() < 0.05 || variance < 1e-12, "variance {spread}");
    }

    #[test]
    fn draws_have_their_mean_and_variance() {
        check(|chance| chance.binomial(50, 0.02), 1.0, 0.98);
        check(|chance| chance.binomial(50, 0.9), 45.0, 4.5);
        check(|chance| chance.binomial(50, 0.0), 0.0, 0.0);
        check(|chance| chance.binomial(50, 1.0), 50.0, 0.0);
        check(|chance| chance.poisson(0.3), 0.3, 0.3);
        check(|chance| chance.poisson(40.0), 40.0, 40.0);
    }
}
