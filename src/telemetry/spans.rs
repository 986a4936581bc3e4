//! Spans: what a request did, for an OpenTelemetry collector, by OTLP over HTTP. They are handed over and sent elsewhere: no
//! request waits, and what cannot be taken is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::telemetry::trace_context::TraceContext;

/// Spans that may wait to be sent: as OpenTelemetry's own batch processors have it (`OTEL_BSP_MAX_QUEUE_SIZE`).
const WAITING: usize = 2048;

/// Spans that are sent at once, and how often what there is is sent.
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(1);

/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which requests are traced, and who is told.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingConfig {
    /// The collector's address, to which `/v1/traces` is added; without one no spans are made.
    pub endpoint: Option<String>,
    /// The share of traces that are recorded, from 0 to 1, among those that begin here or come from somebody who is not trusted.
    pub sample: f64,
    /// What the gateway is called there.
    pub service: String,
}

/// A request, as it is told.
#[derive(Debug)]
pub struct RequestSpan {
    /// The trace, with the gateway's own span.
    pub context: TraceContext,
    /// The span that sent the request, if it said so.
    pub parent: Option<u64>,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What it is called: method and route.
    pub name: String,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// Takes spans.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<SpanData>,
    scope: InstrumentationScope,
    lost: Arc<AtomicU64>,
}

/// Sends spans.
#[derive(Debug)]
pub struct SpanSender {
    queue: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    lost: Arc<AtomicU64>,
}

impl Spans {
    /// What `config` says, if there is a collector.
    ///
    /// # Errors
    ///
    /// If its address cannot be used.
    pub fn open(config: &TracingConfig) -> Result<Option<(Self, SpanSender)>, String> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("`tracing.endpoint` cannot be used: {error}"))?;
        exporter.set_resource(&Resource::builder().with_service_name(config.service.clone()).build());
        let (sender, receiver) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let scope = InstrumentationScope::builder("tidegate").with_version(env!("CARGO_PKG_VERSION")).build();
        let spans = Self { queue: sender, scope, lost: Arc::clone(&lost) };
        Ok(Some((spans, SpanSender { queue: receiver, exporter, lost })))
    }

    /// Hands a span over to be sent.
    pub fn tell(&self, span: RequestSpan) {
        let flags = TraceFlags::new(span.context.flags);
        let (trace, id) = (TraceId::from(span.context.trace), SpanId::from(span.context.span));
        let told = SpanData {
            span_context: SpanContext::new(trace, id, flags, false, TraceState::NONE),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: span.parent.is_some(),
            span_kind: SpanKind::Server,
            name: span.name.into(),
            start_time: span.began,
            end_time: span.ended,
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        };
        if self.queue.try_send(told).is_err() {
            count(&self.lost, 1);
        }
    }

    /// How many spans were lost: there were too many, or the collector did not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        // Relaxed: it is counted, and nothing follows from it.
        self.lost.load(Ordering::Relaxed)
    }
}

fn count(lost: &AtomicU64, spans: usize) {
    // Relaxed: see `Spans::lost`.
    lost.fetch_add(spans as u64, Ordering::Relaxed);
}

impl SpanSender {
    /// Sends what there is, until `stopping` turns true, and then what is left.
    pub async fn send_until(mut self, mut stopping: watch::Receiver<bool>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let mut failing = false;
        loop {
            let stops = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => true,
                received = self.queue.recv_many(&mut batch, BATCH), if batch.len() < BATCH => {
                    if received > 0 && batch.len() < BATCH {
                        continue;
                    }
                    received == 0
                }
                _ = ticks.tick() => false,
            };
            if stops {
                while let Ok(span) = self.queue.try_recv() {
                    batch.push(span);
                }
            }
            if !batch.is_empty() {
                let sent = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                let spans = sent.len();
                match self.exporter.export(sent).await {
                    Ok(()) => failing = false,
                    Err(error) => {
                        count(&self.lost, spans);
                        // Once, until it goes well again: a collector that is down would fill the log.
                        if !std::mem::replace(&mut failing, true) {
                            warn!(%error, spans, "the collector does not take spans");
                        }
                    }
                }
            }
            if stops {
                return;
            }
        }
    }
}
