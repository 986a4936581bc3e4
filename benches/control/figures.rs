//! What was measured, as people read it.

use std::time::Duration;

/// How long something took, again and again.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that this part of all did not exceed, by the nearest rank.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is small and positive")]
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// A row of the table under [`HEAD`].
    pub(crate) fn row(&self, name: &str) -> String {
        let figure = |part| format!("{:.1}", self.quantile(part).as_secs_f64() * 1e3);
        format!("{name:<34} {:>6} {:>9} {:>9} {:>9}", self.0.len(), figure(0.5), figure(0.99), figure(1.0))
    }
}

/// Of tables of [`Times`].
pub(crate) const HEAD: &str = "                                    count    p50 ms    p99 ms    max ms";

/// The middle of `values`; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// One line of what a proof counted.
pub(crate) fn line(what: &str, value: impl std::fmt::Display) {
    println!("{what:<66} {value:>12}");
}
