//! The record of what was counted, second by second: what `tidegate simulate --replay` judges again.

use crate::api::{CanaryCounts, Second, SecondCounts, StreamCounts};
use crate::judge::Counts;
use crate::recorder::RecordedFlag;
use crate::rollout::trial::Heard;

/// What one flag's judge has heard, gathered into seconds.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    running: Option<Second>,
    /// Seconds that are over and not taken yet.
    over: Vec<Second>,
}

impl Tape {
    /// Adds what was heard at the second `at` of the generation of `entry`, by `gateway`.
    pub(crate) fn add(&mut self, at: i64, gateway: &str, entry: &RecordedFlag, heard: &Heard) {
        let generation = entry.rollout.generation.get();
        if self.running.as_ref().is_some_and(|second| second.at != at || second.generation != generation) {
            self.over.extend(self.running.take());
        }
        if heard.is_nothing() {
            return;
        }
        let second = self.running.get_or_insert_with(|| Second {
            at,
            gateway: gateway.to_owned(),
            release: entry.rollout.release.clone(),
            generation,
            percentage: entry.rollout.percentage.as_percent(),
            counts: SecondCounts::default(),
        });
        add_heard(&mut second.counts, heard);
    }

    /// The seconds before `now`, which are over.
    pub(crate) fn take_before(&mut self, now: i64) -> Vec<Second> {
        if self.running.as_ref().is_some_and(|second| second.at < now) {
            self.over.extend(self.running.take());
        }
        std::mem::take(&mut self.over)
    }
}

/// Adds what was heard.
pub(crate) fn add_heard(counts: &mut SecondCounts, heard: &Heard) {
    for sample in &heard.samples {
        let name = sample.stream.as_str();
        if sample.stable == Counts::default() && sample.canary == Counts::default() {
            continue;
        }
        let row = match counts.streams.iter_mut().find(|row| row.stream == name) {
            Some(row) => row,
            None => counts.streams.push_mut(StreamCounts { stream: name.to_owned(), ..StreamCounts::default() }),
        };
        add(&mut row.stable, sample.stable);
        add(&mut row.canary, sample.canary);
    }
    for (absolute, heard) in &heard.absolute {
        let name = absolute.check().as_str();
        if *heard == Counts::default() {
            continue;
        }
        let row = match counts.limits.iter_mut().find(|row| row.check == name) {
            Some(row) => row,
            None => counts.limits.push_mut(CanaryCounts { check: name.to_owned(), ..CanaryCounts::default() }),
        };
        add(&mut row.canary, *heard);
    }
    add(&mut counts.traffic, heard.traffic);
    for (sum, arm) in counts.arms.iter_mut().zip(heard.arms) {
        add(sum, arm);
    }
}

fn add(sum: &mut [u64; 2], counts: Counts) {
    let [requests, failures] = sum;
    *requests = requests.saturating_add(counts.requests);
    *failures = failures.saturating_add(counts.failures);
}
