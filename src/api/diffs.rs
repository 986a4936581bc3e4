//! What copies to a canary found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// In what the canary of a flag answers otherwise than stable, in the release in force, as this gateway saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Diffs {
    /// The flag.
    pub flag: String,
    /// The release that the copies were of.
    pub release: String,
    /// The backend that answered the users.
    pub stable: String,
    /// The backend that got the copies.
    pub canary: String,
    /// `copying`, or why nothing is copied right now: `off`, `disabled`, `rolled_back` or `canary_unavailable`.
    pub state: String,
    /// The share of stable's requests that are copied, in percent.
    pub percentage: f64,
    /// The share of the copied requests that stable is sent a copy of, in percent.
    pub noise_percentage: f64,
    /// How the requests ended that were to be copied.
    pub results: CopyResults,
    /// Answers of the canary that were compared.
    pub compared: u64,
    /// Second answers of stable that were compared.
    pub compared_noise: u64,
    /// The places where answers differ, what is surest and most frequent first.
    pub differences: Vec<PlaceDiff>,
    /// Differences at further places, which are not counted one by one.
    pub left_out: u64,
    /// The latest requests that the canary answered otherwise, newest first.
    pub samples: Vec<DiffSample>,
}

/// How the requests ended that were to be copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyResults {
    /// The canary answered as stable did.
    pub same: u64,
    /// It answered otherwise, but only where stable does so by itself.
    pub noise: u64,
    /// It answered otherwise.
    pub different: u64,
    /// It did not answer.
    pub failed: u64,
    /// Not copied: too many copies were under way.
    pub skipped_in_flight: u64,
    /// Not copied: a body was too long, or cannot be read.
    pub skipped_body: u64,
    /// Not copied: stable's answer did not come to its end, or the canary was taken out meanwhile.
    pub skipped_unanswered: u64,
}

/// What was found at one place of the answers. Values are not told: they may be somebody's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlaceDiff {
    /// `status`, `header NAME`, `body`, or a place in the JSON (RFC 6901) with `*` for members of arrays.
    pub place: String,
    /// What differs, stable's first, then the canary's.
    pub detail: String,
    /// `different`: the canary differs here more often than stable does from itself. `noise`: stable differs from itself here.
    /// `unclear`: too little was compared to be sure.
    pub verdict: String,
    /// How many of the canary's answers differ here.
    pub requests: u64,
    /// The same as a share of those compared.
    pub rate: f64,
    /// How many of stable's second answers differ here.
    pub noise_requests: u64,
    /// The same as a share of those compared.
    pub noise_rate: f64,
    /// How much more often the canary differs, in shares: at least.
    pub excess_low: f64,
    /// And at most.
    pub excess_high: f64,
}

/// A request that the canary answered otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffSample {
    /// What it is called in logs; the canary's log has it with `-shadow-canary` behind.
    pub request_id: String,
    /// When it was answered, in RFC 3339.
    pub at: String,
    /// Stable's status.
    pub stable_status: u16,
    /// The canary's status.
    pub canary_status: u16,
    /// The first place where it differs that is not noise.
    pub place: String,
    /// What differs there.
    pub detail: String,
    /// At how many more places it differs.
    pub others: u64,
}
