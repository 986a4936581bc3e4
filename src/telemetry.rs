//! Logs, the access log and spans: how they are set up, and how an error reads in them.

mod access_log;
mod spans;
mod trace_context;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

pub use crate::telemetry::access_log::{
    AccessLine, AccessLog, AccessLogConfig, AccessLogTarget, AccessLogTargetError, Disclosure, DisclosureError,
    RefusalLine,
};
pub use crate::telemetry::spans::{RequestSpan, SpanSender, Spans, TracingConfig};
pub use crate::telemetry::trace_context::TraceContext;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log to standard error what `filter` lets through (`info`, `tidegate=debug`, …).
///
/// pingora reports each failed request as an error of its own; those are the proxy's to tell, so they are left out
/// unless the filter names `pingora`.
///
/// Writing is left to a thread of its own: if nobody reads standard error, lines are dropped, and nobody waits. What is
/// returned has to be kept until the end, so that the last lines are written.
///
/// # Errors
///
/// If the filter cannot be read. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> Result<WorkerGuard, ParseError> {
    let quiet = if filter.contains("pingora") { "" } else { ",pingora=off" };
    let filter = EnvFilter::builder().parse(format!("{filter}{quiet}"))?;
    let colours = io::stderr().is_terminal();
    let (stderr, guard) = NonBlockingBuilder::default().lossy(true).finish(io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(colours);
    // A subscriber that is there already was set by whoever embeds us, and stays.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(guard)
}

/// What counts that of requests which could not be told.
#[derive(Debug, Clone, Default)]
pub struct Lost {
    /// Lines of the access log, if there is one.
    pub lines: Option<ErrorCounter>,
    /// Spans, if there is a collector.
    pub spans: Option<Spans>,
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some libraries repeat the cause in their own message.
        let message = error.to_string();
        if !text.contains(&message) {
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text
}
