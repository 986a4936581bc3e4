//! How a gateway ends: in the order in which things need each other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use crate::downstream::Seats;
use crate::proxy::InFlight;
use crate::rollout::Rollouts;
use crate::store::Store;

/// How long a stopping gateway goes on taking requests, each answer closing its connection. Whoever is busy asks again
/// within it and is told to go elsewhere, instead of finding a connection closed under the next request.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// How long connections may take to end once nothing is under way on them: a client of HTTP/2 has to be told, and may have
/// asked once more before it hears it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often is looked for the end of the last one.
const LOOK: Duration = Duration::from_millis(5);

/// How long the parts of the control plane may take to end, once asked.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a running gateway is made of, as far as it has to be ended.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) stops: Stops,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) accepting: JoinHandle<()>,
    /// The control plane.
    pub(crate) parts: JoinSet<()>,
    pub(crate) builtin: JoinSet<()>,
    pub(crate) rollouts: Arc<Rollouts>,
    pub(crate) store: Store,
}

/// What tells each part that it is time, in the order of use.
#[derive(Debug)]
pub(crate) struct Stops {
    /// That the gateway is stopping, for those who ask whether it is ready.
    pub(crate) ready: watch::Sender<bool>,
    /// That no more connections are taken.
    pub(crate) doors: watch::Sender<bool>,
    /// That no more requests are taken, from those that there are.
    pub(crate) requests: watch::Sender<bool>,
    /// That the admin API takes no more connections, and each of its answers closes one.
    pub(crate) admin_door: watch::Sender<bool>,
    /// That the admin API ends.
    pub(crate) admin: watch::Sender<bool>,
    pub(crate) control: watch::Sender<bool>,
    pub(crate) backends: watch::Sender<bool>,
}

impl Default for Stops {
    fn default() -> Self {
        let stop = || watch::Sender::new(false);
        Self {
            ready: stop(),
            doors: stop(),
            requests: stop(),
            admin_door: stop(),
            admin: stop(),
            control: stop(),
            backends: stop(),
        }
    }
}

impl Stops {
    fn end_requests(&self) {
        for stop in [&self.ready, &self.doors, &self.requests] {
            stop.send_replace(true);
        }
    }
}

/// Whether another process listens on the same sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Successor {
    None,
    Listens,
}

impl Running {
    /// Returns once a part has ended that runs until the stop.
    pub(crate) async fn part_ended(&mut self) {
        tokio::select! {
            _ = self.parts.join_next() => {}
            _ = &mut self.accepting => {}
        }
    }

    /// Ends everything: no more requests, those under way within `drain`, no more control, then the backends. A signal cuts
    /// the wait for requests short. Where a `successor` listens, new connections are for that one at once.
    pub(crate) async fn stop(self, drain: Duration, successor: Successor, signals: &mut StopSignals) {
        let Self { stops, in_flight, seats, mut accepting, parts, builtin, rollouts, store } = self;
        info!(in_flight = in_flight.count(), "stopping: those who ask are sent elsewhere, requests under way finish");
        match successor {
            Successor::None => stops.ready.send_replace(true),
            Successor::Listens => stops.doors.send_replace(true) | stops.admin_door.send_replace(true),
        };
        in_flight.discourage();
        let drained = async {
            tokio::time::sleep(LAME_DUCK).await;
            stops.end_requests();
            if successor == Successor::Listens {
                stops.admin.send_replace(true);
            }
            // It may have been what ended by itself.
            if !accepting.is_finished() {
                let _ = (&mut accepting).await;
            }
            in_flight.none().await;
            // Who is left after that has had the time to ask.
            let _ = timeout(LAST_WORDS, none_left(&seats)).await;
            in_flight.none().await;
        };
        tokio::select! {
            drained = timeout(drain, drained) => if drained.is_err() {
                warn!(in_flight = in_flight.count(), "requests took longer than `listen.drain` and are broken off");
            },
            () = signals.first() => warn!(in_flight = in_flight.count(), "told to stop again: not waiting any longer"),
        }
        // Also where the wait was cut short.
        stops.end_requests();
        stops.admin.send_replace(true);
        stops.control.send_replace(true);
        join(parts, "the control plane").await;
        // Once more, now that nothing changes any more. A failure is logged where it happens.
        let _ = rollouts.flush().await;
        rollouts.keep_trials().await;
        store.close().await;
        stops.backends.send_replace(true);
        join(builtin, "the built-in backends").await;
        info!("stopped");
    }
}

async fn none_left(seats: &Seats) {
    let mut looks = interval(LOOK);
    while seats.taken() > 0 {
        looks.tick().await;
    }
}

/// Returns once `stopping` is true.
pub(crate) async fn until(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone stops nobody any more; then it is time, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn join(mut parts: JoinSet<()>, what: &str) {
    let all = async { while parts.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, all).await.is_err() {
        warn!("{what} did not end in time");
    }
}

/// The signals that ask for a stop.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Whether one has come.
    pub(crate) fn have_come(&mut self) -> bool {
        self.first().now_or_never().is_some()
    }

    pub(crate) async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
