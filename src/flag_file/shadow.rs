//! The `[shadow]` of a flag file.

use crate::document::{Placed, Section, Value, integer, placed_strings, size};
use crate::flag::{JsonPath, JsonPathError, Percentage, Shadow};
use crate::flag_file::rules::percent;

/// Of so many copied requests in a hundred stable gets a copy too: one in five soon shows what changes by itself.
const NOISE: f64 = 20.0;

/// The methods that change nothing (RFC 9110, section 9.2.1).
const SAFE: [&str; 2] = ["GET", "HEAD"];

/// The methods that can be copied. The last four act twice, so somebody has to ask for them.
const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];

/// Copies under way at a time: little beside the canary's own requests.
const MAX_IN_FLIGHT: usize = 10;

/// The most copies under way that can be asked for. Each may hold four bodies of `max_body`.
const MOST_IN_FLIGHT: usize = 1000;

/// The bytes of a body that are kept: answers of APIs are commonly shorter.
const MAX_BODY: usize = 64 * 1024;

/// The most bytes of a body that can be kept.
const MOST_BODY: u64 = 4 * 1024 * 1024;

pub(crate) fn shadow(mut section: Section<'_>) -> Option<Shadow> {
    let problems = section.problems();
    let share = section.required("percentage", "5", percentage);
    let noise = section.optional("noise", percentage).map(|placed| placed.value);
    let methods = section.optional("methods", placed_strings);
    let compare = section.optional("compare", placed_strings);
    let headers = section.optional("headers", placed_strings);
    let ignore = section.optional("ignore", placed_strings);
    let max_in_flight = section.or("max_in_flight", in_flight, MAX_IN_FLIGHT);
    let max_body = section.or("max_body", body, MAX_BODY);
    let place = section.place().clone();
    section.finish();

    let report = |key: &str, placed: &Placed<String>, message: &str| {
        problems.report(&placed.place, format!("`shadow.{key}`: \"{}\": {message}", placed.value));
    };
    for method in methods.iter().flat_map(|methods| &methods.value) {
        if !METHODS.contains(&method.value.as_str()) {
            report("methods", method, &format!("there are {}", METHODS.join(", ")));
        }
    }
    if let Some(methods) = methods.as_ref().filter(|methods| methods.value.is_empty()) {
        problems.report(&methods.place, "`shadow.methods`: wants at least one method");
    }
    for what in compare.iter().flat_map(|compare| &compare.value) {
        if !["status", "json"].contains(&what.value.as_str()) {
            report("compare", what, "there are \"status\" and \"json\"; headers stand in `headers`");
        }
    }
    let compares =
        |what: &str| compare.as_ref().is_none_or(|compare| compare.value.iter().any(|placed| placed.value == what));
    for header in headers.iter().flat_map(|headers| &headers.value) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if header.value.is_empty() || !header.value.bytes().all(is_name) {
            report("headers", header, "this is no name of a header");
        }
    }
    let paths = ignore.iter().flat_map(|ignore| &ignore.value).filter_map(|placed| {
        let path = placed.value.parse::<JsonPath>();
        path.map_err(|error: JsonPathError| report("ignore", placed, &error.to_string())).ok()
    });
    let paths: Vec<_> = paths.collect();
    if let (Some(ignore), false) = (&ignore, compares("json")) {
        problems.report(&ignore.place, "`shadow.ignore` means nothing unless `shadow.compare` names \"json\"");
    }
    let headers: Vec<_> =
        headers.into_iter().flat_map(|headers| headers.value).map(|name| name.value.to_ascii_lowercase()).collect();
    if !compares("status") && !compares("json") && headers.is_empty() {
        problems.report(&place, "`[shadow]` compares nothing; name something in `compare` or `headers`");
    }
    Some(Shadow {
        percentage: share?.value,
        noise: noise.or_else(|| Percentage::from_percent(NOISE).ok())?,
        methods: match methods {
            Some(methods) => methods.value.into_iter().map(|method| method.value).collect(),
            None => SAFE.map(str::to_owned).into(),
        },
        status: compares("status"),
        json: compares("json"),
        headers,
        ignore: paths,
        max_in_flight,
        max_body,
    })
}

fn percentage(value: &Value) -> Result<Percentage, String> {
    let share = percent(value)?;
    Percentage::from_percent(share).map_err(|error| format!("{error}, not {share}"))
}

fn in_flight(value: &Value) -> Result<usize, String> {
    let copies = integer::<usize>(value)?;
    let fits = (1..=MOST_IN_FLIGHT).contains(&copies);
    fits.then_some(copies).ok_or_else(|| format!("{copies} is out of range: 1 to {MOST_IN_FLIGHT}"))
}

fn body(value: &Value) -> Result<usize, String> {
    let bytes = size(value)?;
    let fits = usize::try_from(bytes).ok().filter(|_| bytes <= MOST_BODY);
    fits.ok_or_else(|| format!("{bytes} bytes are too many: at most {MOST_BODY} of a body are kept"))
}
