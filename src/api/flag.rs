//! A flag as people see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{Evidence, Rollback};

/// A flag with its rollout, both arms and the evidence against the canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagStatus {
    /// The flag's key.
    pub key: String,
    /// The kill switch.
    pub enabled: bool,
    /// What is being rolled out.
    pub release: String,
    /// Grows with every change of the rollout.
    pub generation: u64,
    /// `manual`, `ramping`, `paused`, `rolled_back`, `promoted` or `disabled`.
    pub phase: String,
    /// The share of targeting keys on canary right now, in percent: 0 while rolled back or disabled.
    pub percentage: f64,
    /// The share that the flag file asks for, in percent.
    pub file_percentage: f64,
    /// The share that resuming goes back to, in percent; only while paused or rolled back.
    pub resume_percentage: Option<f64>,
    /// How many targeting keys are on the beta list, as it is changed at runtime.
    pub beta_users: usize,
    /// How many were added at runtime.
    #[serde(default)]
    pub beta_added: usize,
    /// How many were removed at runtime.
    #[serde(default)]
    pub beta_removed: usize,
    /// Who answers for the flag.
    pub owner: String,
    /// What the flag is for.
    pub description: String,
    /// Both arms' outcomes in this generation, on all gateways that share the store.
    pub arms: Arms,
    /// How many gateways' outcomes `arms` holds: those that are gone count as well, and what others have counted is up to some
    /// seconds old.
    #[serde(default)]
    pub gateways: usize,
    /// What the judge last found, check by check.
    pub evidence: Vec<Evidence>,
    /// The rollback, while its latch holds.
    pub rollback: Option<Rollback>,
    /// Where the ramp stands, if the flag file has one.
    pub ramp: Option<RampStatus>,
    /// The changes that wait for a second operator.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

impl FlagStatus {
    /// The share that the rollout means to have, in percent, if that is another than the flag file's: the one that it goes back to
    /// while it is paused or rolled back.
    #[must_use]
    pub fn drift(&self) -> Option<f64> {
        let meant = self.resume_percentage.unwrap_or(self.percentage);
        let on_ramp = self.ramp.as_ref().is_some_and(|ramp| ramp.active);
        let is_known = !self.rollback.as_ref().is_some_and(Rollback::is_unread);
        let differs = self.enabled && !on_ramp && is_known && (meant - self.file_percentage).abs() > f64::EPSILON;
        differs.then_some(meant)
    }
}

/// A change that waits for a second operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    /// What it is approved by.
    pub id: String,
    /// The flag's key.
    pub flag: String,
    /// The generation that it is about: once the flag is at another, it is void.
    pub generation: u64,
    /// What is to be done: `set`, `promote`, `resume`, `skip`, `approve`, or `set, beta`.
    pub action: String,
    /// The share on canary before, in percent.
    pub from_percentage: f64,
    /// The share on canary after, in percent.
    pub percentage: f64,
    /// Who asked for it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// When, in RFC 3339.
    pub at: String,
    /// Until when it waits, in RFC 3339.
    pub expires: String,
}

/// The changes that wait for a second operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalList {
    /// Those of each flag, oldest first.
    pub approvals: Vec<Approval>,
}

/// A ramp, and where the rollout stands on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RampStatus {
    /// Whether the ramp moves the percentage, now or once it is resumed: not after a person has taken over or promoted.
    pub active: bool,
    /// The steps, from the lowest to 100 %.
    pub steps: Vec<RampStepStatus>,
    /// The number, from 1, of the step that the percentage is on; 0 below the first.
    pub step: usize,
    /// For how long the ramp has run at this percentage, in seconds. Pauses and the gateway's absence do not count.
    pub held_s: f64,
    /// Requests of the canary that the judge has heard in that time.
    pub requests: u64,
    /// How many each step has to see.
    pub min_requests: u64,
    /// After this many seconds on a step the ramp pauses, if the evidence is not there.
    pub max_hold_s: f64,
    /// The evidence that the canary is not worse, gathered at this percentage: 1 at the start.
    pub evidence: Option<f64>,
    /// What it must reach.
    pub evidence_needed: Option<f64>,
    /// Whether it has paused since the evidence did not come in time.
    pub inconclusive: bool,
    /// `time`, `requests`, `evidence` or `approval`; `resume` while it is held, `enabled` while the flag is switched off;
    /// nothing if it does not move the percentage.
    pub waits_for: Option<String>,
    /// The same in words.
    pub detail: String,
    /// The percentage that it goes to next, if it moves the percentage.
    pub next_percentage: Option<f64>,
    /// When it goes there at the earliest, in RFC 3339, while it waits for its time.
    pub next_at: Option<String>,
}

/// One step of a ramp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RampStepStatus {
    /// The share of targeting keys on canary, in percent.
    pub percentage: f64,
    /// For how long it is held at least, in seconds.
    pub hold_s: f64,
    /// Whether a person has to let the ramp go on.
    pub approve: bool,
}

/// Both arms of a flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Arms {
    /// The implementation that is known to work.
    pub stable: ArmStatus,
    /// The implementation on trial.
    pub canary: ArmStatus,
}

/// One arm's outcomes in the generation in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArmStatus {
    /// The backend, which is also the variant's name.
    pub backend: String,
    /// Requests that count.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Failures by requests, 0 to 1; 0 without requests.
    pub error_rate: f64,
    /// The median latency in milliseconds, if there were requests.
    pub p50_ms: Option<f64>,
    /// The 99th percentile of latency in milliseconds, if there were requests.
    pub p99_ms: Option<f64>,
    /// Whether it has a server that can be used. A canary without one gets no requests: stable serves.
    pub available: bool,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// One server of a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// As it is configured, and the address that its name stands for.
    pub name: String,
    /// Whether its health check finds it well; true without one.
    pub healthy: bool,
    /// Whether it is set aside for failing requests.
    pub ejected: bool,
}

/// Every flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagList {
    /// The version of the flag files in force: a hash of all that they say.
    pub flag_set_version: String,
    /// By key.
    pub flags: Vec<FlagStatus>,
}

/// A page of a beta list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BetaPage {
    /// How many users are on the list, on all pages.
    pub beta_users: usize,
    /// Those on this page: first who was added at runtime, then who was removed, then the files' users.
    pub users: Vec<BetaUser>,
    /// What to ask for the page after this one by, if there is one.
    pub next: Option<String>,
}

/// A user on a beta list, or taken off it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BetaUser {
    /// The targeting key.
    pub user: String,
    /// `added` or `removed` at runtime, or in the `flag_file` or its `users_file`.
    pub source: String,
    /// Who changed it at runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}
