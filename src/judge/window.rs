//! The outcomes of the last while, from totals that only grow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::judge::Counts;

/// Remembers what the totals were over a span of time, so that the difference says what happened in it.
#[derive(Debug)]
pub struct Window {
    span: Duration,
    /// When the totals were looked at, and what they were: one from before the span, where there is one, then all in it.
    seen: VecDeque<(Instant, Counts)>,
}

impl Window {
    /// A window that looks `span` back and has seen nothing.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self { span, seen: VecDeque::new() }
    }

    /// Takes note of the totals at `now`, and says what came in during the span up to then.
    ///
    /// `now` and the totals must not go backwards.
    pub fn observe(&mut self, now: Instant, totals: Counts) -> Counts {
        self.seen.push_back((now, totals));
        while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= self.span) {
            self.seen.pop_front();
        }
        let base = match self.seen.front() {
            Some((at, base)) if now.duration_since(*at) >= self.span => *base,
            Some(_) | None => Counts::default(),
        };
        Counts {
            requests: totals.requests.saturating_sub(base.requests),
            failures: totals.failures.saturating_sub(base.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn only_what_came_in_during_the_span_counts() {
        let start = clock::now();
        let mut window = Window::new(Duration::from_secs(10));
        let mut at = |seconds: u64, requests, failures| {
            let counts = window.observe(start + Duration::from_secs(seconds), Counts { requests, failures });
            (counts.requests, counts.failures)
        };
        assert_eq!(at(0, 5, 1), (5, 1), "what came in before the first look is recent too");
        assert_eq!(at(4, 105, 1), (105, 1));
        assert_eq!(at(10, 205, 11), (200, 10));
        assert_eq!(at(14, 205, 11), (100, 10));
        assert_eq!(at(20, 205, 11), (0, 0));
        assert_eq!(at(90, 206, 12), (1, 1));
    }
}
