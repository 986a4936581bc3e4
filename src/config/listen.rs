//! `[listen]`: where the gateway and the admin API listen.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::admin::Admin;
use crate::document::{Placed, Section, duration, parsed};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The gateway's address.
    pub http: SocketAddr,
    /// The admin API's address, on loopback unless tokens are asked for.
    pub admin: SocketAddr,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
}

pub(crate) fn listen(mut section: Section<'_>, access: &Admin) -> Option<Listen> {
    let http = section.optional("http", parsed);
    let admin = section.optional("admin", parsed::<SocketAddr>);
    let drain = section.optional("drain", duration);
    section.not_supported_yet("https");
    if let Some(Placed { value, place }) = &admin
        && !value.ip().is_loopback()
        && !access.is_guarded()
    {
        let message = format!(
            "`listen.admin`: {value} can be reached from outside, and without tokens whoever does may change rollouts; \
             name a `token_file` under `[admin]`, or use a loopback address like 127.0.0.1:8081"
        );
        section.problems().report(place, message);
    }
    section.finish();
    Some(Listen { http: http?.value, admin: admin?.value, drain: drain?.value })
}
