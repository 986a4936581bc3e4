//! Whom a request is sent on for: reading and writing `X-Forwarded-For`, `-Proto` and `-Host`, and `Forwarded` (RFC 7239).

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;

use crate::proxy::identity::Identity;

/// Where proxies say whom they speak for, each after those before it.
pub(crate) const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";

/// The client: whoever is the last that no trusted proxy speaks for. What stands before it, anyone may have written.
pub(crate) fn client_of(request: &RequestHeader, peer: Option<IpAddr>, identity: &Identity) -> Option<IpAddr> {
    if !identity.trusts(peer) {
        return peer;
    }
    let mut client = peer;
    let forwarded = request.headers.get_all(HeaderName::from_static(FORWARDED_FOR));
    for address in forwarded.iter().rev().flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')) {
        client = Some(address.trim().parse::<IpAddr>().ok()?.to_canonical());
        if !identity.trusts(client) {
            break;
        }
    }
    client
}

/// Whether the client spoke TLS, to us or to a trusted proxy.
pub(crate) fn is_secure(request: &RequestHeader, tls: bool, trusted: bool) -> bool {
    let told = request.headers.get(FORWARDED_PROTO).filter(|_| trusted);
    tls || told.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Tells the backend whom the request is from. What a trusted proxy says is kept and added to; what anyone else says is
/// replaced. A peer on a Unix socket has no address to add.
pub(crate) fn tell(
    request: &mut RequestHeader,
    peer: Option<IpAddr>,
    trusted: bool,
    tls: bool,
) -> pingora_error::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    let host = request.headers.get(HOST).cloned();
    let host = host.or_else(|| HeaderValue::from_str(request.uri.authority()?.as_str()).ok());
    let element = element(peer, host.as_ref(), scheme);
    for (name, own) in [(FORWARDED_FOR, peer.map(|peer| peer.to_string())), (FORWARDED.as_str(), Some(element))] {
        let before = request.headers.get_all(name).iter().filter(|_| trusted);
        let before: Vec<_> = before.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        let chain: Vec<_> = before.into_iter().chain(own).collect();
        request.remove_header(name);
        if !chain.is_empty() {
            request.insert_header(name, chain.join(", "))?;
        }
    }
    if !trusted || !request.headers.contains_key(FORWARDED_PROTO) {
        request.insert_header(FORWARDED_PROTO, scheme)?;
    }
    if !trusted || !request.headers.contains_key(FORWARDED_HOST) {
        request.remove_header(FORWARDED_HOST);
        if let Some(host) = host {
            request.insert_header(FORWARDED_HOST, host)?;
        }
    }
    Ok(())
}

/// One element of `Forwarded`. An address of IPv6 stands in brackets and quotes, and so does what is no token.
fn element(peer: Option<IpAddr>, host: Option<&HeaderValue>, scheme: &str) -> String {
    let mut element = match peer {
        Some(IpAddr::V4(address)) => format!("for={address}"),
        Some(IpAddr::V6(address)) => format!("for=\"[{address}]\""),
        None => "for=unknown".to_owned(),
    };
    // A host that was let in holds neither quotes nor backslashes.
    if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        let _ = write!(element, ";host=\"{host}\"");
    }
    let _ = write!(element, ";proto={scheme}");
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: Option<&str>, trusted: bool, sent: &[(&'static str, &str)], expected: [&str; 4]) {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("host", "a:80").unwrap();
        for (name, value) in sent {
            request.append_header(*name, *value).unwrap();
        }
        tell(&mut request, peer.map(|peer| peer.parse().unwrap()), trusted, false).unwrap();
        for (name, expected) in [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, "forwarded"].into_iter().zip(expected)
        {
            let values: Vec<_> = request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(values.join(" | "), expected, "{name}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_added_to_and_anyone_else_replaced() {
        let sent = [
            (FORWARDED_FOR, "192.0.2.9"),
            (FORWARDED_FOR, "10.0.0.7"),
            (FORWARDED_PROTO, "https"),
            (FORWARDED_HOST, "example.com"),
            ("forwarded", "for=192.0.2.9"),
        ];
        let own = ["192.0.2.1", "http", "a:80", "for=192.0.2.1;host=\"a:80\";proto=http"];
        check(Some("192.0.2.1"), false, &[], own);
        check(Some("192.0.2.1"), false, &sent, own);
        let added = [
            "192.0.2.9, 10.0.0.7, 10.0.0.1",
            "https",
            "example.com",
            "for=192.0.2.9, for=10.0.0.1;host=\"a:80\";proto=http",
        ];
        check(Some("10.0.0.1"), true, &sent, added);
        let six = ["2001:db8::1", "http", "a:80", "for=\"[2001:db8::1]\";host=\"a:80\";proto=http"];
        check(Some("2001:db8::1"), true, &[], six);
        check(None, true, &[], ["", "http", "a:80", "for=unknown;host=\"a:80\";proto=http"]);
    }
}
