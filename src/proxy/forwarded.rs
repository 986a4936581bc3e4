//! Whom a request is sent on for: reading and writing `X-Forwarded-For`, `-Proto` and `-Host`, and `Forwarded` (RFC 7239).

use std::io::Write as _;
use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::proxy::identity::Identity;

/// Where proxies say whom they speak for, each after those before it.
pub(crate) const FORWARDED_FOR: &str = "x-forwarded-for";
const FOR: HeaderName = HeaderName::from_static(FORWARDED_FOR);
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Between what two proxies say.
const SEPARATOR: &[u8] = b", ";

/// Bytes that one element seldom has more of.
const ELEMENT: usize = 64;

/// The client: whoever is the last that no trusted proxy speaks for. What stands before it, anyone may have written.
pub(crate) fn client_of(request: &Parts, peer: Option<IpAddr>, identity: &Identity) -> Option<IpAddr> {
    if !identity.trusts(peer) {
        return peer;
    }
    let mut client = peer;
    let forwarded = request.headers.get_all(FOR);
    for address in forwarded.iter().rev().flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')) {
        client = Some(address.trim().parse::<IpAddr>().ok()?.to_canonical());
        if !identity.trusts(client) {
            break;
        }
    }
    client
}

/// Whether the client spoke TLS, to us or to a trusted proxy.
pub(crate) fn is_secure(request: &Parts, tls: bool, trusted: bool) -> bool {
    let told = request.headers.get(PROTO).filter(|_| trusted);
    tls || told.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Tells the backend whom the request is from. What a trusted proxy says is kept and added to; what anyone else says is
/// replaced. A peer on a Unix socket has no address to add.
pub(crate) fn tell(headers: &mut HeaderMap, uri: &Uri, peer: Option<IpAddr>, trusted: bool, tls: bool) {
    let scheme = if tls { "https" } else { "http" };
    let host = headers.get(HOST).cloned();
    let host = host.or_else(|| HeaderValue::from_str(uri.authority()?.as_str()).ok());
    let mut addresses = before(headers, &FOR, trusted);
    match peer {
        Some(peer) => write_address(&mut addresses, peer),
        None => addresses.truncate(addresses.len() - addresses.len().min(SEPARATOR.len())),
    }
    let mut elements = before(headers, &FORWARDED, trusted);
    write_element(&mut elements, peer, host.as_ref(), scheme);
    put(headers, FOR, addresses);
    put(headers, FORWARDED, elements);
    if !trusted || !headers.contains_key(PROTO) {
        headers.insert(PROTO, HeaderValue::from_static(scheme));
    }
    if !trusted || !headers.contains_key(FORWARDED_HOST) {
        match host {
            Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
            None => drop(headers.remove(FORWARDED_HOST)),
        }
    }
}

/// What trusted proxies said, each with what parts it from the next.
fn before(headers: &HeaderMap, name: &HeaderName, trusted: bool) -> Vec<u8> {
    let mut chain = Vec::with_capacity(ELEMENT);
    if trusted {
        for value in headers.get_all(name).iter().filter(|value| value.to_str().is_ok()) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(SEPARATOR);
        }
    }
    chain
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Vec<u8>) {
    // Made of values and of visible ASCII, so it is one.
    match HeaderValue::try_from(value) {
        Ok(value) if !value.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // Twice for each request: the formatter of the standard library takes ten times as long.
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// One element of `Forwarded`. An address of IPv6 stands in brackets and quotes, and so does what is no token.
fn write_element(out: &mut Vec<u8>, peer: Option<IpAddr>, host: Option<&HeaderValue>, scheme: &str) {
    out.extend_from_slice(b"for=");
    match peer {
        Some(address @ IpAddr::V4(_)) => write_address(out, address),
        Some(address @ IpAddr::V6(_)) => {
            out.extend_from_slice(b"\"[");
            write_address(out, address);
            out.extend_from_slice(b"]\"");
        }
        None => out.extend_from_slice(b"unknown"),
    }
    // A host that was let in holds neither quotes nor backslashes.
    let quotable = |host: &&HeaderValue| host.to_str().is_ok_and(|host| !host.contains(['"', '\\']));
    if let Some(host) = host.filter(quotable) {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: Option<&str>, trusted: bool, sent: &[(&'static str, &str)], expected: [&str; 4]) {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("a:80"));
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        tell(&mut headers, &Uri::default(), peer.map(|peer| peer.parse().unwrap()), trusted, false);
        for (name, expected) in [FOR, PROTO, FORWARDED_HOST, FORWARDED].into_iter().zip(expected) {
            let values: Vec<_> = headers.get_all(&name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(values.join(" | "), expected, "{name}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_added_to_and_anyone_else_replaced() {
        let sent = [
            (FORWARDED_FOR, "192.0.2.9"),
            (FORWARDED_FOR, "10.0.0.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.com"),
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
