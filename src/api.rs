//! What the admin API says and hears; shared by the server, its client and the audit trail.

mod diffs;
mod event;
mod explanation;
mod flag;
mod fleet;
mod second;
mod verdict;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::api::diffs::{CopyResults, DiffSample, Diffs, PlaceDiff};
pub use crate::api::event::{BetaEvent, ChainReport, Event, EventList, NO_FLAG, Notice, RolloutState};
pub use crate::api::explanation::{
    ConditionFinding, Explanation, ExplanationStep, FlagdExport, NotExported, RuleFinding,
};
pub use crate::api::flag::{
    Approval, ApprovalList, ArmStatus, Arms, BetaPage, BetaUser, FlagList, FlagStatus, RampStatus, RampStepStatus,
    ServerStatus,
};
pub use crate::api::fleet::{Instance, InstanceList};
pub use crate::api::second::{CanaryCounts, Second, SecondCounts, SecondList, StreamCounts};
pub use crate::api::verdict::{Estimate, Evidence, Range, Rollback, STORE_UNREACHED, Why};

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

/// What reading the configuration again has put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The sections that differ from what was in force before; none if it says the same.
    pub changed: Vec<String>,
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
