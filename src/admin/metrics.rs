//! Metrics in the text format of `OpenMetrics`, made from what is counted anyway at the moment of asking.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::{AdminState, Load};
use crate::api::FlagStatus;
use crate::availability::Condition;
use crate::clock;
use crate::downstream::Handshakes;
use crate::flag::{BackendName, FlagKey, Phase};
use crate::notify::Fate;
use crate::outcome::Tally;
use crate::recorder::Served;
use crate::rollout::Counters;
use crate::shadow::CopyResult;
use crate::telemetry::Spans;

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The most servers of a backend that are told one by one: names may stand for any number.
const MAX_SERVERS: usize = 100;

/// The histogram's limits in milliseconds. Each is a limit of the buckets that latencies are counted in.
const LIMITS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

pub(crate) async fn metrics(State(state): State<AdminState>) -> Response {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot {
        flags: state.rollouts.flags(),
        backends: state.availability.all(),
        totals: state.recorder.totals().into_iter().collect(),
        long_keys: state.recorder.long_keys(),
        copies: state.shadows.totals(),
        config_reloads: state.reloads.results(),
        counters: state.rollouts.counters(),
        problems: state.problems().len(),
        load: state.load.clone(),
        lost_lines: state.lost.lines.as_ref().map(|lines| lines.dropped_lines() as u64),
        lost_spans: state.lost.spans.as_ref().map(Spans::lost),
        tls: state.tls.as_ref().map(|tls| tls.handshakes()),
        own_tls: state.own_tls.as_ref().map(|tls| tls.handshakes()),
        expiries: state.tls.iter().chain(&state.own_tls).flat_map(|tls| tls.expiries()).collect(),
        fates: state.deliveries.fates(),
        waiting: state.deliveries.waiting(),
    }));
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn gauge(count: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Everything that is told, at one moment.
#[derive(Debug)]
struct Snapshot {
    flags: Vec<FlagStatus>,
    backends: Vec<(BackendName, Condition)>,
    totals: Vec<(Served, Tally)>,
    long_keys: u64,
    copies: Vec<(FlagKey, CopyResult, u64)>,
    config_reloads: Vec<(&'static str, u64)>,
    counters: Counters,
    problems: usize,
    load: Load,
    lost_lines: Option<u64>,
    lost_spans: Option<u64>,
    tls: Option<Handshakes>,
    own_tls: Option<Handshakes>,
    expiries: BTreeMap<PathBuf, i64>,
    fates: BTreeMap<(String, Fate), u64>,
    waiting: BTreeMap<String, u64>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.requests(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.rollouts(&mut encoder)?;
        self.servers(&mut encoder)?;
        self.tls(&mut encoder)?;
        self.notifications(&mut encoder)?;
        self.load(&mut encoder)?;
        self.gateway(&mut encoder)
    }
}

impl Snapshot {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests by flag, the variant that served them, and how they ended";
        let mut family = encoder.encode_descriptor("tidegate_requests", help, None, MetricType::Counter)?;
        for ((flag, variant), tally) in &self.totals {
            let outcomes =
                [("success", tally.successes), ("failure", tally.failures), ("not_counted", tally.not_counted)];
            for (outcome, count) in outcomes {
                let labels = [("flag", flag.as_str()), ("variant", variant.as_str()), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }

        let mut rescued: BTreeMap<&FlagKey, u64> = BTreeMap::new();
        for ((flag, _), tally) in &self.totals {
            *rescued.entry(flag).or_default() += tally.rescued;
        }
        let help = "Requests that the canary failed and stable served, so that no user met the failure";
        let mut family = encoder.encode_descriptor("tidegate_rescued_requests", help, None, MetricType::Counter)?;
        for (flag, count) in rescued {
            ConstCounter::new(count).encode(family.encode_family(&[("flag", flag.as_str())])?)?;
        }

        let help = "Requests that were to be copied to the canary, and how the copies ended";
        let mut family = encoder.encode_descriptor("tidegate_shadow_requests", help, None, MetricType::Counter)?;
        for (flag, result, count) in &self.copies {
            let labels = [("flag", flag.as_str()), ("result", result.as_str())];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long the requests took that count";
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor("tidegate_request_duration", help, Some(&Unit::Seconds), kind)?;
        for ((flag, variant), tally) in &self.totals {
            let labels = [("flag", flag.as_str()), ("variant", variant.as_str())];
            let latency = &tally.latency;
            let mut below = 0;
            let mut buckets = Vec::new();
            for limit in LIMITS_MS {
                let limit = Duration::from_millis(limit);
                let all_below = latency.below(limit);
                buckets.push((limit.as_secs_f64(), all_below - below));
                below = all_below;
            }
            buckets.push((f64::INFINITY, latency.count() - below));
            let sum = Duration::from_micros(latency.sum_us()).as_secs_f64();
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<[(&str, &str); 0]>(sum, latency.count(), &buckets, None)?;
        }
        Ok(())
    }

    fn rollouts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The share of targeting keys on canary, in percent";
        let mut family = encoder.encode_descriptor("tidegate_flag_percentage", help, None, MetricType::Gauge)?;
        for flag in &self.flags {
            ConstGauge::new(flag.percentage).encode(family.encode_family(&[("flag", flag.key.as_str())])?)?;
        }

        let help = "1 for the phase that the rollout is in";
        let mut family = encoder.encode_descriptor("tidegate_flag_phase", help, None, MetricType::Gauge)?;
        for flag in &self.flags {
            for phase in Phase::ALL.map(Phase::as_str).into_iter().chain(["disabled"]) {
                let labels = [("flag", flag.key.as_str()), ("phase", phase)];
                ConstGauge::new(i64::from(flag.phase == phase)).encode(family.encode_family(&labels)?)?;
            }
        }

        let help = "The evidence against the canary, by check: 1 at the start, and a rollback at the limit";
        let mut family = encoder.encode_descriptor("tidegate_guard_evidence", help, None, MetricType::Gauge)?;
        for flag in &self.flags {
            for evidence in &flag.evidence {
                let labels = [("flag", flag.key.as_str()), ("check", evidence.check.as_str())];
                ConstGauge::new(evidence.value).encode(family.encode_family(&labels)?)?;
            }
        }

        let help = "Rollbacks by flag and cause";
        let mut family = encoder.encode_descriptor("tidegate_rollbacks", help, None, MetricType::Counter)?;
        for ((flag, cause), count) in &self.counters.rollbacks {
            let labels = [("flag", flag.as_str()), ("cause", cause.as_str())];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn servers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 for a server that requests are sent to: its health check finds it well, and it is not set aside";
        let mut family = encoder.encode_descriptor("tidegate_server_healthy", help, None, MetricType::Gauge)?;
        for (backend, condition) in &self.backends {
            for server in condition.servers.iter().take(MAX_SERVERS) {
                let labels = [("backend", backend.as_str()), ("server", server.name.as_str())];
                let well = server.healthy && !server.ejected;
                ConstGauge::new(i64::from(well)).encode(family.encode_family(&labels)?)?;
            }
        }

        let help = "1 for a backend with a server that can be used";
        let mut family = encoder.encode_descriptor("tidegate_backend_available", help, None, MetricType::Gauge)?;
        for (backend, condition) in &self.backends {
            let available = i64::from(condition.unavailable_since.is_none());
            ConstGauge::new(available).encode(family.encode_family(&[("backend", backend.as_str())])?)?;
        }

        let help = "Requests that could not be sent to one server and were tried on another";
        let mut family = encoder.encode_descriptor("tidegate_upstream_retries", help, None, MetricType::Counter)?;
        for (backend, condition) in &self.backends {
            ConstCounter::new(condition.retries).encode(family.encode_family(&[("backend", backend.as_str())])?)?;
        }

        let help = "How often a server was set aside for failing requests one after the other";
        let mut family = encoder.encode_descriptor("tidegate_server_ejections", help, None, MetricType::Counter)?;
        for (backend, condition) in &self.backends {
            ConstCounter::new(condition.ejections).encode(family.encode_family(&[("backend", backend.as_str())])?)?;
        }
        Ok(())
    }

    fn tls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let families = [
            ("tidegate_tls_handshakes", "TLS handshakes with clients, by how they ended", &self.tls),
            ("tidegate_admin_tls_handshakes", "TLS handshakes with users of the admin API", &self.own_tls),
        ];
        for (name, help, handshakes) in families {
            let Some(Handshakes { completed, failed, timed_out }) = *handshakes else { continue };
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (result, count) in [("completed", completed), ("failed", failed), ("timed_out", timed_out)] {
                ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
            }
        }
        if self.expiries.is_empty() {
            return Ok(());
        }

        let help = "Until when a certificate that clients are shown is valid, in seconds since 1970";
        let (name, kind) = ("tidegate_tls_certificate_expiry_timestamp", MetricType::Gauge);
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for (file, expiry) in &self.expiries {
            let file = file.display().to_string();
            ConstGauge::new(*expiry).encode(family.encode_family(&[("file", file.as_str())])?)?;
        }
        Ok(())
    }

    fn notifications(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Notifications by channel, and what became of them; each attempt that failed counts";
        let mut family = encoder.encode_descriptor("tidegate_notifications", help, None, MetricType::Counter)?;
        for ((channel, fate), count) in &self.fates {
            let labels = [("channel", channel.as_str()), ("result", fate.as_str())];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Notifications that wait for the channel, those that it does not want included";
        let mut family = encoder.encode_descriptor("tidegate_notifications_waiting", help, None, MetricType::Gauge)?;
        for (channel, count) in &self.waiting {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("channel", channel.as_str())])?)?;
        }
        Ok(())
    }

    fn load(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Load { in_flight, seats, runtimes } = &self.load;
        for (name, help, count) in [
            ("tidegate_requests_in_flight", "Requests that are under way", in_flight.count()),
            ("tidegate_client_connections", "Connections that clients have to the gateway", seats.taken()),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge(count).encode(metric)?;
        }

        let help = "Tasks that have not ended, by what they are for";
        let mut family = encoder.encode_descriptor("tidegate_tasks", help, None, MetricType::Gauge)?;
        for (name, metrics) in runtimes {
            gauge(metrics.num_alive_tasks()).encode(family.encode_family(&[("runtime", *name)])?)?;
        }
        Ok(())
    }

    fn gateway(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Readings of the flag files that changed the set in force or were rejected";
        let mut family = encoder.encode_descriptor("tidegate_flag_reloads", help, None, MetricType::Counter)?;
        for (result, count) in &self.counters.reloads {
            ConstCounter::new(*count).encode(family.encode_family(&[("result", result.as_str())])?)?;
        }

        let help = "Readings of the configuration under a running gateway, by how they ended";
        let mut family = encoder.encode_descriptor("tidegate_config_reloads", help, None, MetricType::Counter)?;
        for (result, count) in &self.config_reloads {
            ConstCounter::new(*count).encode(family.encode_family(&[("result", *result)])?)?;
        }

        let help = "Requests whose targeting key was longer than 4096 bytes, so that it counted as none";
        let metric = encoder.encode_descriptor("tidegate_long_targeting_keys", help, None, MetricType::Counter)?;
        ConstCounter::new(self.long_keys).encode(metric)?;

        let age = clock::now().duration_since(self.counters.flags_since).as_secs_f64();
        let (help, unit) = ("For how long the flag files' set has been in force", Some(&Unit::Seconds));
        let metric = encoder.encode_descriptor("tidegate_flag_set_age", help, unit, MetricType::Gauge)?;
        ConstGauge::new(age).encode(metric)?;

        let help = "What an operator should look at: /ready names it";
        let metric = encoder.encode_descriptor("tidegate_problems", help, None, MetricType::Gauge)?;
        gauge(self.problems).encode(metric)?;

        for (name, help, lost) in [
            ("tidegate_access_log_lost", "Lines of the access log that were lost: too many waited", self.lost_lines),
            ("tidegate_spans_lost", "Spans that were lost: too many waited, or nobody took them", self.lost_spans),
        ] {
            let Some(lost) = lost else { continue };
            ConstCounter::new(lost).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }

        let help = "The version that runs";
        let mut metric = encoder.encode_descriptor("tidegate_build", help, None, MetricType::Info)?;
        metric.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}
