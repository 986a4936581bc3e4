//! Who a request is from: the targeting key, and whom to believe about it.

mod anonymous;
mod jwt;

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_http::RequestHeader;
use uuid::Uuid;

use crate::flag::parameter_in;
use crate::proxy::attributes::cookie;
use crate::proxy::forwarded::client_of;
use crate::proxy::identity::anonymous::{COOKIE, CookieKeys};
use crate::proxy::identity::jwt::{Tokens, targeting_key};
use crate::remade::{Changing, Remade};

pub use crate::proxy::identity::jwt::{JwtConfig, TokenPlace};

/// Where the targeting key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Where to look, in order; the first that is there counts.
    pub sources: Vec<Source>,
    /// What becomes of requests without a key.
    pub anonymous: Anonymous,
    /// Who may name a user by header. From others such headers are dropped.
    pub trusted_proxies: Vec<IpNet>,
    /// Where tokens are, and which are believed.
    pub jwt: Option<JwtConfig>,
    /// The file of the key that signs the cookies of anonymous clients. It is made if it is not there.
    pub cookie_key: PathBuf,
}

/// One place to look for the targeting key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A header's value, from trusted proxies only.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// A claim of a token that was verified.
    Jwt(String),
    /// A parameter of the query.
    Query(String),
    /// The client's address, or that which trusted proxies give for it.
    ClientIp,
}

/// Why a text is no [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The kind is none.
    #[error("a source is \"header:NAME\", \"cookie:NAME\", \"jwt:CLAIM\", \"query:NAME\" or \"client-ip\"")]
    Kind,
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
            Some(("jwt", claim)) if !claim.is_empty() => Ok(Self::Jwt(claim.to_owned())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            None if text == "client-ip" => Ok(Self::ClientIp),
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
pub struct Identity {
    config: IdentityConfig,
    tokens: Option<Tokens>,
    /// `None` where anonymous clients get no cookie, or where its key is still to be made.
    cookies: Option<Arc<Remade<CookieKeys>>>,
}

/// The targeting key of one request, if it has one.
#[derive(Debug)]
pub(crate) struct Identified<'r> {
    key: Option<Cow<'r, str>>,
    /// Whether the key was made up for this client just now.
    is_new: bool,
}

impl Identified<'_> {
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl Identity {
    /// What `config` says, with the keys that it names. Makes the key for cookies, if one is needed and there is none.
    ///
    /// # Errors
    ///
    /// If a file of keys cannot be used; names it.
    pub fn open(config: IdentityConfig) -> Result<Self, String> {
        if config.anonymous == Anonymous::Cookie {
            CookieKeys::make_file(&config.cookie_key)?;
        }
        Self::look(config)
    }

    /// The same, but makes nothing: without its key no cookie is believed, and none is given out.
    ///
    /// # Errors
    ///
    /// As [`Identity::open`], but for a key for cookies that is still to be made.
    pub fn look(config: IdentityConfig) -> Result<Self, String> {
        let tokens = config.jwt.clone().map(Tokens::open).transpose()?;
        let keys = |contents: &[Vec<u8>]| CookieKeys::read(contents.first().map_or(&[], Vec::as_slice));
        let cookies = if config.anonymous == Anonymous::Cookie && config.cookie_key.exists() {
            Some(Arc::new(Remade::open(vec![config.cookie_key.clone()], keys)?))
        } else {
            None
        };
        Ok(Self { config, tokens, cookies })
    }

    /// The targeting key that a request for `target` with these headers has, if it comes from `client`: found as the gateway
    /// finds it. Without a client it comes from one that is trusted. Who would be given a new anonymous key has none yet.
    #[must_use]
    pub fn targeting_key(&self, headers: &[(String, String)], target: &str, client: Option<IpAddr>) -> Option<String> {
        let mut request = RequestHeader::build("GET", target.as_bytes(), Some(headers.len())).ok()?;
        for (name, value) in headers {
            // What can be no header was never sent.
            let _ = request.append_header(name.clone(), value.as_str());
        }
        let identified = self.identify(&request, client, self.trusts(client));
        identified.key.filter(|_| !identified.is_new).map(Cow::into_owned)
    }

    /// The keys that are read anew when their files change.
    pub fn changing(&self) -> Vec<Arc<dyn Changing>> {
        let cookies = self.cookies.iter().map(|keys| Arc::clone(keys) as Arc<dyn Changing>);
        cookies.chain(self.tokens.iter().map(|tokens| Arc::clone(&tokens.keys) as _)).collect()
    }

    /// Whether a client may name users by header.
    pub(crate) fn trusts(&self, client: Option<IpAddr>) -> bool {
        client.is_none_or(|client| self.config.trusted_proxies.iter().any(|network| network.contains(&client)))
    }

    /// The headers that name users.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.config.sources.iter().filter_map(|source| match source {
            Source::Header(name) => Some(name),
            Source::Cookie(_) | Source::Jwt(_) | Source::Query(_) | Source::ClientIp => None,
        })
    }

    /// Whom the request is from. `peer` is the address that it came from, and `trusted` whether that is a proxy's who may
    /// name others.
    pub(crate) fn identify<'r>(&self, request: &'r Parts, peer: Option<IpAddr>, trusted: bool) -> Identified<'r> {
        // Several sources may ask for claims of the one token; it is verified once.
        let mut claims = None;
        let mut looked_up = self.config.sources.iter().filter_map(|source| match source {
            Source::Header(name) => only_value(request, name).filter(|_| trusted).map(Cow::Borrowed),
            Source::Cookie(name) => cookie(request, name).map(Cow::Borrowed),
            Source::Query(name) => parameter_in(request.uri.query()?, name).map(Cow::Owned),
            Source::ClientIp => client_of(request, peer, self).map(|client| Cow::Owned(client.to_string())),
            Source::Jwt(claim) => {
                let tokens = self.tokens.as_ref()?;
                let claims = claims.get_or_insert_with(|| tokens.claims(request)).as_ref()?;
                targeting_key(claims, claim).map(Cow::Owned)
            }
        });
        let named = looked_up.find(|key| !key.is_empty());
        match (named, self.config.anonymous) {
            (Some(key), _) => Identified { key: Some(key), is_new: false },
            (None, Anonymous::Stable) => Identified { key: None, is_new: false },
            (None, Anonymous::Cookie) => {
                let given = cookie(request, COOKIE).and_then(|value| self.cookies.as_ref()?.load().verified(value));
                let key = given.map_or_else(|| Cow::Owned(Uuid::new_v4().to_string()), Cow::Borrowed);
                Identified { key: Some(key), is_new: given.is_none() }
            }
        }
    }

    /// The cookie that makes a new anonymous key last; `None` if the client had a key already.
    pub(crate) fn new_cookie(&self, identified: &Identified<'_>, secure: bool) -> Option<HeaderValue> {
        let key = identified.key().filter(|_| identified.is_new)?;
        self.cookies.as_ref()?.load().set_cookie(key, secure)
    }
}

/// The value of the header `name` as text. Two values could mean one user here and another at the backend: they mean
/// nobody.
fn only_value<'r>(request: &'r Parts, name: &HeaderName) -> Option<&'r str> {
    let mut values = request.headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An identity with a key of its own, that trusts this machine and 10.0.0.0/8.
    pub(crate) fn identity(sources: &[&str], anonymous: Anonymous) -> Identity {
        let directory = tempfile::tempdir().unwrap();
        let networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"];
        Identity::open(IdentityConfig {
            sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
            anonymous,
            trusted_proxies: networks.iter().map(|network| network.parse().unwrap()).collect(),
            jwt: None,
            cookie_key: directory.path().join("key"),
        })
        .unwrap()
    }

    const SOURCES: [&str; 4] = ["header:x-user-id", "cookie:uid", "query:user", "client-ip"];

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], trusted: bool, key: Option<&str>) {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let found = identity(&SOURCES[..2], Anonymous::Stable);
        assert_eq!(found.identify(&request, None, trusted).key(), key);
        let identity = identity(&SOURCES[..2], Anonymous::Cookie);
        let identified = identity.identify(&request, None, trusted);
        match key {
            Some(key) => assert_eq!(identified.key(), Some(key)),
            None => assert!(identity.new_cookie(&identified, false).is_some(), "an anonymous client is given a key"),
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
    fn a_query_and_an_address_can_name_somebody() {
        let identity = identity(&SOURCES, Anonymous::Stable);
        let ask = |target: &str, peer: &str| {
            let request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            identity.identify(&request, Some(peer.parse().unwrap()), false).key().unwrap().to_owned()
        };
        assert_eq!(ask("/x?a=b&user=j%C3%B6rg+m", "192.0.2.1"), "jörg m");
        assert_eq!(ask("/x?user=", "192.0.2.1"), "192.0.2.1");
        assert_eq!(ask("/x?user=%ff", "2001:db8::1"), "2001:db8::1");
    }

    #[test]
    fn an_anonymous_key_lasts() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        let identity = identity(&SOURCES[..2], Anonymous::Cookie);
        let first = identity.identify(&request, None, true);
        let key = first.key().unwrap().to_owned();
        let cookie = identity.new_cookie(&first, true).unwrap().to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        request.append_header("cookie", cookie.split(';').next().unwrap()).unwrap();
        let second = identity.identify(&request, None, true);
        assert_eq!(second.key(), Some(key.as_str()));
        assert!(identity.new_cookie(&second, true).is_none());
    }

    #[test]
    fn an_invented_anonymous_key_is_replaced() {
        let identity = identity(&SOURCES[..2], Anonymous::Cookie);
        for invented in ["tidegate_id=mine", "tidegate_id=0b3ad5a5-5c3e-4a9b-9a3e-6f2f1a2b3c4d"] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            request.append_header("cookie", invented).unwrap();
            let identified = identity.identify(&request, None, true);
            assert!(identity.new_cookie(&identified, false).is_some(), "{invented}");
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
        let identity = identity(&[], Anonymous::Stable);
        let address = SocketAddr::Inet("[::ffff:127.0.0.1]:80".parse().unwrap());
        assert!(identity.trusts(client_ip(Some(&address))));
        let address = SocketAddr::Inet("192.0.2.1:80".parse().unwrap());
        assert!(!identity.trusts(client_ip(Some(&address))));
    }
}
