//! What is kept, as the rest of Tidegate sees it.

use serde::{Deserialize, Serialize};

use crate::api::{BetaEvent, Rollback, RolloutState};
use crate::flag::{FlagKey, Generation, Rollout};
use crate::store::answers::Once;

/// The action of writing what is in force over a change that may have been written.
pub const REASSERT: &str = "reassert";

/// A rollout as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRollout {
    /// The flag.
    pub flag: FlagKey,
    /// Its state.
    pub rollout: Rollout,
    /// The rollback, while its latch holds.
    pub rollback: Option<Rollback>,
}

/// A trial as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTrial {
    /// The flag.
    pub flag: FlagKey,
    /// What is on trial, and by which guard.
    pub basis: String,
    /// The judge's state.
    pub numbers: Vec<f64>,
    /// The last parcel of evidence in it, where gateways share a store.
    pub through: i64,
    /// The generation that it began with.
    pub since: Generation,
    /// Where its evidence comes from.
    pub span: Span,
}

/// Where a trial's evidence comes from, for people to look at: nothing is judged by it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// The canary's shares in percent, each once.
    pub shares: Vec<f64>,
    /// When the first outcomes came in, in milliseconds since 1970.
    pub first: Option<i64>,
    /// When the last did.
    pub last: Option<i64>,
    /// The ids of the canary's latest failed requests, oldest first.
    pub failed: Vec<String>,
    /// Those of its latest slow ones.
    pub slow: Vec<String>,
}

/// A change to be kept: the state that it led to, and the event that tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The state after the change.
    pub after: StoredRollout,
    /// The state before, if the flag was known.
    pub before: Option<RolloutState>,
    /// The generation of the state before.
    pub base: Option<Generation>,
    /// When, in RFC 3339.
    pub at: String,
    /// What was done.
    pub action: String,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// What was changed in the beta list, if anything was.
    pub beta: Option<BetaEvent>,
    /// The key that it was asked for with, if any.
    pub once: Option<Once>,
}

/// A rollout's state as the audit trail shows it.
#[must_use]
pub fn state_of(rollout: &Rollout) -> RolloutState {
    RolloutState {
        phase: rollout.phase_name().to_owned(),
        percentage: rollout.in_force().as_percent(),
        release: rollout.release.clone(),
        beta: None,
    }
}
