//! The ramp at work: what it has behind it on each step, and the changes that follow from that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::info;

use crate::api::{RampStatus, RampStepStatus};
use crate::clock;
use crate::flag::{
    Arm, FlagKey, Onward, Percentage, Phase, Ramp, RampAction, RampState, RampStep, Rollout, Stay, Wait,
};
use crate::recorder::{Ledger, RecordedFlag};
use crate::rollout::book::Live;
use crate::rollout::command::{ChangeError, Command, Request};
use crate::rollout::{BY_RAMP, Rollouts, TICK};

/// How long a ramp waits before it tries again to make a change that could not be stored.
const RETRY: Duration = Duration::from_secs(1);

/// How far a rollout has come on the step that it stands on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: RampState,
    /// When the step's time was last added to, if it runs.
    last: Option<Instant>,
    /// The canary's requests at that look, of the generation's ledger.
    seen: u64,
    /// Whether there is more than what was last kept.
    changed: bool,
}

impl Progress {
    /// Where `rollout` stands when its generation begins.
    pub(crate) fn begin(rollout: &Rollout) -> Self {
        Self { state: rollout.ramp.unwrap_or_default(), ..Self::default() }
    }

    /// `rollout` with what its ramp has behind it by now.
    pub(crate) fn standing(&self, rollout: &Rollout) -> Rollout {
        Rollout { ramp: rollout.ramp.map(|_| self.state), ..rollout.clone() }
    }

    /// Adds the time since the last look, and the canary's requests. Time counts while the ramp runs: not while it is held,
    /// switched off, or while no gateway is there.
    pub(crate) fn look(&mut self, now: Instant, rollout: &Rollout, ledger: &Ledger) {
        let runs = rollout.enabled && rollout.phase == Phase::Ramping;
        let (requests, _) = ledger.compared(Arm::Canary);
        if let (true, Some(last)) = (runs, self.last) {
            self.state.held += now.saturating_duration_since(last);
            self.state.requests += requests.saturating_sub(self.seen);
            self.changed = true;
        }
        self.last = runs.then_some(now);
        self.seen = requests;
    }

    /// What is to be kept, if it is not what was asked for last.
    pub(crate) fn take_changes(&mut self) -> Option<RampState> {
        std::mem::take(&mut self.changed).then_some(self.state)
    }
}

/// What the rollout of `live` has behind it at its percentage.
pub(crate) fn stay(live: &Live) -> Stay {
    let RampState { held, requests, .. } = live.progress.state;
    Stay { held, requests, not_worse: live.on_trial.report().is_some_and(|report| report.assured) }
}

impl Rollouts {
    /// Moves rollouts up their ramps until `shutdown` turns true.
    pub async fn ramp_until(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            for (key, request) in self.due() {
                match self.change(key.clone(), request).await {
                    // The next look sees what there is instead.
                    Ok(_) | Err(ChangeError::Stale { .. } | ChangeError::Overtaken | ChangeError::UnknownFlag(_)) => {}
                    Err(error) => {
                        info!(feature_flag.key = %key, %error, "the ramp stays where it is for now");
                        tokio::select! {
                            () = sleep(RETRY) => {}
                            _ = shutdown.wait_for(|stop| *stop) => return,
                        }
                    }
                }
            }
        }
    }

    /// The changes that ramps ask for now.
    fn due(&self) -> Vec<(FlagKey, Request)> {
        let book = self.book();
        if self.is_handed_over() {
            return Vec::new();
        }
        let set = self.flags.load();
        let due = |(key, live): (&FlagKey, &Live)| {
            let entry = set.get(key)?;
            let (action, reason) = action(entry, live)?;
            let command = Command::Follow(action);
            let expected = Some(entry.rollout.generation);
            Some((
                key.clone(),
                Request {
                    command,
                    actor: BY_RAMP.to_owned(),
                    reason: Some(reason),
                    expected,
                    once: None,
                    second: None,
                },
            ))
        };
        book.live.iter().filter_map(due).collect()
    }
}

/// What the flag's ramp does now if it does something, and why.
fn action(entry: &RecordedFlag, live: &Live) -> Option<(RampAction, String)> {
    let RecordedFlag { flag, rollout, .. } = entry;
    let ramp = flag.ramp.as_ref().filter(|_| rollout.enabled && rollout.phase == Phase::Ramping)?;
    let stay = stay(live);
    let behind = behind(ramp, rollout.percentage, stay);
    match ramp.act(rollout.percentage, stay) {
        RampAction::Wait(_) => None,
        action @ RampAction::Go(Onward::Climb(_) | Onward::Promote) => {
            Some((action, format!("{behind}; the canary is not worse")))
        }
        action @ RampAction::GiveUp => {
            Some((action, format!("inconclusive: {behind}, and too little to say that the canary is not worse")))
        }
    }
}

fn behind(ramp: &Ramp, percentage: Percentage, stay: Stay) -> String {
    let (number, all) = (ramp.number_at(percentage), ramp.steps().len());
    format!("step {number} of {all} held {} with {} canary requests", span(stay.held), stay.requests)
}

/// Where `rollout` stands on `ramp`, for people.
pub(crate) fn ramp_status(ramp: &Ramp, rollout: &Rollout, live: &Live) -> RampStatus {
    let RampState { active, held, requests, inconclusive } = live.progress.state;
    let percentage = rollout.percentage;
    let (number, all) = (ramp.number_at(percentage), ramp.steps().len());
    let action = ramp.act(percentage, stay(live));
    let assurance = live.on_trial.assurance();
    let (waits_for, why) = match (rollout.phase, action) {
        (Phase::Manual | Phase::Promoted, _) => (None, None),
        (Phase::Paused | Phase::RolledBack, _) if !active => (None, None),
        (Phase::Paused, _) if inconclusive => {
            (Some("resume"), Some("paused as inconclusive: `resume` holds the step anew, `skip` goes on".to_owned()))
        }
        (Phase::Paused | Phase::RolledBack, _) => (Some("resume"), Some("waits to be resumed".to_owned())),
        (Phase::Ramping, _) if !rollout.enabled => {
            (Some("enabled"), Some("waits until the flag is switched on".to_owned()))
        }
        (Phase::Ramping, RampAction::Wait(wait)) => (Some(wait.as_str()), Some(waiting(wait, assurance))),
        (Phase::Ramping, RampAction::Go(_) | RampAction::GiveUp) => (None, Some("is about to go on".to_owned())),
    };
    let next = match ramp.onward(percentage) {
        Onward::Climb(next) => next,
        Onward::Promote => Percentage::FULL,
    };
    let left = match action {
        RampAction::Wait(Wait::Time(left)) if waits_for == Some("time") => Some(left),
        RampAction::Wait(_) | RampAction::Go(_) | RampAction::GiveUp => None,
    };
    let detail = match why {
        Some(why) => format!("step {number} of {all}, held {}; {why}", span(held)),
        None if rollout.phase == Phase::Promoted => "the canary is promoted".to_owned(),
        None => "a person has taken over".to_owned(),
    };
    let step = |step: &RampStep| RampStepStatus {
        percentage: step.percentage.as_percent(),
        hold_s: step.hold.as_secs_f64(),
        approve: step.approve,
    };
    RampStatus {
        active,
        steps: ramp.steps().iter().map(step).collect(),
        step: number,
        held_s: held.as_secs_f64(),
        requests,
        min_requests: ramp.min_requests,
        max_hold_s: ramp.max_hold.as_secs_f64(),
        inconclusive,
        evidence: assurance.map(|(value, _)| value),
        evidence_needed: assurance.map(|(_, limit)| limit),
        waits_for: waits_for.map(str::to_owned),
        detail,
        next_percentage: active.then(|| next.as_percent()),
        next_at: left.and_then(|left| Some(format!("{:.0}", clock::wall().checked_add(left).ok()?))),
    }
}

fn waiting(wait: Wait, assurance: Option<(f64, f64)>) -> String {
    match wait {
        Wait::Time(left) => format!("waits {} more", span(left)),
        Wait::Requests(missing) => format!("waits for {missing} more requests to the canary"),
        Wait::Evidence => match assurance {
            Some((value, limit)) => {
                format!("waits until it is shown that the canary is not worse: evidence {value:.2} of {limit:.0}")
            }
            None => "waits until it is shown that the canary is not worse".to_owned(),
        },
        Wait::Approval => "waits for `approve`".to_owned(),
    }
}

/// A span of time for people, to the second where it is longer than some.
pub(crate) fn span(duration: Duration) -> String {
    let coarse = if duration < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    SignedDuration::try_from(coarse).map_or_else(|_| format!("{coarse:?}"), |span| format!("{span:#}"))
}
