//! How slow the canary's answers are beside stable's: from the recorder's cohorts to what the judge sees.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::flag::Arm;
use crate::judge::{Counts, Guard, LatencyTolerance, Stream};
use crate::outcome::RecentLatencies;
use crate::recorder::{ABSOLUTE_LINE, COHORTS, LINES, Ledger, Line, Lines, Waited};

/// The quantiles of stable's that the canary's answers are compared at, each with the line that it draws.
pub(crate) const QUANTILES: [(Stream, f64); 3] =
    [(Stream::LatencyP50, 0.5), (Stream::LatencyP90, 0.9), (Stream::LatencyP99, 0.99)];

/// A quantile above this draws no line: what takes a minute is no request that anybody waits for.
const LONGEST: Duration = Duration::from_mins(1);

/// Looks from one drawing of the lines to the next, once all are drawn: a second.
const LOOKS: u32 = 10;

/// The requests of one release that wait, and the lines that they are not to cross.
#[derive(Debug)]
pub(crate) struct Latency {
    tolerance: LatencyTolerance,
    max_latency: Option<Duration>,
    recent: RecentLatencies,
    lines: Lines,
    looks: u32,
    /// The cohort that requests join now, if one was begun here.
    current: Option<(u32, Lines)>,
    /// The cohorts that some line is still waited for of, oldest first.
    waiting: VecDeque<Cohort>,
}

#[derive(Debug)]
struct Cohort {
    number: u32,
    ended: Instant,
    lines: Lines,
    counted: [bool; LINES],
}

/// What became of one cohort by one line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crossed {
    pub(crate) line: usize,
    pub(crate) stable: Counts,
    pub(crate) canary: Counts,
}

impl Latency {
    pub(crate) fn new(guard: &Guard) -> Self {
        Self {
            tolerance: guard.latency_tolerance,
            max_latency: guard.max_latency,
            recent: RecentLatencies::default(),
            lines: Lines::NONE,
            looks: 0,
            current: None,
            waiting: VecDeque::new(),
        }
    }

    /// Goes on with another ledger. Who still waits on the old one is not heard of any more, on both arms alike.
    pub(crate) fn next_generation(&mut self) {
        self.recent.begin_anew();
        self.current = None;
        self.waiting.clear();
    }

    /// Begins another cohort, and says what has become of those whose time is up.
    pub(crate) fn look(&mut self, now: Instant, ledger: &Ledger) -> Vec<Crossed> {
        let mut crossed = Vec::new();
        for cohort in &mut self.waiting {
            for (line, counted) in cohort.counted.iter_mut().enumerate() {
                let patience = cohort.lines.patience(line);
                let due = patience.is_none_or(|patience| now.saturating_duration_since(cohort.ended) >= patience);
                if due && !*counted {
                    *counted = true;
                    let count = |arm| counts(ledger.waited(arm, cohort.number, line));
                    crossed.extend(patience.map(|_| Crossed {
                        line,
                        stable: count(Arm::Stable),
                        canary: count(Arm::Canary),
                    }));
                }
            }
        }
        self.waiting.retain(|cohort| cohort.counted != [true; LINES]);
        self.draw_lines(ledger);
        self.begin_cohort(now, ledger);
        crossed
    }

    /// Draws the lines for the cohorts that begin from now on: all that they rest on has ended already.
    fn draw_lines(&mut self, ledger: &Ledger) {
        let complete = QUANTILES.iter().enumerate().all(|(index, _)| self.lines.patience(index).is_some());
        self.looks += 1;
        if complete && self.looks < LOOKS {
            return;
        }
        self.looks = 0;
        self.recent.learn(ledger.stable_answers());
        self.lines = lines(&self.recent, self.tolerance, self.max_latency);
    }

    fn begin_cohort(&mut self, now: Instant, ledger: &Ledger) {
        let kept = |oldest: u32, current: u32| usize::try_from(current.wrapping_sub(oldest)).unwrap_or(COHORTS);
        if let (Some((current, _)), Some(oldest)) = (self.current, self.waiting.front())
            && kept(oldest.number, current) + 2 > COHORTS
        {
            // The oldest must not give up its place yet, so the current one goes on.
            return;
        }
        if let Some((number, lines)) = self.current {
            self.waiting.push_back(Cohort { number, ended: now, lines, counted: [false; LINES] });
        }
        self.current = Some((ledger.next_cohort(&self.lines), self.lines));
    }
}

/// The lines that follow from stable's recent latencies, and the absolute one.
fn lines(recent: &RecentLatencies, tolerance: LatencyTolerance, max_latency: Option<Duration>) -> Lines {
    let mut lines = Lines::NONE;
    for (index, (_, q)) in QUANTILES.into_iter().enumerate() {
        let allowed = recent.quantile(q).map(|stable| (stable, tolerance.allowed(stable)));
        if let (Some((stable, canary)), Some(of_stable), Some(of_canary)) =
            (allowed.filter(|(_, canary)| *canary <= LONGEST), lines.stable.get_mut(index), lines.canary.get_mut(index))
        {
            (*of_stable, *of_canary) = (Line::at(stable), Line::at(canary));
        }
    }
    if let (Some(limit), Some(line)) = (max_latency, lines.canary.get_mut(ABSOLUTE_LINE)) {
        *line = Line::at(limit);
    }
    lines
}

fn counts(Waited { requests, slow }: Waited) -> Counts {
    Counts { requests, failures: slow }
}
