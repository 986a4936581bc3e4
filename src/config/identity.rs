//! `[identity]`: where targeting keys come from.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use ipnet::IpNet;

use crate::config::read::each;
use crate::document::{Section, duration, parsed, string};
use crate::proxy::{Anonymous, IdentityConfig, JwtConfig, Source, TokenPlace};

/// How far clocks may be apart; as the library that reads tokens has it.
const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);

pub(crate) fn identity(mut section: Section<'_>) -> Option<IdentityConfig> {
    let sources = each::<Source>(&mut section, "sources");
    let anonymous = section.optional("anonymous", parsed::<Anonymous>);
    let trusted_proxies = each::<IpNet>(&mut section, "trusted_proxies");
    let cookie_key = section.optional("cookie_key", string);
    let sources_place = section.value_place("sources").cloned();
    let wants_jwt = sources.iter().flatten().any(|source| matches!(source, Source::Jwt(_)));
    let jwt_place = section.place_of("jwt");
    let jwt = section.section("jwt").and_then(jwt);
    match (wants_jwt, &jwt_place, &sources_place) {
        (true, None, Some(place)) => {
            let message = "a source `jwt:…` needs `[identity.jwt]` with `keys = \"FILE\"`, or anyone could be anyone";
            section.problems().report(place, message);
        }
        (false, Some(place), _) => {
            section.problems().report(place, "`identity.jwt` is for a source `jwt:CLAIM`, and `sources` names none");
        }
        _ => {}
    }
    section.finish();
    Some(IdentityConfig {
        sources: sources?,
        anonymous: anonymous?.value,
        trusted_proxies: trusted_proxies?,
        jwt,
        cookie_key: cookie_key?.value.into(),
    })
}

fn jwt(mut section: Section<'_>) -> Option<JwtConfig> {
    let keys = section.required("keys", "\"jwks.json\"", string);
    let header = section.optional("header", parsed::<HeaderName>);
    let cookie = section.optional("cookie", string);
    let issuer = section.optional("issuer", string);
    let audience = section.optional("audience", string);
    let leeway = section.or("leeway", duration, DEFAULT_LEEWAY);
    let place = match (header, cookie) {
        (Some(_), Some(cookie)) => {
            section.problems().report(&cookie.place, "a token is either in a `header` or in a `cookie`");
            None
        }
        (header, None) => Some(TokenPlace::Header(header.map_or(AUTHORIZATION, |header| header.value))),
        (None, Some(cookie)) => Some(TokenPlace::Cookie(cookie.value)),
    };
    section.finish();
    Some(JwtConfig {
        keys: keys?.value.into(),
        place: place?,
        issuer: issuer.map(|issuer| issuer.value),
        audience: audience.map(|audience| audience.value),
        leeway,
    })
}
