//! What both arms did before this gateway was there to see it, as the store has it: second by second, of all gateways, added up to
//! the samples of a chart. It has no latencies, and nothing of times without a canary on trial.

use std::collections::BTreeMap;

use crate::api::Second;
use crate::flag::FlagKey;

/// What was counted of a flag in one sample's time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cell {
    /// Requests to stable and to the canary, each with how many of them failed.
    pub(crate) arms: [[u64; 2]; 2],
    /// The canary's share of users at the end, 0 to 1.
    pub(crate) share: f64,
}

/// The samples of one span of time, by their number since 1970.
#[derive(Debug)]
pub(crate) struct Past {
    /// How long a sample is, in seconds.
    period: i64,
    /// The first second that is of interest.
    from: i64,
    cells: BTreeMap<i64, BTreeMap<FlagKey, Cell>>,
}

impl Past {
    /// Nothing yet of the time from the second `from` on, in samples of so many seconds.
    pub(crate) fn new(period: i64, from: i64) -> Self {
        Self { period: period.max(1), from, cells: BTreeMap::new() }
    }

    /// Adds what was counted of a flag, oldest first.
    pub(crate) fn add(&mut self, flag: &FlagKey, seconds: &[Second]) {
        for second in seconds.iter().filter(|second| second.at >= self.from) {
            let cell =
                self.cells.entry(second.at.div_euclid(self.period)).or_default().entry(flag.clone()).or_default();
            cell.share = second.percentage / 100.0;
            for (sum, counted) in cell.arms.iter_mut().flatten().zip(second.counts.arms.iter().flatten()) {
                *sum = sum.saturating_add(*counted);
            }
        }
    }

    /// The samples, newest first, those between them included in which nothing was counted: the second that each ends before, and
    /// what is of which flag.
    pub(crate) fn into_samples(mut self) -> impl Iterator<Item = (i64, BTreeMap<FlagKey, Cell>)> {
        let ends = self.cells.first_key_value().zip(self.cells.last_key_value());
        let (first, last) = ends.map_or((0, -1), |((first, _), (last, _))| (*first, *last));
        (first..=last).rev().map(move |number| {
            ((number + 1).saturating_mul(self.period), self.cells.remove(&number).unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SecondCounts;

    fn second(at: i64, arms: [[u64; 2]; 2], percentage: f64) -> Second {
        let counts = SecondCounts { arms, ..SecondCounts::default() };
        Second { at, gateway: "a".to_owned(), release: "1".to_owned(), generation: 1, percentage, counts }
    }

    #[test]
    fn seconds_of_all_gateways_add_up_to_samples() {
        let mut past = Past::new(10, 100);
        let flag: FlagKey = "f".parse().unwrap();
        let seconds = [
            second(99, [[9, 9], [9, 9]], 5.0),
            second(100, [[1, 0], [2, 1]], 10.0),
            second(109, [[3, 1], [0, 0]], 20.0),
            second(109, [[4, 0], [1, 1]], 20.0),
            second(125, [[1, 0], [0, 0]], 30.0),
        ];
        past.add(&flag, &seconds);
        let samples: Vec<_> = past.into_samples().map(|(end, flags)| (end, flags.get(&flag).copied())).collect();
        let old = Cell { arms: [[8, 1], [3, 2]], share: 0.2 };
        let new = Cell { arms: [[1, 0], [0, 0]], share: 0.3 };
        assert_eq!(samples, [(130, Some(new)), (120, None), (110, Some(old))]);
        assert_eq!(Past::new(10, 0).into_samples().count(), 0);
    }
}
