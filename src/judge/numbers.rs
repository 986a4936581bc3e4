//! A trial's state as a row of numbers, in which form any store can keep it.

use std::time::Duration;

use crate::judge::assurance::{AssuranceState, BETTER};
use crate::judge::mixture::{ALTERNATIVES, Stake};
use crate::judge::{Absolute, Counts, Gathering, LimitState, Memory, Stream, StreamState, TrialState};

/// The first number of each row: another layout is not read.
const LAYOUT: f64 = 3.0;

/// The streams, each with the number that stands for it.
const STREAMS: [(Stream, f64); 4] =
    [(Stream::Errors, 0.0), (Stream::LatencyP50, 1.0), (Stream::LatencyP90, 2.0), (Stream::LatencyP99, 3.0)];

/// The same for the absolute limits.
const LIMITS: [(Absolute, f64); 2] = [(Absolute::Errors, 0.0), (Absolute::Latency, 1.0)];

impl TrialState {
    /// The state as numbers.
    #[must_use]
    pub fn to_numbers(&self) -> Vec<f64> {
        let mut row = vec![LAYOUT, self.at.as_secs_f64(), self.streams.len() as f64];
        for (stream, state) in &self.streams {
            row.extend(STREAMS.iter().filter(|(known, _)| known == stream).map(|(_, number)| number));
            let StreamState { slow, fast, stakes, gathering, stable, canary, recent_share, assurance } = state;
            row.extend([slow.requests, slow.failures, fast.requests, fast.failures]);
            row.extend(stakes.iter().flat_map(|stake| [stake.log_wealth, stake.spent, stake.dearest]));
            row.push(gathering.len() as f64);
            for block in gathering {
                row.extend([block.share, block.since.as_secs_f64()]);
                row.extend([block.stable, block.canary].into_iter().flat_map(counts));
            }
            row.extend([*stable, *canary].into_iter().flat_map(counts));
            row.push(*recent_share);
            row.extend(assurance);
        }
        row.push(self.limits.len() as f64);
        for (of, LimitState { stakes, canary }) in &self.limits {
            row.extend(LIMITS.iter().filter(|(known, _)| known == of).map(|(_, number)| number));
            row.extend(stakes.iter().flat_map(|stake| [stake.log_wealth, stake.spent, stake.dearest]));
            row.extend(counts(*canary));
        }
        row.extend([self.requests as f64, self.harm as f64]);
        row
    }

    /// The state that [`TrialState::to_numbers`] wrote; `None` if it wrote no such row.
    #[must_use]
    pub fn from_numbers(row: &[f64]) -> Option<Self> {
        let mut row = Row { rest: row };
        (row.number()?.to_bits() == LAYOUT.to_bits()).then_some(())?;
        let at = row.duration()?;
        let mut streams = Vec::new();
        for _ in 0..row.whole()? {
            let stream = row.one_of(STREAMS)?;
            let (slow, fast) = (row.memory()?, row.memory()?);
            let stakes = row.stakes()?;
            let mut gathering = Vec::new();
            for _ in 0..row.whole()? {
                let (share, since) = (row.number()?, row.duration()?);
                gathering.push(Gathering { share, since, stable: row.counts()?, canary: row.counts()? });
            }
            let (stable, canary, recent_share) = (row.counts()?, row.counts()?, row.number()?);
            let assurance = row.assurance()?;
            let state = StreamState { slow, fast, stakes, gathering, stable, canary, recent_share, assurance };
            streams.push((stream, state));
        }
        let mut limits = Vec::new();
        for _ in 0..row.whole()? {
            let of = row.one_of(LIMITS)?;
            limits.push((of, LimitState { stakes: row.stakes()?, canary: row.counts()? }));
        }
        let (requests, harm) = (row.whole()?, row.whole()?);
        row.rest.is_empty().then_some(Self { at, streams, limits, requests, harm })
    }
}

fn counts(counts: Counts) -> [f64; 2] {
    [counts.requests as f64, counts.failures as f64]
}

/// What is left of a row.
#[derive(Debug)]
struct Row<'r> {
    rest: &'r [f64],
}

impl Row<'_> {
    /// The next number, which is finite.
    fn number(&mut self) -> Option<f64> {
        let (number, rest) = self.rest.split_first()?;
        self.rest = rest;
        number.is_finite().then_some(*number)
    }

    /// The next number, if it is whole and not negative.
    fn whole(&mut self) -> Option<u64> {
        let number = self.number().filter(|number| *number >= 0.0 && number.fract().to_bits() == 0)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and not negative")]
        Some(number as u64)
    }

    /// What the next number stands for.
    fn one_of<T, const N: usize>(&mut self, known: [(T, f64); N]) -> Option<T> {
        let number = self.number()?;
        known.into_iter().find(|(_, known)| known.to_bits() == number.to_bits()).map(|(found, _)| found)
    }

    fn duration(&mut self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.number()?).ok()
    }

    fn counts(&mut self) -> Option<Counts> {
        Some(Counts { requests: self.whole()?, failures: self.whole()? })
    }

    fn memory(&mut self) -> Option<Memory> {
        Some(Memory { requests: self.number()?, failures: self.number()? })
    }

    fn assurance(&mut self) -> Option<AssuranceState> {
        let mut state = [0.0; BETTER];
        for log_wealth in &mut state {
            *log_wealth = self.number()?;
        }
        Some(state)
    }

    fn stakes(&mut self) -> Option<[Stake; ALTERNATIVES]> {
        let mut stakes = [Stake::START; ALTERNATIVES];
        for stake in &mut stakes {
            *stake = Stake { log_wealth: self.number()?, spent: self.number()?, dearest: self.number()? };
        }
        Some(stakes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::{Guard, Rate, Sample, Settings, StreamSettings, Tolerance, Trial};

    fn settings() -> Settings {
        let guard = Guard::default();
        let stream = |stream| StreamSettings { stream, tolerance: Tolerance::STRICT, history: Counts::default() };
        Settings {
            false_rollback: guard.false_rollback,
            streams: vec![stream(Stream::Errors), stream(Stream::LatencyP99)],
            max_error_rate: Some(guard.max_error_rate),
            max_slow_rate: Rate::from_percent(1.0),
            ..Settings::default()
        }
    }

    proptest! {
        #[test]
        fn a_trial_goes_on_where_it_was(ticks in prop::collection::vec((0_u64..40, 0_u64..4, 0_u64..9, 0_u64..4), 0..30)) {
            let mut trial = Trial::new(&settings());
            for (tick, (stable, stable_failures, canary, canary_failures)) in ticks.into_iter().enumerate() {
                let sample = Sample {
                    stream: Stream::Errors,
                    share: 10.0,
                    stable: Counts { requests: stable, failures: stable_failures.min(stable) },
                    canary: Counts { requests: canary, failures: canary_failures.min(canary) },
                };
                trial.observe(Duration::from_millis(100 * tick as u64), &[sample]);
                trial.observe_canary(Absolute::Errors, sample.canary);
                trial.observe_traffic(sample.canary.requests, sample.canary.failures);
            }
            let row = trial.state().to_numbers();
            let state = TrialState::from_numbers(&row);
            prop_assert_eq!(state.as_ref(), Some(&trial.state()));
            let resumed = Trial::resume(&settings(), state.unwrap());
            prop_assert_eq!(resumed.log_evidence().to_bits(), trial.log_evidence().to_bits());
            prop_assert_eq!(TrialState::from_numbers(&row[..row.len() - 1]), None);
        }
    }

    #[test]
    fn what_is_no_state_is_not_read() {
        for row in
            [&[][..], &[1.0, 0.0, 0.0], &[3.0, -1.0, 0.0], &[3.0, 0.0, 1.0], &[3.0, 0.0, 0.5], &[3.0, f64::NAN, 0.0]]
        {
            assert_eq!(TrialState::from_numbers(row), None, "{row:?}");
        }
    }
}
