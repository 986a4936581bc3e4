//! A request as rules see it.

use std::fmt;
use std::net::IpAddr;

use http::header::COOKIE;
use http::request::Parts;

use crate::flag::{Attributes, cookie_in};
use crate::proxy::forwarded::client_of;
use crate::proxy::identity::Identity;
use crate::proxy::{FLAG_HEADER, TOKEN_HEADER, VARIANT_HEADER};

/// A request with what is known about its sender. Nothing is copied from it.
pub(crate) struct ProxiedRequest<'r> {
    pub(crate) request: &'r Parts,
    pub(crate) host: Option<&'r str>,
    pub(crate) identity: &'r Identity,
    /// The address that the connection came from; `None` for a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// Whether that address is a trusted proxy's.
    pub(crate) peer_is_trusted: bool,
}

impl fmt::Debug for ProxiedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxiedRequest").finish_non_exhaustive()
    }
}

impl Attributes for ProxiedRequest<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        // What would be dropped on the way to the backend says nothing here either.
        let named_by_anyone = !self.peer_is_trusted && self.identity.headers().any(|header| header == name);
        if named_by_anyone || [FLAG_HEADER, VARIANT_HEADER, TOKEN_HEADER].contains(&name) {
            return None;
        }
        self.request.headers.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok())
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        cookie(self.request, name)
    }

    fn query(&self) -> Option<&str> {
        self.request.uri.query()
    }

    fn path(&self) -> Option<&str> {
        Some(self.request.uri.path())
    }

    fn method(&self) -> Option<&str> {
        Some(self.request.method.as_str())
    }

    fn host(&self) -> Option<&str> {
        self.host
    }

    fn client(&self) -> Option<IpAddr> {
        client_of(self.request, self.peer, self.identity)
    }
}

/// The value of the first cookie called `name`.
pub(crate) fn cookie<'r>(request: &'r Parts, name: &str) -> Option<&'r str> {
    let headers = request.headers.get_all(COOKIE).into_iter();
    let headers = headers.filter_map(|header| std::str::from_utf8(header.as_bytes()).ok());
    headers.filter_map(|header| cookie_in(header, name)).next()
}

#[cfg(test)]
mod tests {
    use pingora_http::RequestHeader;

    use super::*;
    use crate::proxy::forwarded::FORWARDED_FOR;
    use crate::proxy::identity::Anonymous;
    use crate::proxy::identity::tests::identity;

    #[track_caller]
    fn check(peer: Option<&str>, headers: &[(&'static str, &str)], client: Option<&str>, user: Option<&str>) {
        let identity = identity(&["header:x-user-id"], Anonymous::Stable);
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        let peer_is_trusted = identity.trusts(peer);
        let seen = ProxiedRequest { request: &request, host: None, identity: &identity, peer, peer_is_trusted };
        assert_eq!(seen.client(), client.map(|client| client.parse().unwrap()));
        assert_eq!(seen.header("x-user-id"), user);
        assert_eq!(seen.header("x-tidegate-flag"), None);
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let user = ("x-user-id", "alice");
        check(Some("192.0.2.1"), &[user, (FORWARDED_FOR, "192.0.2.9")], Some("192.0.2.1"), None);
        check(Some("127.0.0.1"), &[user], Some("127.0.0.1"), Some("alice"));
        check(Some("127.0.0.1"), &[user, (FORWARDED_FOR, "192.0.2.9")], Some("192.0.2.9"), Some("alice"));
        check(Some("127.0.0.1"), &[(FORWARDED_FOR, "198.51.100.1, 192.0.2.9,10.0.0.7")], Some("192.0.2.9"), None);
        let two = [(FORWARDED_FOR, "198.51.100.1, 192.0.2.9"), (FORWARDED_FOR, "10.0.0.7"), (FLAG_HEADER, "x")];
        check(None, &two, Some("192.0.2.9"), None);
        check(Some("127.0.0.1"), &[(FORWARDED_FOR, "10.0.0.8, 10.0.0.7")], Some("10.0.0.8"), None);
        check(Some("127.0.0.1"), &[(FORWARDED_FOR, "192.0.2.9, unknown")], None, None);
        check(None, &[], None, None);
    }
}
