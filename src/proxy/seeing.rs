//! What is told of a request: the trace that it goes on with, its line in the access log, and its span.

use std::time::{Duration, Instant, SystemTime};

use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use jiff::SignedDuration;
use opentelemetry::KeyValue;
use pingora_error::Error;
use pingora_proxy::Session;
use uuid::Uuid;

use crate::clock;
use crate::outcome::Outcome;
use crate::proxy::context::Context;
use crate::telemetry::{AccessLine, AccessLog, Disclosure, RequestSpan, Spans, TraceContext};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Who is told of requests.
#[derive(Debug)]
pub struct Seeing {
    /// One line for each.
    pub access_log: Option<AccessLog>,
    /// A collector of spans.
    pub spans: Option<Spans>,
    /// The share of traces that are recorded, from 0 to 1.
    pub sample: f64,
}

/// What is told of an exchange with a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'r> {
    pub(crate) request: &'r Parts,
    /// What the client was answered, if it was.
    pub(crate) status: Option<u16>,
    /// Bytes of both bodies.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl<'r> Told<'r> {
    pub(crate) fn of(session: &'r Session) -> Self {
        Self {
            request: session.req_header(),
            status: session.response_written().map(|response| response.status.as_u16()),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
        }
    }
}

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace {
    context: TraceContext,
    /// The span that sent the request, if it said so.
    parent: Option<u64>,
    /// Whether the gateway's own span is told.
    recorded: bool,
    /// Whether it is passed on as it came.
    untouched: bool,
}

impl Seeing {
    /// The trace that a request goes on with: its own, or one that begins here.
    ///
    /// Whoever is not trusted may name a trace, but not have it recorded: that would let anyone fill a collector.
    pub(crate) fn trace(&self, request: &Parts, trusted: bool) -> Trace {
        let mut values = request.headers.get_all(TRACEPARENT).into_iter();
        let given = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(TraceContext::parse),
            _ => None,
        };
        let (random, own) = Uuid::new_v4().as_u64_pair();
        // The first 32 bits of such an id are random (RFC 9562, section 5.4).
        let drawn = (random >> 32) as f64 / f64::from(u32::MAX) < self.sample;
        let sampled = match given {
            Some(given) if trusted => given.is_sampled(),
            _ => drawn,
        };
        let recorded = sampled && self.spans.is_some();
        match given {
            // Who makes no span of its own is no part of the trace.
            Some(context) if self.spans.is_none() => Trace { context, parent: None, recorded: false, untouched: true },
            Some(given) => {
                let context = given.passed_on(own, sampled);
                Trace { context, parent: Some(given.span), recorded, untouched: false }
            }
            None => {
                let context = TraceContext::begin(Uuid::new_v4().as_u128(), own).passed_on(own, sampled);
                Trace { context, parent: None, recorded, untouched: false }
            }
        }
    }

    /// Tells of a request that has ended.
    pub(crate) fn tell(
        &self,
        told: Told<'_>,
        context: &Context,
        error: Option<&Error>,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(trace) = context.trace else { return };
        let spans = self.spans.as_ref().filter(|_| trace.recorded);
        if self.access_log.is_none() && spans.is_none() {
            return;
        }
        let took = now.saturating_duration_since(context.started());
        let ended = clock::wall();
        let began = ended.checked_sub(SignedDuration::try_from(took).unwrap_or_default()).unwrap_or(ended);
        let request = told.request;
        let decision = context.decision.as_ref();
        let line = AccessLine {
            at: began.to_string(),
            request_id: context.request_id_text(),
            trace_id: format!("{:032x}", trace.context.trace),
            method: request.method.as_str(),
            route: context.place.as_ref().map(|place| place.path()),
            path: None,
            client: None,
            protocol: protocol(request.version),
            tls: context.tls,
            flag: decision.map(|decision| decision.entry.flag.key.as_str()),
            variant: context.upstream.as_ref().map(|upstream| upstream.name()),
            reason: decision.map(|decision| decision.evaluation.reason.as_str()),
            generation: decision.map(|decision| decision.entry.rollout.generation.get()),
            upstream: context.server.as_ref().map(|server| server.endpoint().name()),
            status: told.status,
            outcome: decision.map(|_| outcome.as_str()),
            rescued: context.was_given_up(),
            diverted: context.diverted,
            bytes_in: told.bytes_in,
            bytes_out: told.bytes_out,
            duration_ms: milliseconds(took),
            upstream_ms: context
                .exchange_began
                .zip(context.answered)
                .map(|(began, answered)| milliseconds(answered.saturating_duration_since(began))),
            error: error.map(|error| error.etype().as_str()),
        };
        if let Some(spans) = spans {
            spans.tell(span(trace, &line, began.into(), ended.into()));
        }
        if let Some(log) = &self.access_log {
            let path = log.tells(Disclosure::Path).then(|| request.uri.path());
            let client = context.client.filter(|_| log.tells(Disclosure::Client)).map(|client| client.to_string());
            log.write(&AccessLine { path, client, ..line });
        }
    }
}

impl Trace {
    /// Tells the backend.
    pub(crate) fn pass_on(self, headers: &mut HeaderMap) {
        if self.untouched {
            return;
        }
        if self.parent.is_none() {
            // It was about another trace, or about one that nobody can read.
            headers.remove(&TRACESTATE);
        }
        // Hexadecimal digits and hyphens, which is what a header value may hold.
        if let Ok(value) = HeaderValue::from_bytes(&self.context.written()) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

/// By OpenTelemetry's semantic conventions for HTTP and for feature flags; no path, no query, no address of a client.
fn span(trace: Trace, line: &AccessLine<'_>, began: SystemTime, ended: SystemTime) -> RequestSpan {
    let text = |key: &'static str, value: Option<&str>| value.map(|value| KeyValue::new(key, value.to_owned()));
    let attributes = [
        text("http.request.method", Some(line.method)),
        text("http.route", line.route),
        text("url.scheme", Some(if line.tls { "https" } else { "http" })),
        text("network.protocol.version", line.protocol.strip_prefix("HTTP/")),
        text("feature_flag.key", line.flag),
        text("feature_flag.result.variant", line.variant.filter(|_| line.flag.is_some())),
        text("feature_flag.result.reason", line.reason),
        text("tidegate.backend", line.variant),
        text("tidegate.server", line.upstream),
        text("tidegate.request_id", Some(line.request_id)),
        line.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))),
        Some(KeyValue::new("tidegate.rescued", line.rescued)),
        text("error.type", line.error),
    ];
    let failed = line.error.is_some() || line.status.is_some_and(|status| status >= 500);
    RequestSpan {
        context: trace.context,
        parent: trace.parent,
        began,
        ended,
        name: line.route.map_or_else(|| line.method.to_owned(), |route| format!("{} {route}", line.method)),
        attributes: attributes.into_iter().flatten().collect(),
        error: failed.then(|| line.error.unwrap_or("5xx").to_owned()),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// To the microsecond: what a machine's clock says beyond it is noise.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
