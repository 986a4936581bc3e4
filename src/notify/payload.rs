//! Notices as those who get them read them.

use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use crate::api::Notice;
use crate::notify::channel::Kind;

/// For how many hours an alert is firing if nobody resolves it: an unresolved rollback is an incident of the day, other states
/// are worth an hour.
const ROLLBACK_HOURS: i64 = 24;
const OTHER_HOURS: i64 = 1;

/// As Tidegate has it.
pub(crate) fn tidegate(notice: &Notice) -> String {
    // A struct with string keys always has JSON.
    serde_json::to_string(notice).unwrap_or_default()
}

/// A message of Slack's (<https://api.slack.com/messaging/webhooks>), whose text has three letters to be escaped.
pub(crate) fn slack(notice: &Notice) -> String {
    let sign = match notice.event.as_str() {
        "rollback" => ":rotating_light:",
        "bad_flags" => ":warning:",
        "gate" | "approval" | "pause" => ":hand:",
        _ => ":information_source:",
    };
    let text = notice.summary.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"text": format!("{sign} {text}")}).to_string()
}

/// Alerts of Alertmanager's (<https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>, `postableAlerts`). A resumed
/// rollout ends the alert of its rollback and of its pause, a promoted one those of its pause and its gate.
pub(crate) fn alertmanager(notice: &Notice, now: Timestamp) -> String {
    let event = notice.event.as_str();
    let starts = notice.at.parse().unwrap_or(now);
    let alert = |event: &str, starts: Timestamp, hours: i64| {
        let mut labels = json!({"alertname": name(event), "event": event, "severity": severity(event)});
        if let (Some(flag), Some(labels)) = (&notice.flag, labels.as_object_mut()) {
            labels.insert("flag".to_owned(), Value::from(flag.as_str()));
        }
        let ends = starts.checked_add(hours.hours()).unwrap_or(starts);
        let mut annotations = json!({"summary": notice.summary});
        if let (Some(reason), Some(annotations)) = (&notice.reason, annotations.as_object_mut()) {
            annotations.insert("reason".to_owned(), Value::from(reason.as_str()));
        }
        json!({"labels": labels, "annotations": annotations, "startsAt": starts.to_string(), "endsAt": ends.to_string()})
    };
    let alerts = match event {
        "resume" => vec![alert("rollback", starts, 0), alert("pause", starts, 0)],
        "step" => vec![alert("gate", starts, 0), alert(event, starts, OTHER_HOURS)],
        "promote" => vec![alert("gate", starts, 0), alert("pause", starts, 0), alert(event, starts, OTHER_HOURS)],
        "rollback" => vec![alert(event, starts, ROLLBACK_HOURS)],
        _ => vec![alert(event, starts, OTHER_HOURS)],
    };
    Value::from(alerts).to_string()
}

fn name(event: &str) -> &'static str {
    match event {
        "rollback" => "TidegateRollback",
        "step" => "TidegateRampStep",
        "gate" => "TidegateGateWaiting",
        "approval" => "TidegateApprovalWaiting",
        "pause" => "TidegatePaused",
        "promote" => "TidegatePromoted",
        "bad_flags" => "TidegateBadFlags",
        _ => "TidegateTest",
    }
}

fn severity(event: &str) -> &'static str {
    if event == Kind::Rollback.as_str() {
        "critical"
    } else if [Kind::Gate, Kind::Approval, Kind::Pause, Kind::BadFlags].iter().any(|kind| kind.as_str() == event) {
        "warning"
    } else {
        "info"
    }
}
