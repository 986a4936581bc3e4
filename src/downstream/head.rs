//! The head of an HTTP/1 request, read strictly.
//!
//! Whatever two readers could understand differently is refused here, before any backend hears of it: that is what
//! request smuggling lives on. The rules are those of RFC 9112; where it lets a recipient be lenient, this is not.

use memchr::memchr;

use crate::downstream::refusal::Refusal;

/// What the head may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The request line and all header fields, in bytes.
    pub bytes: usize,
    /// How many header fields.
    pub fields: usize,
    /// The request's target, in bytes.
    pub uri: usize,
}

/// How the body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length in bytes; without a body, 0.
    Length(u64),
    /// By its last chunk.
    Chunked,
}

/// A head that is whole and means one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its bytes, the empty line included.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
    /// Whether it asks for another protocol.
    pub(crate) upgrade: bool,
    /// Whether it asks for that, or for an answer before its body.
    pub(crate) asks_more: bool,
}

/// The head at the beginning of `input`; `None` if more of it has to come. Everything before `seen` was looked at by
/// earlier calls.
///
/// # Errors
///
/// If it is refused, whatever follows.
pub(crate) fn read(input: &[u8], seen: &mut usize, limits: &HeadLimits) -> Result<Option<Head>, Refusal> {
    let Some(length) = end(input, seen)? else {
        // A target that is too long is told as such, also while it is still coming.
        let line = input.iter().position(|byte| *byte == b'\n');
        return match (line, input.len()) {
            (None, length) if length > limits.uri.saturating_add(METHOD_AND_VERSION) => Err(Refusal::UriTooLong),
            (_, length) if length > limits.bytes => Err(Refusal::HeaderTooLong),
            _ => Ok(None),
        };
    };
    let head = input.get(..length.saturating_sub(END.len())).unwrap_or_default();
    let (line, mut rest) = first_line(head);
    let line = RequestLine::read(line, limits)?;
    if length > limits.bytes {
        return Err(Refusal::HeaderTooLong);
    }
    let mut fields = Fields::default();
    while let Some(lines) = rest {
        let field;
        (field, rest) = first_line(lines);
        fields.take(field, limits)?;
    }
    Ok(Some(Head {
        length,
        framing: fields.framing(&line)?,
        upgrade: fields.upgrade,
        asks_more: fields.upgrade || fields.expect,
    }))
}

/// The empty line, after the last line's end.
const END: &[u8] = b"\r\n\r\n";

/// What a request line holds beside its target, generously.
const METHOD_AND_VERSION: usize = 64;

/// The longest name of a method; the registered ones have up to 17 letters.
const MAX_METHOD: usize = 40;

/// Digits of a length: more are no length that a body could have.
const MAX_LENGTH_DIGITS: usize = 18;

/// Where the head ends, if it does. Every line has to end with CR LF.
fn end(input: &[u8], seen: &mut usize) -> Result<Option<usize>, Refusal> {
    if input.starts_with(b"\r\n") || input.first() == Some(&b'\n') {
        return Err(Refusal::Malformed("a request begins with its request line"));
    }
    while let Some(offset) = input.get(*seen..).and_then(|rest| memchr(b'\n', rest)) {
        let line_end = *seen + offset + 1;
        let lines = input.get(..line_end).unwrap_or_default();
        if !lines.ends_with(b"\r\n") {
            return Err(Refusal::Malformed("a line ends with CR LF, not with LF alone"));
        }
        *seen = line_end;
        if lines.ends_with(END) {
            return Ok(Some(line_end));
        }
    }
    *seen = input.len();
    Ok(None)
}

/// The first line, without its end, and what comes after it.
pub(super) fn first_line(lines: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = memchr(b'\n', lines);
    let line = lines.get(..end.unwrap_or(lines.len())).unwrap_or_default();
    (line.strip_suffix(b"\r").unwrap_or(line), end.and_then(|end| lines.get(end + 1..)))
}

struct RequestLine<'h> {
    target: &'h [u8],
    minor: u8,
}

impl<'h> RequestLine<'h> {
    /// RFC 9112, section 3: three parts with one space between.
    fn read(line: &'h [u8], limits: &HeadLimits) -> Result<Self, Refusal> {
        let malformed = Refusal::Malformed("the request line is not `METHOD TARGET HTTP/1.1`, with one space between");
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        if method.is_empty() || method.len() > MAX_METHOD || !method.iter().copied().all(is_token) {
            return Err(malformed);
        }
        let minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(Refusal::Version);
            }
            _ => return Err(malformed),
        };
        if target.len() > limits.uri {
            return Err(Refusal::UriTooLong);
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        let form = target.starts_with(b"/") || authority(target).is_some() || (target == b"*" && method == b"OPTIONS");
        if !form || !target.iter().copied().all(is_target) {
            return Err(Refusal::Malformed("the request's target is neither a path nor a URL of visible ASCII"));
        }
        Ok(Self { target, minor })
    }
}

/// The authority of a target in absolute form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at_checked(scheme)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    rest.strip_prefix(b"://")?.split(|byte| matches!(byte, b'/' | b'?')).next()
}

/// What the header fields say of the request's end and place.
#[derive(Default)]
struct Fields<'h> {
    count: usize,
    host: Option<&'h [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    expect: bool,
}

impl<'h> Fields<'h> {
    /// RFC 9112, section 5.
    fn take(&mut self, line: &'h [u8], limits: &HeadLimits) -> Result<(), Refusal> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Refusal::Malformed("a header field goes on over the end of its line (obs-fold)"));
        }
        self.count += 1;
        if self.count > limits.fields {
            return Err(Refusal::TooManyFields);
        }
        let colon = memchr(b':', line);
        let Some((name, value)) = colon.and_then(|colon| line.split_at_checked(colon)) else {
            return Err(Refusal::Malformed("a header field has no colon"));
        };
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Refusal::Malformed(
                "a header field's name holds what no name may, or a space before its colon",
            ));
        }
        let value = value.get(1..).unwrap_or_default();
        if !value.iter().copied().all(is_field_text) {
            return Err(Refusal::Malformed("a header field's value holds a control character"));
        }
        self.note(name, trimmed(value))
    }

    fn note(&mut self, name: &[u8], value: &'h [u8]) -> Result<(), Refusal> {
        if named(name, b"content-length") {
            let digits = value.len() <= MAX_LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
            let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            let length = length.ok_or(Refusal::Malformed("the content-length is no length"))?;
            // Equal ones, too: whoever sends two wants two readers to differ.
            if self.length.replace(length).is_some() {
                return Err(Refusal::Malformed("there are two content-lengths"));
            }
        } else if named(name, b"transfer-encoding") {
            if std::mem::replace(&mut self.chunked, true) {
                return Err(Refusal::Malformed("there are two transfer-encodings"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                let codings = !value.is_empty() && value.iter().all(|byte| is_token(*byte) || b", ".contains(byte));
                return Err(if codings {
                    Refusal::TransferCoding
                } else {
                    Refusal::Malformed("the transfer-encoding is no list of codings")
                });
            }
        } else if named(name, b"host") {
            if self.host.replace(value).is_some() {
                return Err(Refusal::Malformed("a request names its host, once"));
            }
            if !value.iter().copied().all(is_host) {
                return Err(Refusal::Malformed("the host holds what no host may"));
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if name.eq_ignore_ascii_case(b"expect") {
            self.expect = true;
        }
        Ok(())
    }

    /// RFC 9112, section 6.
    fn framing(&self, line: &RequestLine<'_>) -> Result<Framing, Refusal> {
        match (self.host, authority(line.target)) {
            (None, _) if line.minor == 1 => return Err(Refusal::Malformed("a request names its host, once")),
            (Some(host), Some(authority)) if host != authority => {
                return Err(Refusal::Malformed("the host is another than the target's"));
            }
            _ => {}
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::Malformed("there are both a content-length and a transfer-encoding")),
            (true, None) if line.minor == 0 => Err(Refusal::Malformed("HTTP/1.0 knows no transfer-encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Whether `name` is this name, also as a backend behind CGI or WSGI might see it, who cannot tell `_` from `-`.
pub(super) fn named(name: &[u8], wanted: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
    name.len() == wanted.len() && name.iter().zip(wanted).all(same)
}

pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    let outside = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let begin = value.iter().position(outside).unwrap_or(value.len());
    let end = value.iter().rposition(outside).map_or(begin, |last| last + 1);
    value.get(begin..end).unwrap_or_default()
}

/// What a byte may be part of: every byte of every head is looked up here.
static CLASSES: [u8; 256] = classes();

const TOKEN: u8 = 1;
const FIELD_TEXT: u8 = 2;
const HOST: u8 = 4;
const TARGET: u8 = 8;

#[expect(clippy::indexing_slicing, reason = "there is a place for every byte")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = u8::MIN;
    loop {
        let mut class = 0;
        // RFC 9110, section 5.6.2.
        if byte.is_ascii_alphanumeric() || holds(b"!#$%&'*+-.^_`|~", byte) {
            class |= TOKEN;
        }
        // RFC 9110, section 5.5.
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            class |= FIELD_TEXT;
        }
        // RFC 3986, section 3.2.2, with a port and without a user.
        if byte.is_ascii_alphanumeric() || holds(b"-._~%!$&'()*+;=:[]", byte) {
            class |= HOST;
        }
        // Visible ASCII; what comes after `#` is for the client alone.
        if byte.is_ascii_graphic() && byte != b'#' {
            class |= TARGET;
        }
        classes[byte as usize] = class;
        if byte == u8::MAX {
            return classes;
        }
        byte += 1;
    }
}

const fn holds(mut bytes: &[u8], byte: u8) -> bool {
    while let [first, rest @ ..] = bytes {
        if *first == byte {
            return true;
        }
        bytes = rest;
    }
    false
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Whether it may be in the name of a method or of a header field.
pub(crate) fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Whether it may be in the value of a header field.
pub(crate) fn is_field_text(byte: u8) -> bool {
    is(byte, FIELD_TEXT)
}

fn is_host(byte: u8) -> bool {
    is(byte, HOST)
}

fn is_target(byte: u8) -> bool {
    is(byte, TARGET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 4, uri: 100 };

    fn at_once(input: &[u8]) -> Result<Option<Head>, Refusal> {
        read(input, &mut 0, &LIMITS)
    }

    #[track_caller]
    fn check(input: &str, framing: Framing, upgrade: bool) {
        assert_eq!(
            at_once(input.as_bytes()),
            Ok(Some(Head { length: input.len(), framing, upgrade, asks_more: upgrade }))
        );
        // In parts, too.
        let mut seen = 0;
        for length in 1..input.len() {
            assert_eq!(read(&input.as_bytes()[..length], &mut seen, &LIMITS), Ok(None), "{length} bytes");
        }
        assert!(matches!(read(input.as_bytes(), &mut seen, &LIMITS), Ok(Some(_))));
    }

    #[test]
    fn what_means_one_thing_is_read() {
        check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Framing::Length(0), false);
        check("GET / HTTP/1.0\r\n\r\n", Framing::Length(0), false);
        check("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", Framing::Length(0), false);
        check("GET http://a:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n", Framing::Length(0), false);
        check("POST / HTTP/1.1\r\nhost: a\r\ncontent-length:  7\t\r\n\r\n", Framing::Length(7), false);
        check("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, false);
        check("GET / HTTP/1.1\r\nhost: [::1]:80\r\nupgrade: websocket\r\n\r\n", Framing::Length(0), true);
    }

    #[test]
    fn limits_hold_also_while_it_still_comes() {
        assert_eq!(at_once(&[b'a'; 165]), Err(Refusal::UriTooLong));
        let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(100));
        assert_eq!(at_once(long.as_bytes()), Err(Refusal::UriTooLong));
        let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(1000));
        assert_eq!(at_once(long.as_bytes()), Err(Refusal::HeaderTooLong));
        assert_eq!(at_once(format!("{long}\r\n\r\n").as_bytes()), Err(Refusal::HeaderTooLong));
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(4));
        assert_eq!(at_once(many.as_bytes()), Err(Refusal::TooManyFields));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_alike_in_parts(
            input in prop::collection::vec(prop::sample::select(&b"GET / HTTP/1.1\r\n:hosta,\x00\tl"[..]), 0..80),
            parts in prop::collection::vec(1_usize..8, 0..40),
        ) {
            let mut seen = 0;
            let mut length = 0;
            let mut in_parts = Ok(None);
            for part in parts.into_iter().chain([input.len()]) {
                length = (length + part).min(input.len());
                in_parts = read(&input[..length], &mut seen, &LIMITS);
                if !matches!(in_parts, Ok(None)) {
                    break;
                }
            }
            match (in_parts, at_once(&input)) {
                (Ok(in_parts), Ok(whole)) => prop_assert_eq!(in_parts, whole),
                (in_parts, whole) => prop_assert!(in_parts.is_err() || whole.is_err()),
            }
        }
    }
}
