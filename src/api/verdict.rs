//! What the judge found, and what it led to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

/// The cause by which a flag serves stable whose rollout could not be read since the gateway started.
pub const STORE_UNREACHED: &str = "store_unreached";

impl Rollback {
    /// Whether nobody took the canary out: the gateway cannot read the rollout, and serves stable until it can.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.cause == STORE_UNREACHED
    }

    /// What the canary did until then, in a few words.
    #[must_use]
    pub fn found(&self) -> String {
        match self.why.as_ref().filter(|why| why.stream != "error_rate") {
            Some(why) => format!("{} of {} canary requests were slow", why.canary.failures, why.canary.requests),
            None => format!("{} of {} canary requests failed", self.failures, self.requests),
        }
    }
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
    /// The canary's shares, in percent, at which outcomes were gathered; those of each are compared by themselves.
    pub shares: Vec<f64>,
    /// When the first outcomes that were used came in, in RFC 3339.
    pub first: Option<String>,
    /// When the last did.
    pub last: Option<String>,
    /// Ids of the canary's latest failed requests, or of its slow ones where `stream` is about those, at most 20. A request without
    /// an end has none yet. Of a shared store, those of this gateway.
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
