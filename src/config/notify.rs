//! `[notify.*]`: who is told of what happens.

use std::fs;
use std::time::Duration;

use http::Uri;

use crate::config::read::some_time;
use crate::document::{Placed, Section, Value, placed_strings, string};
use crate::notify::{Channel, Format, Kind, Secret};

/// A notice that could not be sent for a day is no news.
const MAX_AGE: Duration = Duration::from_hours(24);

pub(crate) fn channel((name, mut section): (Placed<String>, Section<'_>)) -> Option<Channel> {
    let problems = section.problems();
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.value.is_empty() || name.value.len() > 63 || !name.value.bytes().all(letter) {
        let message = format!("a channel cannot be named `{}`: a name is 1 to 63 of a-z, 0-9 and `-`", name.value);
        problems.report(&name.place, message);
    }
    let url = section.required("url", "\"https://hooks.example.com/tidegate\"", url);
    let format = section.or("format", |value| known_format(&string(value)?), KnownFormat::Tidegate);
    let secret = secret(&mut section, format);
    let events = section.optional("events", placed_strings);
    let events = events.map_or_else(
        || Kind::ALL.to_vec(),
        |events| {
            let read = |event: &Placed<String>| {
                let kind = event.value.parse::<Kind>();
                kind.map_err(|error| problems.report(&event.place, format!("\"{}\": {error}", event.value))).ok()
            };
            events.value.iter().filter_map(read).collect()
        },
    );
    let max_age = section.or("max_age", some_time, MAX_AGE);
    section.finish();
    let format = match format {
        KnownFormat::Tidegate => Format::Tidegate(secret?),
        KnownFormat::Slack => Format::Slack,
        KnownFormat::Alertmanager => Format::Alertmanager,
    };
    Some(Channel { name: name.value, url: url?.value, format, events, max_age })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownFormat {
    Tidegate,
    Slack,
    Alertmanager,
}

fn known_format(text: &str) -> Result<KnownFormat, String> {
    match text {
        "tidegate" => Ok(KnownFormat::Tidegate),
        "slack" => Ok(KnownFormat::Slack),
        "alertmanager" => Ok(KnownFormat::Alertmanager),
        _ => Err(format!("\"{text}\": there are `tidegate`, `slack` and `alertmanager`")),
    }
}

fn url(value: &Value) -> Result<String, String> {
    let text = string(value)?;
    let uri = text.parse::<Uri>().ok();
    let usable = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    // Not repeated: it may hold a secret.
    if usable { Ok(text) } else { Err("write a whole URL, like \"https://hooks.example.com/tidegate\"".to_owned()) }
}

/// The secret, from the configuration or from a file of its own; only what is signed has one.
fn secret(section: &mut Section<'_>, format: KnownFormat) -> Option<Secret> {
    let problems = section.problems();
    let too_short = || format!("a secret has {} bytes or more; `openssl rand -hex 32` makes one", Secret::MIN_BYTES);
    let inline = section.optional("secret", string);
    let file = section.optional("secret_file", string);
    if format != KnownFormat::Tidegate {
        for Placed { place, .. } in inline.iter().chain(&file) {
            problems.report(place, "only the format `tidegate` is signed; remove the secret, or change the format");
        }
        return None;
    }
    match (inline, file) {
        (Some(Placed { value, place }), None) => {
            let secret = Secret::new(&value);
            if secret.is_none() {
                problems.report(&place, too_short());
            }
            secret
        }
        (None, Some(Placed { value, place })) => match fs::read_to_string(&value) {
            Ok(text) => {
                let secret = Secret::new(&text);
                if secret.is_none() {
                    problems.report(&place, format!("{value}: {}", too_short()));
                }
                secret
            }
            Err(error) => {
                problems.report(&place, format!("cannot read {value}: {error}"));
                None
            }
        },
        (Some(_), Some(Placed { place, .. })) => {
            problems.report(&place, "there is a `secret` as well; give one of them");
            None
        }
        (None, None) => {
            let message = "what is sent is signed, so a `secret_file = \"…\"` or a `secret = \"…\"` is needed";
            problems.report(section.place(), message);
            None
        }
    }
}
