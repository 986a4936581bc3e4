//! The attributes that conditions name, and how their text is got without allocating.

use std::fmt;

use crate::flag::EvaluationContext;

/// The longest query value with `%` or `+` in it that is decoded, in bytes; a longer one counts as missing.
const MAX_DECODED_BYTES: usize = 1024;

/// The longest host, in bytes: that of a DNS name (RFC 1035, section 2.3.4) and a dot. A longer one counts as missing.
const MAX_HOST_BYTES: usize = 256;

/// A part of the request with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A header's first value, by its name in lower case.
    Header(Box<str>),
    /// A cookie's value.
    Cookie(Box<str>),
    /// A query parameter's first value, decoded.
    Query(Box<str>),
    /// The path as it was sent.
    Path,
    /// The method.
    Method,
    /// The host in lower case, without its port.
    Host,
    /// The targeting key.
    User,
}

impl Attribute {
    /// Hands the attribute's text to `read`, from a buffer on the stack where it has to be decoded first.
    pub(crate) fn with_value<R>(&self, context: &EvaluationContext<'_>, read: impl FnOnce(Option<&str>) -> R) -> R {
        let attributes = context.attributes;
        match self {
            Self::Header(name) => read(attributes.header(name)),
            Self::Cookie(name) => read(attributes.cookie(name)),
            Self::Query(name) => match attributes.query().and_then(|query| parameter(query, name)) {
                Some(raw) if raw.bytes().any(|byte| byte == b'%' || byte == b'+') => {
                    read(collect(&mut [0; MAX_DECODED_BYTES], decoded(raw)))
                }
                plain => read(plain),
            },
            Self::Path => read(attributes.path()),
            Self::Method => read(attributes.method()),
            Self::Host => match attributes.host().map(without_port) {
                Some(host) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                    let lower = host.bytes().map(|byte| byte.to_ascii_lowercase());
                    read(collect(&mut [0; MAX_HOST_BYTES], lower))
                }
                plain => read(plain),
            },
            Self::User => read(context.targeting_key),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::Cookie(name) => write!(f, "cookie `{name}`"),
            Self::Query(name) => write!(f, "query `{name}`"),
            Self::Path => f.write_str("path"),
            Self::Method => f.write_str("method"),
            Self::Host => f.write_str("host"),
            Self::User => f.write_str("user"),
        }
    }
}

/// The decoded value of the first parameter of `query` called `name`; `None` if it is missing or no text.
#[must_use]
pub fn parameter_in(query: &str, name: &str) -> Option<String> {
    String::from_utf8(decoded(parameter(query, name)?).collect()).ok()
}

/// The value, as it was sent, of the first parameter called `name`.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut named = pairs.filter(|(found, _)| *found == name || decoded(found).eq(name.bytes()));
    named.next().map(|(_, value)| value)
}

/// The bytes that a part of a query stands for, as forms write them: `+` is a space, and `%` begins two hexadecimal
/// digits or stands for itself.
fn decoded(raw: &str) -> impl Iterator<Item = u8> {
    let mut rest = raw.as_bytes();
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        rest = after;
        Some(match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        })
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The text that `bytes` make, if it fits `buffer` and is one.
fn collect(buffer: &mut [u8], bytes: impl Iterator<Item = u8>) -> Option<&str> {
    let mut length = 0;
    for byte in bytes {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    str::from_utf8(buffer.get(..length)?).ok()
}

/// A host without its port; an IPv6 address keeps its brackets.
#[must_use]
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, value: Option<&str>) {
        let raw = parameter(query, "a b");
        assert_eq!(raw.and_then(|raw| collect(&mut [0; 8], decoded(raw)).map(str::to_owned)).as_deref(), value);
    }

    #[test]
    fn query_parameters_are_decoded() {
        check("a+b=1", Some("1"));
        check("x=0&a%20b=1%202&a b=3", Some("1 2"));
        check("a b", Some(""));
        check("a+b=%C3%B6", Some("ö"));
        check("a+b=100%", Some("100%"));
        check("a+b=%zz%4", Some("%zz%4"));
        check("a+b=%ff", None);
        check("a+b=123456789", None);
        check("ab=1", None);
        check("", None);
    }

    #[test]
    fn a_host_has_no_port() {
        for (host, name) in
            [("a.test", "a.test"), ("a.test:80", "a.test"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(without_port(host), name);
        }
    }
}
