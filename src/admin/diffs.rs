//! What copies to a canary found, as the admin API tells it.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;

use crate::admin::problem::AdminError;
use crate::admin::{AdminState, Shared, flag_key};
use crate::api::{CopyResults, DiffSample, Diffs, PlaceDiff};
use crate::flag::{Arm, FlagKey, Percentage, Phase};
use crate::shadow::{CopyResult, Finding, Report, Sample};

pub(crate) async fn diffs(
    axum::extract::State(state): Shared,
    key: Result<Path<String>, PathRejection>,
) -> Result<Json<Diffs>, AdminError> {
    let key = flag_key(&key?)?;
    told(&state, &key).map(Json).ok_or_else(|| AdminError::UnknownFlag(key.to_string()))
}

fn told(state: &AdminState, key: &FlagKey) -> Option<Diffs> {
    let entry = state.rollouts.entry(key)?;
    let (flag, rollout) = (&entry.flag, &entry.rollout);
    let canary = flag.backend(Arm::Canary);
    let shadow = flag.shadow.as_ref();
    let why_not = if shadow.is_none_or(|shadow| shadow.percentage == Percentage::ZERO) {
        Some("off")
    } else if !rollout.enabled {
        Some("disabled")
    } else if rollout.phase == Phase::RolledBack {
        Some("rolled_back")
    } else if state.availability.unavailable_since(canary).is_some() {
        Some("canary_unavailable")
    } else {
        None
    };
    let report = state.shadows.report(flag).unwrap_or_default();
    let Report { results, compared, compared_noise, findings, left_out, samples } = report;
    let count = |wanted| results.iter().find(|(result, _)| *result == wanted).map_or(0, |(_, count)| *count);
    let percent = |share: Option<Percentage>| share.map_or(0.0, Percentage::as_percent);
    Some(Diffs {
        flag: flag.key.to_string(),
        release: flag.release.clone(),
        stable: flag.backend(Arm::Stable).to_string(),
        canary: canary.to_string(),
        state: why_not.unwrap_or("copying").to_owned(),
        percentage: percent(shadow.map(|shadow| shadow.percentage)),
        noise_percentage: percent(shadow.map(|shadow| shadow.noise)),
        results: CopyResults {
            same: count(CopyResult::Same),
            noise: count(CopyResult::Noise),
            different: count(CopyResult::Different),
            failed: count(CopyResult::Failed),
            skipped_in_flight: count(CopyResult::SkippedInFlight),
            skipped_body: count(CopyResult::SkippedBody),
            skipped_unanswered: count(CopyResult::SkippedUnanswered),
        },
        compared,
        compared_noise,
        differences: findings.into_iter().map(|finding| place(finding, compared, compared_noise)).collect(),
        left_out,
        samples: samples.into_iter().map(sample).collect(),
    })
}

fn place(finding: Finding, compared: u64, compared_noise: u64) -> PlaceDiff {
    let rate = |count: u64, of: u64| if of == 0 { 0.0 } else { rounded(count as f64 / of as f64) };
    PlaceDiff {
        rate: rate(finding.canary, compared),
        noise_rate: rate(finding.noise, compared_noise),
        place: finding.place,
        detail: finding.detail,
        verdict: finding.verdict.as_str().to_owned(),
        requests: finding.canary,
        noise_requests: finding.noise,
        excess_low: rounded(finding.excess.0),
        excess_high: rounded(finding.excess.1),
    }
}

/// As many digits as anybody reads.
fn rounded(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

fn sample(sample: Sample) -> DiffSample {
    let Sample { request_id, at, stable_status, canary_status, place, detail, others } = sample;
    DiffSample { request_id, at, stable_status, canary_status, place, detail, others: others as u64 }
}
