//! What was counted second by second.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// All requests to each arm, stable's before the canary's, whatever the judge heard of them. Older gateways do not tell them.
    #[serde(default)]
    pub arms: [[u64; 2]; 2],
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
