//! How a rollout stands to its ramp, as it is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flag::RampState;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    active: bool,
    held_ms: u64,
    requests: u64,
    inconclusive: bool,
}

/// The JSON of `state`.
pub(crate) fn text(state: RampState) -> String {
    let held_ms = u64::try_from(state.held.as_millis()).unwrap_or(u64::MAX);
    let RampState { active, requests, inconclusive, .. } = state;
    // A struct of plain numbers always has one.
    serde_json::to_string(&Kept { active, held_ms, requests, inconclusive }).unwrap_or_default()
}

/// The state that `text` is the JSON of.
pub(crate) fn read(text: Option<&str>) -> Result<Option<RampState>, serde_json::Error> {
    let state = |kept: Kept| RampState {
        active: kept.active,
        held: Duration::from_millis(kept.held_ms),
        requests: kept.requests,
        inconclusive: kept.inconclusive,
    };
    Ok(text.map(serde_json::from_str).transpose()?.map(state))
}
