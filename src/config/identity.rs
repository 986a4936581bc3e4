//! `[identity]`: where targeting keys come from.

use ipnet::IpNet;

use crate::document::{Placed, Section, parsed, strings};
use crate::proxy::{Anonymous, IdentityConfig, Source};

pub(crate) fn identity(mut section: Section<'_>) -> Option<IdentityConfig> {
    let sources = each::<Source>(&mut section, "sources");
    let anonymous = section.optional("anonymous", parsed::<Anonymous>);
    let trusted_proxies = each::<IpNet>(&mut section, "trusted_proxies");
    section.finish();
    Some(IdentityConfig { sources: sources?, anonymous: anonymous?.value, trusted_proxies: trusted_proxies? })
}

/// The strings of an array, each read as a `T`; `None` if one of them cannot be.
fn each<T: std::str::FromStr<Err: std::fmt::Display>>(section: &mut Section<'_>, key: &'static str) -> Option<Vec<T>> {
    let Placed { value, place } = section.optional(key, strings)?;
    let read = value.iter().map(|text| {
        let read = text.parse();
        read.map_err(|error| section.problems().report(&place, format!("`{key}`: \"{text}\": {error}"))).ok()
    });
    // All of them first, so that every problem is told.
    read.collect::<Vec<_>>().into_iter().collect()
}
