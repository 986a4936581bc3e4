//! `[access_log]` and `[tracing]`: what is told of requests, and to whom.

use http::Uri;

use crate::config::read::{each, share};
use crate::document::{Section, Value, parsed, string};
use crate::telemetry::{AccessLogConfig, AccessLogTarget, Disclosure, TracingConfig};

pub(crate) fn access_log(mut section: Section<'_>) -> Option<AccessLogConfig> {
    let to = section.optional("to", parsed::<AccessLogTarget>);
    let include = each::<Disclosure>(&mut section, "include");
    section.finish();
    Some(AccessLogConfig { to: to?.value, include: include? })
}

pub(crate) fn tracing(mut section: Section<'_>) -> Option<TracingConfig> {
    let endpoint = section.optional("endpoint", endpoint);
    let sample = section.optional("sample", share);
    let service = section.optional("service", string);
    section.finish();
    Some(TracingConfig {
        endpoint: endpoint.map(|placed| placed.value),
        sample: sample?.value,
        service: service?.value,
    })
}

/// The address of a collector.
fn endpoint(value: &Value) -> Result<String, String> {
    let text = string(value)?;
    let uri = text.parse::<Uri>().ok();
    let usable = |uri: &Uri| uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.query().is_none();
    match uri.filter(usable) {
        Some(_) => Ok(text),
        None => Err(format!(
            "\"{text}\" is no address of a collector; write it like \"http://127.0.0.1:4318\". One that speaks TLS is \
             reached through a collector on this machine"
        )),
    }
}
