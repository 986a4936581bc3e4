//! `[ai]`: what the built-in backends ask for analyses and questions.

use std::time::Duration;

use crate::backend::AiConfig;
use crate::config::backends::pem;
use crate::config::read::some_time;
use crate::document::{Placed, Section, integer, string};
use crate::proxy::TlsConfig;

/// How long one try may take: a small model on a processor needs seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries after the first.
const DEFAULT_RETRIES: u32 = 1;

/// The most tries after the first: a person is waiting.
const MAX_RETRIES: u32 = 5;

pub(crate) fn ai(mut section: Section<'_>) -> Option<AiConfig> {
    let problems = section.problems();
    let url = section.required("url", "\"http://127.0.0.1:11434/v1\"", string);
    let model = section.required("model", "\"llama3.1\"", string);
    let key = section.optional("key", string);
    let authorities = section.optional("ca", |value| pem(value, TlsConfig::certificates));
    let timeout = section.or("timeout", some_time, DEFAULT_TIMEOUT);
    let retries = section.or(
        "retries",
        |value| match integer(value)? {
            retries if retries <= MAX_RETRIES => Ok(retries),
            retries => Err(format!("at most {MAX_RETRIES}, not {retries}")),
        },
        DEFAULT_RETRIES,
    );
    section.finish();
    let place = url.as_ref().map(|Placed { place, .. }| place.clone());
    let ai = AiConfig {
        url: url?.value,
        model: model?.value,
        key: key.map(|key| key.value),
        authorities: authorities.map_or_else(Vec::new, |authorities| authorities.value),
        timeout,
        retries,
    };
    if let (Err(problem), Some(place)) = (ai.check(), place) {
        problems.report(&place, format!("`ai.url`: {problem}"));
    }
    Some(ai)
}
