//! How long the gateway waits for one client: deadlines that cost a clock reading, and a timer only for who makes it wait.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::clock;

/// A timer that is armed as seldom as can be: a later deadline is only looked at once the earlier has passed.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Whether `deadline` has passed; if not, the task is woken when it has.
    pub(crate) fn has_passed(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        let wanted = deadline.into();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(wanted)));
        if sleep.deadline() > wanted {
            sleep.as_mut().reset(wanted);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if clock::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(wanted);
        }
        false
    }

    /// Sets the timer aside while nothing is waited for.
    pub(crate) fn put_away(&mut self) {
        self.sleep = None;
    }
}

/// Watches that a client moves enough bytes in the time that it makes the gateway wait; time that the gateway or the
/// backend takes is not counted.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How long is waited for [`Self::due`] bytes.
    window: Duration,
    due: u64,
    waited: Duration,
    moved: u64,
    since: Option<Instant>,
    timer: Timer,
}

impl Pace {
    /// At least `rate` bytes a second, looked at over `window`; and at the very least one byte in it.
    pub(crate) fn new(window: Duration, rate: u64) -> Self {
        let due = rate.saturating_mul(window.as_secs()).max(1);
        Self { window, due, waited: Duration::ZERO, moved: 0, since: None, timer: Timer::default() }
    }

    /// Notes that the client moved `bytes`.
    pub(crate) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += clock::now().duration_since(since);
        }
        self.moved += bytes as u64;
        if self.moved >= self.due {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Notes that the client makes the gateway wait, and says whether it has done so for too long.
    pub(crate) fn waits(&mut self, context: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(clock::now);
        self.timer.has_passed(since + self.window.saturating_sub(self.waited), context)
    }

    /// Begins anew, for the next message.
    pub(crate) fn restart(&mut self) {
        (self.moved, self.waited, self.since) = (0, Duration::ZERO, None);
        self.timer.put_away();
    }
}

/// As `ready!`, for a deadline: `Poll::Pending` until it has passed.
pub(crate) fn poll_timer(timer: &mut Timer, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
    if timer.has_passed(deadline, context) { Poll::Ready(()) } else { Poll::Pending }
}
