//! Who a request is from: the targeting key, and whom to believe about it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_http::RequestHeader;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::proxy::attributes::cookie;

/// The cookie that keeps an anonymous client on its variant.
const ANONYMOUS_COOKIE: &str = "tidegate_id";

/// A year: longer than a rollout takes, and within what browsers allow.
const ANONYMOUS_COOKIE_MAX_AGE_S: u32 = 365 * 24 * 60 * 60;

/// Where the targeting key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Where to look, in order; the first that is there counts.
    pub sources: Vec<Source>,
    /// What becomes of requests without a key.
    pub anonymous: Anonymous,
    /// Who may name a user by header. From others such headers are dropped.
    pub trusted_proxies: Vec<IpNet>,
}

impl IdentityConfig {
    /// The targeting key that a request with these headers has, if it comes from `client`: found as the gateway finds it.
    /// Without a client it comes from one that is trusted. Who would be given a new anonymous key has none yet.
    #[must_use]
    pub fn targeting_key(&self, headers: &[(String, String)], client: Option<IpAddr>) -> Option<String> {
        let mut request = RequestHeader::build("GET", b"/", Some(headers.len())).ok()?;
        for (name, value) in headers {
            // What can be no header was never sent.
            let _ = request.append_header(name.clone(), value.as_str());
        }
        let identity = Identity::new(self.clone());
        let identified = identity.identify(&request, identity.trusts(client));
        match identified.key {
            Some(Cow::Borrowed(key)) => Some(key.to_owned()),
            Some(Cow::Owned(_)) | None => None,
        }
    }
}

/// One place to look for the targeting key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A header's value, from trusted proxies only.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
}

/// Why a text is no [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The kind is none.
    #[error("a source is written like \"header:x-user-id\" or \"cookie:uid\"")]
    Kind,
    /// The kind is known but not built yet.
    #[error("this kind of source is not supported yet in this version")]
    NotYet,
    /// The name cannot be that of a header or a cookie.
    #[error("there can be no header or cookie of that name")]
    Name,
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.split_once(':') {
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| SourceError::Name),
            // A cookie's name is a token, like a header's (RFC 6265, section 4.1.1), but it keeps its case.
            Some(("cookie", name)) => match name.parse::<HeaderName>() {
                Ok(_) => Ok(Self::Cookie(name.to_owned())),
                Err(_) => Err(SourceError::Name),
            },
            Some(("jwt" | "query", _)) => Err(SourceError::NotYet),
            None if text == "client-ip" => Err(SourceError::NotYet),
            _ => Err(SourceError::Kind),
        }
    }
}

/// What becomes of requests without a targeting key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// They get one, in a cookie.
    Cookie,
    /// They have none, and are decided without.
    Stable,
}

/// Why a text is no [`Anonymous`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write \"cookie\" or \"stable\"")]
pub struct AnonymousError;

impl FromStr for Anonymous {
    type Err = AnonymousError;

    fn from_str(text: &str) -> Result<Self, AnonymousError> {
        match text {
            "cookie" => Ok(Self::Cookie),
            "stable" => Ok(Self::Stable),
            _ => Err(AnonymousError),
        }
    }
}

/// The address of a client; `None` for one on a Unix socket, who is on this machine.
pub(crate) fn client_ip(address: Option<&SocketAddr>) -> Option<IpAddr> {
    // An IPv4 client of an IPv6 socket is the IPv4 client that the list of trusted proxies means.
    address.and_then(SocketAddr::as_inet).map(|address| address.ip().to_canonical())
}

/// Finds targeting keys in requests.
#[derive(Debug)]
pub(crate) struct Identity {
    config: IdentityConfig,
}

/// The targeting key of one request, if it has one.
#[derive(Debug)]
pub(crate) struct Identified<'r> {
    key: Option<Cow<'r, str>>,
}

impl Identified<'_> {
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The cookie that makes a new anonymous key last; `None` if the client had a key already.
    pub(crate) fn into_new_cookie(self) -> Option<HeaderValue> {
        let Some(Cow::Owned(key)) = self.key else { return None };
        let cookie =
            format!("{ANONYMOUS_COOKIE}={key}; Path=/; Max-Age={ANONYMOUS_COOKIE_MAX_AGE_S}; HttpOnly; SameSite=Lax");
        HeaderValue::from_str(&cookie).ok()
    }
}

impl Identity {
    pub(crate) fn new(config: IdentityConfig) -> Self {
        Self { config }
    }

    /// Whether a client may name users by header.
    pub(crate) fn trusts(&self, client: Option<IpAddr>) -> bool {
        client.is_none_or(|client| self.config.trusted_proxies.iter().any(|network| network.contains(&client)))
    }

    /// The headers that name users.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.config.sources.iter().filter_map(|source| match source {
            Source::Header(name) => Some(name),
            Source::Cookie(_) => None,
        })
    }

    pub(crate) fn identify<'r>(&self, request: &'r RequestHeader, trusted: bool) -> Identified<'r> {
        let mut looked_up = self.config.sources.iter().filter_map(|source| match source {
            Source::Header(name) => only_value(request, name).filter(|_| trusted),
            Source::Cookie(name) => cookie(request, name),
        });
        let named = looked_up.find(|key| !key.is_empty());
        let key = match (named, self.config.anonymous) {
            (Some(key), _) => Some(Cow::Borrowed(key)),
            (None, Anonymous::Cookie) => Some(anonymous(request)),
            (None, Anonymous::Stable) => None,
        };
        Identified { key }
    }
}

/// The value of the header `name` as text. Two values could mean one user here and another at the backend: they mean
/// nobody.
fn only_value<'r>(request: &'r RequestHeader, name: &HeaderName) -> Option<&'r str> {
    let mut values = request.headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

/// The anonymous key that the client has, or a new one.
fn anonymous(request: &RequestHeader) -> Cow<'_, str> {
    match cookie(request, ANONYMOUS_COOKIE) {
        // Of the shape that we give out. A client can still make one up; it then picks its own variant, nobody else's.
        Some(key) if key.len() == Hyphenated::LENGTH && Uuid::try_parse(key).is_ok() => Cow::Borrowed(key),
        _ => Cow::Owned(Uuid::new_v4().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(anonymous: Anonymous) -> Identity {
        Identity::new(IdentityConfig {
            sources: vec!["header:x-user-id".parse().unwrap(), "cookie:uid".parse().unwrap()],
            anonymous,
            trusted_proxies: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        })
    }

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], trusted: bool, key: Option<&str>) {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        assert_eq!(identity(Anonymous::Stable).identify(&request, trusted).key(), key);
        let identified = identity(Anonymous::Cookie);
        let identified = identified.identify(&request, trusted);
        match key {
            Some(key) => assert_eq!(identified.key(), Some(key)),
            None => assert!(identified.into_new_cookie().is_some(), "an anonymous client is given a key"),
        }
    }

    #[test]
    fn the_first_source_that_is_there_counts() {
        check(&[("x-user-id", "alice"), ("cookie", "uid=bob")], true, Some("alice"));
        check(&[("x-user-id", "alice"), ("cookie", "uid=bob")], false, Some("bob"));
        check(&[("cookie", "a=b; uid=\"bob\"")], true, Some("bob"));
        check(&[("cookie", "a=b"), ("cookie", "uid=carol")], true, Some("carol"));
        check(&[("cookie", "xuid=bob; uid")], true, None);
        check(&[("x-user-id", ""), ("cookie", "uid=bob")], true, Some("bob"));
        check(&[("x-user-id", ""), ("cookie", "uid=")], true, None);
        check(&[("x-user-id", "jörg")], true, Some("jörg"));
        check(&[("x-user-id", "alice"), ("x-user-id", "bob")], true, None);
        check(&[("x-user-id", ""), ("x-user-id", "bob")], true, None);
    }

    #[test]
    fn an_anonymous_key_lasts() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        let identity = identity(Anonymous::Cookie);
        let first = identity.identify(&request, true);
        let key = first.key().unwrap().to_owned();
        let cookie = first.into_new_cookie().unwrap().to_str().unwrap().to_owned();
        request.append_header("cookie", cookie.split(';').next().unwrap()).unwrap();
        let second = identity.identify(&request, true);
        assert_eq!(second.key(), Some(key.as_str()));
        assert!(second.into_new_cookie().is_none());
    }

    #[test]
    fn an_invented_anonymous_key_is_replaced() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("cookie", "tidegate_id=mine").unwrap();
        assert!(identity(Anonymous::Cookie).identify(&request, true).into_new_cookie().is_some());
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
        let address = SocketAddr::Inet("[::ffff:127.0.0.1]:80".parse().unwrap());
        assert!(identity(Anonymous::Stable).trusts(client_ip(Some(&address))));
        let address = SocketAddr::Inet("192.0.2.1:80".parse().unwrap());
        assert!(!identity(Anonymous::Stable).trusts(client_ip(Some(&address))));
    }
}
