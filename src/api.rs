//! What the admin API says and hears; shared by the server, its client and the audit trail.

mod diffs;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::api::diffs::{CopyResults, DiffSample, Diffs, PlaceDiff};

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
    /// Both arms' outcomes in this generation.
    pub arms: Arms,
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

/// One check of the guard, as the judge found it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// The check's name.
    pub check: String,
    /// The evidence against the canary: 1 at the start, and for a healthy canary above the limit with no more than the
    /// guard's probability of a false rollback. Of `harm_budget`, the failures that users met.
    pub value: f64,
    /// What it takes to roll back.
    pub limit: f64,
    /// Requests to the canary that the evidence rests on; of each user, not more than tell something new.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// `healthy`, `inconclusive` or `worse`.
    pub verdict: String,
    /// About how many more canary requests it takes, as things go now, to see the smallest regression that matters; for
    /// the comparison with stable, while it is inconclusive and there is traffic to tell by.
    pub canary_requests_to_go: Option<u64>,
}

/// Why and when the canary was taken out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// When, in RFC 3339.
    pub at: String,
    /// The check that found the canary worse, or `manual`.
    pub cause: String,
    /// What the judge had found.
    pub evidence: Vec<Evidence>,
    /// The canary's requests in the generation that was rolled back.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Who rolled back: `judge`, or the person.
    pub by: String,
    /// The person's reason.
    pub reason: Option<String>,
    /// What the judge's verdict rested on, if it had looked by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<Why>>,
}

/// What the judge's verdict on a canary rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// `healthy`, `inconclusive` or `worse`.
    pub verdict: String,
    /// The check by which it is worse, if it is.
    pub cause: Option<String>,
    /// The verdict in words.
    pub summary: String,
    /// What is counted below: `error_rate`, or the line by which an answer was slow, like `latency_p50`; `max_latency` is the
    /// canary's alone.
    pub stream: String,
    /// Stable's part of it.
    pub stable: Estimate,
    /// The canary's.
    pub canary: Estimate,
    /// How much higher the canary's rate is than stable's, in shares from -1 to 1.
    pub difference: Range,
    /// The probability with which an interval holds, at every moment at once.
    pub confidence: f64,
    /// The evidence against the canary, over all streams or against the absolute limit that it exceeds: 1 at the start.
    pub evidence: f64,
    /// What it takes to roll back.
    pub limit: f64,
    /// Check by check.
    pub checks: Vec<Evidence>,
    /// The canary's shares, in percent, at which outcomes were gathered since the gateway started; those of each are compared
    /// by themselves.
    pub shares: Vec<f64>,
    /// When the first outcomes that were used came in since the gateway started, in RFC 3339.
    pub first: Option<String>,
    /// When the last did.
    pub last: Option<String>,
    /// Ids of the canary's latest failed requests, at most 20.
    pub samples: Vec<String>,
    /// About how many more canary requests it takes to see the smallest regression that matters, while it is inconclusive
    /// and there is traffic to tell by.
    pub canary_requests_to_go: Option<u64>,
}

/// A rate and how far off it may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// Requests that count.
    pub requests: u64,
    /// Those of them that failed, or were slow.
    pub failures: u64,
    /// The second by the first, 0 to 1.
    pub rate: f64,
    /// The lower end of its interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// From one number to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Range {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Every flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagList {
    /// The version of the flag files in force: a hash of all that they say.
    pub flag_set_version: String,
    /// By key.
    pub flags: Vec<FlagStatus>,
}

/// What one gateway counted of a canary on trial in one second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Second {
    /// Seconds since 1970.
    pub at: i64,
    /// Which gateway: a name that it has from its start to its end.
    pub gateway: String,
    /// What was being rolled out.
    pub release: String,
    /// The rollout's generation.
    pub generation: u64,
    /// The canary's share of targeting keys, in percent.
    pub percentage: f64,
    /// The counts.
    pub counts: SecondCounts,
}

/// The counts of a second: each pair is requests and how many of them failed, or were slow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SecondCounts {
    /// The comparisons with stable.
    pub streams: Vec<StreamCounts>,
    /// What was held against the canary's own limits.
    pub limits: Vec<CanaryCounts>,
    /// All requests to the canary, and those of their failures that users met.
    pub traffic: [u64; 2],
}

/// One comparison with stable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamCounts {
    /// Its name, as among the evidence.
    pub stream: String,
    /// Of stable.
    pub stable: [u64; 2],
    /// Of the canary.
    pub canary: [u64; 2],
}

/// What was held against one of the canary's own limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryCounts {
    /// Its name, as among the evidence.
    pub check: String,
    /// Of the canary.
    pub canary: [u64; 2],
}

/// What was counted of one release, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SecondList {
    /// The seconds in which there were requests.
    pub seconds: Vec<Second>,
}

/// A request to change a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The new percentage, 0 to 100 in steps of 0.001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<f64>,
    /// Who goes on the beta list, and who off it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<BetaEdit>,
    /// Why, for the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A request to change a beta list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BetaEdit {
    /// Who is to be on it.
    #[serde(default)]
    pub add: Vec<String>,
    /// Who is not.
    #[serde(default)]
    pub remove: Vec<String>,
}

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

/// What an action did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The flag as it is now.
    pub flag: FlagStatus,
    /// Whether the change is in the store already. Only a rollback may be in force without.
    pub saved: bool,
    /// What waits for a second operator, instead of being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// A decision and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The flag's key.
    pub flag: String,
    /// The targeting key that was asked about.
    pub user: Option<String>,
    /// The backend that serves this user.
    pub variant: String,
    /// `stable` or `canary`.
    pub arm: String,
    /// Why: `BETA`, `RULE`, `PERCENTAGE`, `DISABLED`, `ROLLED_BACK` or `NO_KEY`.
    pub reason: String,
    /// The user's place in [0, 100 000).
    pub bucket: Option<u32>,
    /// The percentage in force.
    pub percentage: f64,
    /// The rollout's phase.
    pub phase: String,
    /// What is being rolled out.
    pub release: String,
    /// The generation that this holds for.
    pub generation: u64,
    /// Whether no server of the canary can be used, so that stable serves whoever is on it.
    #[serde(default)]
    pub canary_unavailable: bool,
    /// Each layer that was asked, in order, up to the one that decided.
    pub steps: Vec<ExplanationStep>,
    /// Each rule that was asked, up to the first that matches.
    pub rules: Vec<RuleFinding>,
    /// The moment that it was decided for, in RFC 3339.
    pub at: String,
}

/// What one layer of a decision said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplanationStep {
    /// `enabled`, `rollback`, `beta`, `rules` or `percentage`.
    pub layer: String,
    /// Whether this layer decided.
    pub decided: bool,
    /// What it found, in words.
    pub detail: String,
    /// The file that says so, if one does.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<usize>,
}

/// What was found of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleFinding {
    /// Its place among the flag's rules, from 1.
    pub rule: usize,
    /// The line of the flag file that it begins on.
    pub line: usize,
    /// The arm that serves if it matches.
    pub serve: String,
    /// Whether it matches: all of its conditions hold.
    pub matched: bool,
    /// Each of its conditions.
    pub conditions: Vec<ConditionFinding>,
}

/// What was found of one condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConditionFinding {
    /// The condition in words.
    pub condition: String,
    /// The line of the flag file that asks it.
    pub line: usize,
    /// What it was held against; `null` if that is missing, or if it is made of other conditions.
    pub value: Option<String>,
    /// Whether it holds.
    pub held: bool,
    /// The conditions that it is made of.
    #[schema(no_recursion)]
    pub parts: Vec<ConditionFinding>,
}

/// Flags as flagd has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagdExport {
    /// The document that flagd reads.
    #[schema(value_type = Object)]
    pub flagd: serde_json::Value,
    /// What could not be said in it.
    pub not_exported: Vec<NotExported>,
}

/// What flagd cannot be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotExported {
    /// The flag.
    pub flag: String,
    /// The rule that is left out, from 1; without it, the whole flag is.
    pub rule: Option<usize>,
    /// The line of the flag file that the rule begins on.
    pub line: Option<usize>,
    /// Why.
    pub why: String,
}

/// A gateway, as it tells the others that share its store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its number, new at every start.
    pub id: String,
    /// Its machine and port.
    pub name: String,
    /// The version of Tidegate.
    pub version: String,
    /// The version of its flag files.
    pub flag_set_version: String,
    /// Since when it runs, in RFC 3339.
    pub started: String,
    /// How long ago it was last heard of, in milliseconds, by the store's clock.
    pub lag_ms: u64,
    /// Whether that is not too long ago.
    pub alive: bool,
}

/// The gateways that share a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// The one that answers.
    pub this: String,
    /// All of them, by name.
    pub instances: Vec<Instance>,
}

/// Something that people are told of: what a webhook gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The same however often it is sent: whoever gets it twice knows by it.
    pub id: String,
    /// `rollback`, `resume`, `step`, `gate`, `pause`, `promote`, `bad_flags` or `test`.
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
    /// The generation that the event led to.
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

/// What reading the configuration again has put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The sections that differ from what was in force before; none if it says the same.
    pub changed: Vec<String>,
}

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

/// That the process is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// Whether the gateway can serve, and what is the matter with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether requests are served.
    pub ready: bool,
    /// What an operator should look at; traffic goes on all the same while `ready`.
    pub problems: Vec<String>,
    /// The version of the flag files in force: a hash of all that they say.
    pub flag_set_version: String,
}

/// An error, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind of problem, as a URI.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time, and what to do.
    pub detail: String,
    /// The request it was about, where there is an id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// The media type of a problem document.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// A problem of the kind `urn:tidegate:problem:{kind}`.
    #[must_use]
    pub fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:tidegate:problem:{kind}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            request_id: None,
        }
    }

    /// Whether it is of the kind `urn:tidegate:problem:{kind}`.
    #[must_use]
    pub fn is_of(&self, kind: &str) -> bool {
        self.kind.strip_prefix("urn:tidegate:problem:") == Some(kind)
    }
}
