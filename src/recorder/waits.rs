//! How long requests wait for their answers, in cohorts of those that began to wait at the same time.
//!
//! An answer is slow once it is not there by its *line*. Whether it will be is known at that moment and not before, so what
//! is counted together must not be what *ended* together: after an outage of both arms the slow answers of one arm would
//! stand beside the quick ones of the other. It is what *began* together, and it is counted when the last of it has either
//! been answered or crossed its line. The lines of a cohort are fixed before anything in it begins.
//!
//! A request adds one to its cohort when it begins to wait, and one to its cohort's answers when it is answered in time.
//! Whatever is missing at the end is slow, answered or not. So nothing has to look for those that never are.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::flag::Arm;
use crate::outcome::{LATENCY_BUCKETS, LatencyHistogram, latency_bucket, latency_bucket_limit_us};
use crate::recorder::Party;
use crate::recorder::suspects::Suspects;
use crate::recorder::units::{Affected, SeenUnits};

/// By how many lines an answer can be slow: three quantiles of stable's, and the absolute limit.
pub const LINES: usize = 4;

/// The line that holds for every request to the canary. The others compare the arms, so they only count whom the
/// percentage drew.
pub const ABSOLUTE_LINE: usize = 3;

/// Cohorts that are kept, the one that is beginning included.
///
/// At ten a second they reach back 12 seconds. With lines beyond that they last longer, so that a stall is seen at
/// the line and a hundredth of it.
pub const COHORTS: usize = 128;

/// A line that nothing crosses.
const NO_LINE: u16 = u16::MAX;

/// When an answer is slow: at the lower end of a bucket of latencies, so that histograms can be added up and cut there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line(u16);

impl Line {
    /// Nothing is slow.
    pub const NONE: Self = Self(NO_LINE);

    /// The first line at or after `latency`.
    #[must_use]
    pub fn at(latency: Duration) -> Self {
        let below = latency_bucket(latency.saturating_sub(Duration::from_micros(1)));
        Self(u16::try_from(below + 1).unwrap_or(NO_LINE))
    }

    /// How long it takes to cross it; nothing if it cannot be.
    #[must_use]
    pub fn latency(self) -> Option<Duration> {
        let below = usize::from(self.0).checked_sub(1).filter(|below| *below < LATENCY_BUCKETS)?;
        Some(Duration::from_micros(latency_bucket_limit_us(below)))
    }
}

/// The lines of a cohort, stable's and the canary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Stable's.
    pub stable: [Line; LINES],
    /// The canary's.
    pub canary: [Line; LINES],
}

impl Lines {
    /// Nothing is slow.
    pub const NONE: Self = Self { stable: [Line::NONE; LINES], canary: [Line::NONE; LINES] };

    /// How long it takes until a whole cohort has crossed this line or was answered; nothing if neither arm has it.
    #[must_use]
    pub fn patience(&self, line: usize) -> Option<Duration> {
        let latency = |lines: &[Line; LINES]| lines.get(line).and_then(|line| line.latency());
        latency(&self.stable).max(latency(&self.canary))
    }
}

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    cohort: u32,
    party: Party,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With an answer.
    Good,
    /// With a failure, or with nobody left to answer to. In time, it says nothing of how quick answers are: a backend that
    /// fails quickly is not quick, and how often it fails is another question.
    None,
}

/// What became of a cohort by one of its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waited {
    /// Requests that were answered, or had not been by the line.
    pub requests: u64,
    /// Those that had not been.
    pub slow: u64,
}

/// Everyone who waits or has waited lately.
#[derive(Debug)]
pub(crate) struct Waits {
    /// The number of the cohort that is beginning.
    current: AtomicU32,
    cohorts: Box<[Cohort]>,
    seen: SeenUnits,
    stable: Suspects<LINES>,
    canary: Suspects<LINES>,
    /// Stable's good answers by bucket, shard by shard: what the next lines are drawn by.
    answers: Box<[Box<[AtomicU64]>]>,
}

#[derive(Debug)]
struct Cohort {
    number: AtomicU32,
    stable: [AtomicU16; LINES],
    canary: [AtomicU16; LINES],
    shards: Box<[Shard]>,
}

/// A thread's share of a cohort, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    stable: Counters,
    canary: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    /// Requests that began to wait, all of them.
    all: AtomicU32,
    /// Those whom the percentage drew.
    drawn: AtomicU32,
    /// Answers that came in time, for each line.
    quick: [AtomicU32; LINES],
    /// Those that ended in time without a good answer.
    void: [AtomicU32; LINES],
}

impl Waits {
    pub(crate) fn new(shards: usize) -> Self {
        let lines = || [const { AtomicU16::new(NO_LINE) }; LINES];
        let cohort = |number| Cohort {
            number: AtomicU32::new(number),
            stable: lines(),
            canary: lines(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
        };
        Self {
            current: AtomicU32::new(0),
            cohorts: (0..).take(COHORTS).map(cohort).collect(),
            seen: SeenUnits::default(),
            stable: Suspects::default(),
            canary: Suspects::default(),
            answers: (0..shards).map(|_| (0..LATENCY_BUCKETS).map(|_| AtomicU64::new(0)).collect()).collect(),
        }
    }

    /// Notes that a request to `arm` begins to wait; nothing if it is not judged, since enough is heard of its user.
    pub(crate) fn begin(&self, arm: Arm, party: Party, shard: usize) -> Option<Wait> {
        if let Some(unit) = party.unit {
            if !(self.suspects(arm).may_ask(unit) && self.seen.is_first(unit)) {
                return None;
            }
            self.suspects(arm).ask(unit);
        }
        // Acquire: whoever sees the number sees the cohort's lines, and its counters at zero.
        let cohort = self.current.load(Ordering::Acquire);
        let counters = self.cohort(cohort)?.shards.get(shard)?.of(arm);
        // Relaxed: as in the ledger, each number is a count of its own.
        counters.all.fetch_add(1, Ordering::Relaxed);
        if party.drawn {
            counters.drawn.fetch_add(1, Ordering::Relaxed);
        }
        Some(Wait { cohort, party })
    }

    /// Notes that a wait is over, after `elapsed`, and says whether it was a slow one: beyond the line of more than stable's
    /// median, which many a request of a good canary crosses.
    pub(crate) fn end(&self, arm: Arm, wait: Wait, elapsed: Duration, answer: Answer, shard: usize) -> bool {
        let bucket = latency_bucket(elapsed);
        let Wait { cohort: number, party } = wait;
        if let Some(unit) = party.unit {
            self.suspects(arm).answered(unit);
        }
        if answer == Answer::Good && arm == Arm::Stable && party.drawn {
            let cell = self.answers.get(shard).and_then(|answers| answers.get(bucket));
            cell.map(|cell| cell.fetch_add(1, Ordering::Relaxed));
        }
        let Some(cohort) = self.cohort(number) else { return false };
        let mut is_slow = false;
        // A cohort that has given its place away was counted, with this one among the slow. A thread that is held up between
        // this look and the addition below, for longer than a cohort is kept, would add to another; nothing depends on it.
        let kept = cohort.number.load(Ordering::Relaxed) == number;
        let counters = cohort.shards.get(shard).map(|shard| shard.of(arm));
        for (index, line) in cohort.lines(arm).iter().enumerate() {
            let counts = if index == ABSOLUTE_LINE { true } else { party.drawn };
            let slow = !kept || bucket >= usize::from(line.load(Ordering::Relaxed));
            is_slow |= slow && index > 0;
            if slow && let Some(unit) = party.unit {
                self.suspects(arm).slow(unit, index);
            } else if !slow
                && counts
                && let Some(counters) = counters
            {
                let cells = if answer == Answer::Good { &counters.quick } else { &counters.void };
                cells.get(index).map(|cell| cell.fetch_add(1, Ordering::Relaxed));
            }
        }
        is_slow
    }

    /// Begins another cohort with these lines, and gives its number. The oldest one gives up its place.
    pub(crate) fn next_cohort(&self, lines: &Lines) -> u32 {
        self.seen.forget();
        // Relaxed: only the tick writes it.
        let number = self.current.load(Ordering::Relaxed).wrapping_add(1);
        if let Some(cohort) = self.cohort(number) {
            cohort.begin(number, lines);
        }
        // Release: see `begin`.
        self.current.store(number, Ordering::Release);
        number
    }

    /// What has become of a cohort of `arm` by a line, if everything in it that was not answered has crossed that.
    pub(crate) fn waited(&self, arm: Arm, number: u32, line: usize) -> Waited {
        let Some(cohort) = self.cohort(number).filter(|kept| kept.number.load(Ordering::Relaxed) == number) else {
            return Waited::default();
        };
        let sum = |of: fn(&Counters, usize) -> Option<&AtomicU32>| -> u64 {
            let cells = cohort.shards.iter().filter_map(|shard| of(shard.of(arm), line));
            cells.map(|cell| u64::from(cell.load(Ordering::Relaxed))).sum()
        };
        let began = sum(|counters, line| Some(if line == ABSOLUTE_LINE { &counters.all } else { &counters.drawn }));
        let quick = sum(|counters, line| counters.quick.get(line));
        let requests = began.saturating_sub(sum(|counters, line| counters.void.get(line)));
        Waited { requests, slow: requests.saturating_sub(quick) }
    }

    /// Stable's good answers, all of this generation.
    pub(crate) fn stable_answers(&self) -> LatencyHistogram {
        let mut all = vec![0; LATENCY_BUCKETS];
        for shard in &self.answers {
            for (sum, cell) in all.iter_mut().zip(shard) {
                *sum += cell.load(Ordering::Relaxed);
            }
        }
        LatencyHistogram::new(all, 0)
    }

    /// Who is served by the canary, and to whom it was slow by this line.
    pub(crate) fn canary_users(&self, line: usize) -> Affected {
        let (users, failing) = self.canary.affected(line);
        Affected { users, failing }
    }

    /// The first `most` users of the canary, and the first of those to whom it was slow by this line.
    pub(crate) fn some_canary_users(&self, line: usize, most: usize) -> (Vec<u32>, Vec<u32>) {
        self.canary.some(line, most)
    }

    fn suspects(&self, arm: Arm) -> &Suspects<LINES> {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }

    /// The place of a cohort, which may hold another by now.
    fn cohort(&self, number: u32) -> Option<&Cohort> {
        self.cohorts.get(usize::try_from(number).unwrap_or(0) % COHORTS)
    }
}

impl Cohort {
    fn begin(&self, number: u32, lines: &Lines) {
        for (arm, lines) in [(Arm::Stable, &lines.stable), (Arm::Canary, &lines.canary)] {
            for (cell, Line(line)) in self.lines(arm).iter().zip(lines) {
                cell.store(*line, Ordering::Relaxed);
            }
            for counters in self.shards.iter().map(|shard| shard.of(arm)) {
                let cells = [&counters.all, &counters.drawn].into_iter().chain(&counters.quick).chain(&counters.void);
                cells.for_each(|cell| cell.store(0, Ordering::Relaxed));
            }
        }
        self.number.store(number, Ordering::Relaxed);
    }

    fn lines(&self, arm: Arm) -> &[AtomicU16; LINES] {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }
}

impl Shard {
    fn of(&self, arm: Arm) -> &Counters {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::recorder::units::Unit;

    const TEN: Duration = Duration::from_millis(10);

    fn lines() -> Lines {
        Lines { stable: [Line::at(TEN), Line::at(2 * TEN), Line::NONE, Line::NONE], canary: [Line::at(2 * TEN); LINES] }
    }

    fn drawn(user: Option<u64>) -> Party {
        Party { unit: user.map(|user| Unit::from_hash(user << 32 | user)), drawn: true }
    }

    #[test]
    fn a_line_is_where_a_bucket_begins() {
        for micros in [1, 7, 10, 11, 999, 1000, 1001, 123_456, 60_000_000] {
            let latency = Line::at(Duration::from_micros(micros)).latency().unwrap();
            let found = u64::try_from(latency.as_micros()).unwrap();
            assert!(found >= micros && found as f64 <= micros as f64 * 1.1, "{micros}: {found}");
            assert_eq!(Line::at(latency).latency(), Some(latency));
        }
        assert_eq!((Line::NONE.latency(), Line::at(Duration::MAX).latency()), (None, Some(Duration::from_secs(1000))));
        assert_eq!(lines().patience(0), Some(2 * TEN));
        assert_eq!(Lines::NONE.patience(0), None);
    }

    #[test]
    fn what_is_not_answered_by_its_line_is_slow() {
        let waits = Waits::new(2);
        let cohort = waits.next_cohort(&lines());
        let ends = [(5, Answer::Good), (12, Answer::Good), (25, Answer::Good), (5, Answer::None), (25, Answer::None)];
        for (millis, answer) in ends {
            for arm in Arm::BOTH {
                let wait = waits.begin(arm, drawn(None), 0).unwrap();
                waits.end(arm, wait, Duration::from_millis(millis), answer, 1);
            }
        }
        let endless = waits.begin(Arm::Canary, drawn(None), 1);
        assert!(endless.is_some());
        let of = |arm, line| {
            let Waited { requests, slow } = waits.waited(arm, cohort, line);
            (requests, slow)
        };
        // What failed in time says nothing; what had not been answered by the line was slow, whatever became of it.
        assert_eq!((of(Arm::Stable, 0), of(Arm::Stable, 1)), ((4, 3), (4, 2)));
        assert_eq!((of(Arm::Canary, 0), of(Arm::Canary, ABSOLUTE_LINE)), ((5, 3), (5, 3)));
        assert_eq!(waits.stable_answers().count(), 3);

        let beta = Party { unit: None, drawn: false };
        let wait = waits.begin(Arm::Canary, beta, 0).unwrap();
        waits.end(Arm::Canary, wait, TEN, Answer::Good, 0);
        assert_eq!((of(Arm::Canary, 0), of(Arm::Canary, ABSOLUTE_LINE)), ((5, 3), (6, 3)));
    }

    #[test]
    fn a_cohort_is_kept_until_its_place_is_needed() {
        let waits = Waits::new(1);
        let first = waits.next_cohort(&lines());
        let late = waits.begin(Arm::Canary, drawn(Some(1)), 0).unwrap();
        for _ in 1..COHORTS {
            waits.next_cohort(&lines());
        }
        assert_eq!(waits.waited(Arm::Canary, first, 0), Waited { requests: 1, slow: 1 });
        let next = waits.next_cohort(&lines());
        waits.end(Arm::Canary, late, Duration::from_millis(1), Answer::Good, 0);
        assert_eq!(waits.waited(Arm::Canary, first, 0), Waited::default());
        assert_eq!(waits.waited(Arm::Canary, next, 0), Waited::default(), "the late one is not counted in its place");
        assert_eq!(waits.canary_users(0), Affected { users: 1, failing: 1 }, "but it is known to have been slow");
    }

    #[test]
    fn a_user_is_judged_once_a_cohort() {
        let waits = Waits::new(1);
        let cohort = waits.next_cohort(&lines());
        assert!(waits.begin(Arm::Canary, drawn(Some(1)), 0).is_some());
        assert!(waits.begin(Arm::Canary, drawn(Some(1)), 0).is_none());
        assert!(waits.begin(Arm::Canary, drawn(Some(2)), 0).is_some());
        waits.next_cohort(&lines());
        assert!(waits.begin(Arm::Canary, drawn(Some(1)), 0).is_some());
        assert!(waits.begin(Arm::Canary, drawn(Some(1)), 0).is_none());
        assert_eq!(waits.waited(Arm::Canary, cohort, 0).requests, 2);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        const EACH: u64 = 5_000;
        let waits = Waits::new(3);
        let cohort = waits.next_cohort(&lines());
        thread::scope(|scope| {
            for shard in 0..6 {
                let waits = &waits;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let wait = waits.begin(Arm::Stable, drawn(None), shard % 3).unwrap();
                        let elapsed = if number % 5 == 0 { 3 * TEN } else { Duration::from_micros(number) };
                        waits.end(Arm::Stable, wait, elapsed, Answer::Good, (shard + 1) % 3);
                    }
                });
            }
        });
        assert_eq!(waits.waited(Arm::Stable, cohort, 0), Waited { requests: 6 * EACH, slow: 6 * EACH / 5 });
        assert_eq!(waits.stable_answers().count(), 6 * EACH);
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_a_histogram_of_it_holds(latencies in prop::collection::vec(0_u64..50_000, 0..200)) {
            // So several gateways can add up their histograms and cut them at the line.
            let waits = Waits::new(1);
            let cohort = waits.next_cohort(&lines());
            for micros in &latencies {
                let wait = waits.begin(Arm::Stable, drawn(None), 0).unwrap();
                waits.end(Arm::Stable, wait, Duration::from_micros(*micros), Answer::Good, 0);
            }
            let histogram = waits.stable_answers();
            for line in 0..2 {
                let Waited { requests, slow } = waits.waited(Arm::Stable, cohort, line);
                let limit = lines().stable[line].latency().unwrap();
                prop_assert_eq!(requests - slow, histogram.below(limit));
            }
        }
    }
}
