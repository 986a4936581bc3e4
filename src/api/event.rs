//! The audit trail, and what people are told of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Rollback;

/// What an event changed in a beta list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BetaEvent {
    /// How many users were added.
    pub added: usize,
    /// How many users were removed.
    pub removed: usize,
    /// The first of those who were added.
    pub users_added: Vec<String>,
    /// The first of those who were removed.
    pub users_removed: Vec<String>,
}

impl BetaEvent {
    /// Who was added and removed, by name where they are few.
    #[must_use]
    pub fn summary(&self) -> String {
        let part = |sign: &str, all: usize, named: &[String]| match (all, named) {
            (0, _) => None,
            (all, named) if all <= FEW && named.len() == all => Some(format!("{sign} {}", named.join(", "))),
            (all, _) => Some(format!("{sign} {all} users")),
        };
        let parts = [part("+", self.added, &self.users_added), part("−", self.removed, &self.users_removed)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// As many users are named in a line.
const FEW: usize = 5;

/// Something that people are told of: what a webhook gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The same however often it is sent: whoever gets it twice knows by it.
    pub id: String,
    /// `rollback`, `resume`, `step`, `gate`, `approval`, `pause`, `promote`, `bad_flags` or `test`.
    pub event: String,
    /// When, in RFC 3339.
    pub at: String,
    /// What happened, in a line.
    pub summary: String,
    /// The flag, if it is about one.
    pub flag: Option<String>,
    /// The generation of its rollout.
    pub generation: Option<u64>,
    /// Who did it: a person, `judge`, `ramp` or `file`.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The rollout's state before, if it has changed.
    pub old: Option<RolloutState>,
    /// The state after.
    pub new: Option<RolloutState>,
    /// Why and when the canary was taken out, if it was.
    pub rollback: Option<Box<Rollback>>,
    /// What is wrong with the flag files, if something is.
    pub problems: Vec<String>,
}

/// One row of the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows with every event.
    pub id: i64,
    /// When, in RFC 3339.
    pub at: String,
    /// The flag.
    pub flag: String,
    /// The generation that the event led to; of `ask` and `withdraw`, which change nothing, the one that they are about.
    pub generation: u64,
    /// What was done.
    pub action: String,
    /// Who did it: a person, `judge`, `ramp` or `file`.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// The state before, if the flag was known.
    pub old: Option<RolloutState>,
    /// The state after.
    pub new: RolloutState,
    /// The evidence, if it was a rollback.
    pub rollback: Option<Rollback>,
    /// The SHA-256 of the hash before and of what the event says, in hexadecimal; `null` in events from before there was one.
    pub hash: Option<String>,
}

/// A rollout's state in the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutState {
    /// The phase.
    pub phase: String,
    /// The percentage in force.
    pub percentage: f64,
    /// What was being rolled out.
    pub release: String,
    /// What the event changed in the beta list, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<BetaEvent>,
}

/// Stands for the flag in events that are about the gateway as a whole. No flag can be called so.
pub const NO_FLAG: &str = "-";

/// A page of the audit trail, newest first unless those after an event were asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page is, if there may be one.
    pub next: Option<String>,
}

/// Whether the audit trail is whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChainReport {
    /// How many events there are.
    pub events: u64,
    /// How many of them are from before there was a chain, and nothing is known of these.
    pub unchained: u64,
    /// The hash of the newest event: noted elsewhere, it tells later whether the end was cut off.
    pub head: Option<String>,
    /// Where it is not whole.
    pub problems: Vec<String>,
}
