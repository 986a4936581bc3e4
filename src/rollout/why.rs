//! Verdicts that explain themselves: what the judge found, in numbers and in a sentence.

use jiff::Timestamp;

use crate::api::{Estimate, Range, Why};
use crate::judge::{
    Check, Counts, Interval, Outlook, Rate, Report, Stream, Verdict, difference_interval, rate_interval,
};
use crate::recorder::RecordedFlag;
use crate::rollout::book::Live;
use crate::rollout::status::{brief, evidence};
use crate::rollout::tick::CANARY_UNAVAILABLE;

/// How sure the intervals are: 95 %, at all times at once.
const DOUBT: f64 = 0.05;

/// What the judge's verdict on the canary rests on; nothing before its first look.
pub(crate) fn why(live: &Live, entry: &RecordedFlag) -> Option<Why> {
    let report = live.on_trial.report()?;
    let doubt = Rate::from_share(DOUBT).unwrap_or_default();
    let stream = cause(report).and_then(stream_of).unwrap_or(Stream::Errors);
    let compared = report.streams.iter().find(|candidate| candidate.stream == stream);
    let (stable, canary) = compared.map_or_else(Default::default, |found| (found.stable, found.canary));
    // Against an absolute limit, all of the canary's requests count.
    let alone = cause(report).and_then(|check| report.limits.iter().find(|limit| limit.of.check() == check));
    let canary = alone.map_or(canary, |limit| limit.canary);
    // Nobody has said how slow stable may be.
    let is_slow = cause(report) == Some(Check::MaxLatency);
    let stable = if is_slow { Counts::default() } else { stable };
    let (value, limit) =
        alone.map_or((report.log_evidence, report.log_limit), |limit| (limit.log_evidence, limit.log_limit));
    let (verdict, to_go) = match report.outlook {
        Outlook::Healthy => (Verdict::Healthy, None),
        Outlook::Inconclusive { canary_requests } => (Verdict::Inconclusive, canary_requests),
        Outlook::Worse { .. } => (Verdict::Worse, None),
    };
    let found = live.on_trial.span(&entry.attached);
    let moment = |at: i64| Timestamp::from_millisecond(at).map(|at| format!("{at:.3}")).ok();
    let by_latency = is_slow || stream != Stream::Errors;
    Some(Why {
        verdict: verdict.as_str().to_owned(),
        cause: cause(report).map(|check| check.as_str().to_owned()),
        summary: summary(report, live, stable, canary, to_go),
        stream: if is_slow { Check::MaxLatency.as_str() } else { stream.as_str() }.to_owned(),
        stable: estimate(stable, doubt),
        canary: estimate(canary, doubt),
        difference: range(difference_interval(stable, canary, doubt)),
        confidence: 1.0 - DOUBT,
        evidence: brief(value.exp()),
        limit: brief(limit.exp()),
        checks: evidence(live),
        shares: found.shares,
        first: found.first.and_then(moment),
        last: found.last.and_then(moment),
        samples: if by_latency { found.slow } else { found.failed },
        canary_requests_to_go: to_go,
    })
}

/// The same for a rollback by `cause`, which need not be the judge's.
pub(crate) fn of_rollback(live: &Live, entry: &RecordedFlag, cause: &str) -> Option<Why> {
    let found = why(live, entry)?;
    if cause != CANARY_UNAVAILABLE {
        return Some(found);
    }
    let seconds = live.definition.guard.max_unavailable.as_secs_f64();
    let summary = format!(
        "For {seconds} s no server of the canary's could be used, which is as long as `max_unavailable` allows. Stable served its users \
         meanwhile. Statistics had no part in it."
    );
    Some(Why { summary, ..found })
}

fn cause(report: &Report) -> Option<Check> {
    report.worse()
}

fn stream_of(check: Check) -> Option<Stream> {
    match check {
        Check::WorseThanStable(stream) => Some(stream),
        Check::MaxErrorRate | Check::MaxLatency | Check::HarmBudget => None,
    }
}

fn estimate(counts: Counts, doubt: Rate) -> Estimate {
    let Interval { low, high } = rate_interval(counts, doubt);
    let rate = brief(counts.error_rate().as_share());
    Estimate { requests: counts.requests, failures: counts.failures, rate, low: brief(low), high: brief(high) }
}

fn range(Interval { low, high }: Interval) -> Range {
    Range { low: brief(low), high: brief(high) }
}

/// What a release manager wants to know, in a sentence or two.
fn summary(report: &Report, live: &Live, stable: Counts, canary: Counts, to_go: Option<u64>) -> String {
    let guard = &live.definition.guard;
    let of = |counts: Counts| format!("{} of {} requests ({})", counts.failures, counts.requests, counts.error_rate());
    let releases = (1.0 / guard.false_rollback.as_share()).round();
    let never = format!("A canary within its guard is taken out by chance in at most one of {releases} releases.");
    match cause(report) {
        Some(Check::WorseThanStable(Stream::Errors)) => format!(
            "The canary failed {}, stable {} meanwhile: more, at least lately, than the guard tolerates. {never}",
            of(canary),
            of(stable)
        ),
        Some(Check::WorseThanStable(slow)) => format!(
            "The canary was too slow in {}, at the line that stable's {} draws; stable was in {}. {never}",
            of(canary),
            match slow {
                Stream::LatencyP50 => "median",
                Stream::LatencyP90 => "90th percentile",
                Stream::LatencyP99 | Stream::Errors => "99th percentile",
            },
            of(stable)
        ),
        // A canary that was well for long has a low rate on the whole when it breaks.
        Some(Check::MaxErrorRate) if canary.error_rate() <= guard.max_error_rate => format!(
            "The canary failed {} in all, but lately more than the {} that it may whatever stable does. {never}",
            of(canary),
            guard.max_error_rate
        ),
        Some(Check::MaxErrorRate) => format!(
            "The canary failed {}, more than the {} that it may whatever stable does. {never}",
            of(canary),
            guard.max_error_rate
        ),
        Some(Check::MaxLatency) => {
            format!("The canary took longer than `max_latency` for {}; 1 % may. {never}", of(canary))
        }
        Some(Check::HarmBudget) => format!(
            "Users met {} failures of the canary, and {} is the budget. Statistics had no part in it.",
            report.harm,
            report.harm_budget.unwrap_or_default()
        ),
        None if report.requests < report.min_requests => format!(
            "The canary has had {} of the {} requests that statistics wait for.",
            report.requests, report.min_requests
        ),
        None => match (report.outlook, to_go) {
            (Outlook::Healthy, _) => format!(
                "The canary failed {}, stable {}. A regression that matters would have been seen by now.",
                of(canary),
                of(stable)
            ),
            (_, Some(requests)) => format!(
                "The canary failed {}, stable {}. That is too little to tell; about {requests} more canary requests \
                 would.",
                of(canary),
                of(stable)
            ),
            _ => format!(
                "The canary failed {}, stable {}. Until both have traffic there is nothing to tell by.",
                of(canary),
                of(stable)
            ),
        },
    }
}
