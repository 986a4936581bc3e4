//! flagd's flag definitions: ours written as theirs, and theirs read as ours.
//!
//! What is written decides as flagd since its pull request 1909 (March 2026) and the providers of that time do: their
//! `fractional` maps a hash to `(hash * sum of weights) >> 32` (flagd's record "High-precision fractional bucketing"),
//! which is `flagd-v2`. Older ones have a hundred buckets and draw other users. What rules ask of a request is looked for
//! in the evaluation context under the names that [`variable`] gives.

mod condition;
mod export;
mod import;
mod targeting;

use crate::flag::Attribute;

pub use crate::flag_file::flagd::export::{Exported, Unsaid, export};
pub(crate) use crate::flag_file::flagd::import::parse;

/// How the name of a file of flagd's flags ends.
pub(crate) const EXTENSION: &str = ".flagd.json";

/// Where flagd has the user.
const TARGETING_KEY: &str = "targetingKey";

/// Where flagd has the key of the flag, and the time in seconds since the Unix epoch.
const FLAG_KEY: &str = "$flagd.flagKey";
const TIMESTAMP: &str = "$flagd.timestamp";

/// Where the context has headers, cookies and query parameters, each by its name.
const HEADERS: &str = "headers.";
const COOKIES: &str = "cookies.";
const QUERY: &str = "query.";

/// Where an evaluation context has `attribute`; `None` if it has no place for a name like this one, since dots lead on
/// into objects and digits into lists.
fn variable(attribute: &Attribute) -> Option<String> {
    let plain = |name: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !name.is_empty() && name.bytes().all(letters) && !name.bytes().all(|byte| byte.is_ascii_digit())
    };
    match attribute {
        Attribute::User => Some(TARGETING_KEY.to_owned()),
        Attribute::Path => Some("path".to_owned()),
        Attribute::Method => Some("method".to_owned()),
        Attribute::Host => Some("host".to_owned()),
        Attribute::Header(name) => plain(name).then(|| format!("{HEADERS}{name}")),
        Attribute::Cookie(name) => plain(name).then(|| format!("{COOKIES}{name}")),
        Attribute::Query(name) => plain(name).then(|| format!("{QUERY}{name}")),
    }
}

/// The attribute that an evaluation context has under `variable`.
fn attribute(variable: &str) -> Option<Attribute> {
    let named = |prefix: &str| variable.strip_prefix(prefix).filter(|name| !name.is_empty());
    let found = match variable {
        TARGETING_KEY => Attribute::User,
        "path" => Attribute::Path,
        "method" => Attribute::Method,
        "host" => Attribute::Host,
        _ => None
            .or_else(|| named(HEADERS).map(|name| Attribute::Header(name.to_ascii_lowercase().into())))
            .or_else(|| named(COOKIES).map(|name| Attribute::Cookie(name.into())))
            .or_else(|| named(QUERY).map(|name| Attribute::Query(name.into())))?,
    };
    // The other way round too, so that what is read can be written.
    self::variable(&found).map(|_| found)
}
