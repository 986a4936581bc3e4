//! Both arms' error rates of late, gathered look by look, for a line that shows how they went.

use std::collections::BTreeMap;

use crate::api::{ArmStatus, FlagStatus, Second};

/// The cells of a line, one character each.
pub(crate) const CELLS: i64 = 60;

/// The seconds that a cell stands for.
const SECONDS_PER_CELL: i64 = 3;

/// How far a line goes back, in seconds.
pub(crate) const SPAN: i64 = CELLS * SECONDS_PER_CELL;

/// A line is never higher than this error rate, so that one failure in a thousand requests does not look like a fire.
const LEAST_TOP: f64 = 0.01;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Requests, and how many of them failed.
type Counts = [u64; 2];

/// What was counted of one flag of late.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// Stable's and the canary's, by number of cell.
    cells: BTreeMap<i64, [Counts; 2]>,
    /// The generation and what both arms had counted in it at the last look.
    seen: Option<(u64, [Counts; 2])>,
}

impl Rates {
    /// Takes in what the gateways had counted before the first look.
    pub(crate) fn recall(&mut self, seconds: &[Second]) {
        for second in seconds {
            // Of the streams, the one that counts failures.
            for stream in second.counts.streams.iter().filter(|stream| stream.stream == "error_rate") {
                self.add(second.at, [stream.stable, stream.canary]);
            }
        }
    }

    /// Takes in what has come since the last look, at the second `at`.
    pub(crate) fn look(&mut self, at: i64, flag: &FlagStatus) {
        let of = |arm: &ArmStatus| [arm.requests, arm.failures];
        let now = [of(&flag.arms.stable), of(&flag.arms.canary)];
        match self.seen.replace((flag.generation, now)) {
            // A generation counts from nothing.
            Some((generation, _)) if generation != flag.generation => self.add(at, now),
            Some((_, [stable, canary])) => {
                let [now_stable, now_canary] = now;
                self.add(at, [since(now_stable, stable), since(now_canary, canary)]);
            }
            None => {}
        }
        let oldest = at.div_euclid(SECONDS_PER_CELL) - CELLS;
        self.cells.retain(|cell, _| *cell > oldest);
    }

    fn add(&mut self, at: i64, counts: [Counts; 2]) {
        let cell = self.cells.entry(at.div_euclid(SECONDS_PER_CELL)).or_default();
        for (sum, counts) in cell.iter_mut().flatten().zip(counts.into_iter().flatten()) {
            *sum = sum.saturating_add(counts);
        }
    }

    /// The rate at the top of both lines.
    pub(crate) fn top(&self) -> f64 {
        let rates = self.cells.values().flatten().filter_map(|counts| rate(*counts));
        rates.fold(LEAST_TOP, f64::max)
    }

    /// Stable's line and the canary's, up to the second `at`, each as high as [`Rates::top`]; blank where there were no requests.
    pub(crate) fn lines(&self, at: i64) -> [String; 2] {
        let (newest, top) = (at.div_euclid(SECONDS_PER_CELL), self.top());
        let bar = |counts: Option<Counts>| {
            let Some(rate) = counts.and_then(rate) else { return ' ' };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
            let step = (rate / top * (BARS.len() - 1) as f64).ceil() as usize;
            BARS.get(step).copied().unwrap_or('█')
        };
        let cells = || ((newest - CELLS + 1)..=newest).map(|cell| self.cells.get(&cell));
        [
            cells().map(|cell| bar(cell.map(|[stable, _]| *stable))).collect(),
            cells().map(|cell| bar(cell.map(|[_, canary]| *canary))).collect(),
        ]
    }
}

fn rate([requests, failures]: Counts) -> Option<f64> {
    (requests > 0).then(|| failures as f64 / requests as f64)
}

fn since([requests, failures]: Counts, [before, failed_before]: Counts) -> Counts {
    [requests.saturating_sub(before), failures.saturating_sub(failed_before)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(cells: &[(i64, [Counts; 2])]) -> Rates {
        let mut rates = Rates::default();
        cells.iter().for_each(|(at, counts)| rates.add(*at, *counts));
        rates
    }

    #[track_caller]
    fn check(cells: &[(i64, [Counts; 2])], at: i64, stable: &str, canary: &str) {
        let lines = rates(cells).lines(at);
        assert_eq!(lines.each_ref().map(|line| line.chars().count()), [60, 60]);
        assert_eq!(lines.each_ref().map(|line| line.trim_start()), [stable, canary]);
    }

    #[test]
    fn lines_end_now_and_share_their_height() {
        check(&[], 900, "", "");
        check(&[(897, [[100, 0], [100, 0]]), (900, [[100, 50], [100, 100]])], 902, "▁▅", "▁█");
        check(&[(897, [[100, 0], [0, 0]])], 900, "▁ ", "");
        check(&[(900, [[1000, 1], [1000, 0]])], 900, "▂", "▁");
        check(&[(900 - SPAN, [[1, 1], [1, 1]])], 900, "", "");
    }
}
