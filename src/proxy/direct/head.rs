//! The head of a backend's answer: read, and written anew for the client.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use http::StatusCode;
use httparse::{Header, ParserConfig, Response, Status};
use memchr::memchr2;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType};

use crate::proxy::answer::{write_field, write_marks};
use crate::proxy::context::Context;
use crate::proxy::{REQUEST_ID_HEADER, VARIANT_HEADER};

/// The most header fields, and bytes of a head, that a backend may answer with; the same as pingora's.
const MAX_FIELDS: usize = 256;
const MAX_HEAD: usize = 1024 * 1024;

/// Bytes that the head of an answer seldom has more of.
const USUAL_HEAD: usize = 1024;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length in bytes; without a body, 0.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection.
    End,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct AnswerHead<'b> {
    /// Its bytes, the empty line included.
    pub(crate) length: usize,
    pub(crate) status: StatusCode,
    pub(crate) framing: Framing,
    /// Whether the server keeps the connection.
    pub(crate) keeps: bool,
    /// The length that it tells.
    told: Option<u64>,
    reason: &'b str,
    fields: &'b [Header<'b>],
}

/// What a client is told of the end of the body, and of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Whether the body goes out in chunks.
    pub(crate) chunked: bool,
    /// Whether the connection is kept.
    pub(crate) keeps: bool,
}

fn broken(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

/// Has `take` see the head at the beginning of `input`; `None` if more of it has to come. To HEAD a body is only announced.
///
/// # Errors
///
/// If it is none, if its end can be understood in two ways, or if `take` fails.
pub(crate) fn with_head<T>(
    input: &[u8],
    is_head: bool,
    take: impl FnOnce(&AnswerHead<'_>) -> pingora_error::Result<T>,
) -> pingora_error::Result<Option<T>> {
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = Response::new(&mut []);
    let mut parser = ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let parsed = parser.parse_response_with_uninit_headers(&mut response, input, &mut space);
    let parsed =
        parsed.map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "reading the answer", error).into_up())?;
    let Status::Complete(length) = parsed else {
        return if input.len() > MAX_HEAD { Err(broken("the answer's head is too long")) } else { Ok(None) };
    };
    let status = StatusCode::from_u16(response.code.unwrap_or_default());
    let status = status.map_err(|_| broken("the answer's status is none"))?;
    let fields = &*response.headers;
    let is_http11 = response.version == Some(1);
    let mut said = Said::default();
    for field in fields {
        said.take(field)?;
    }
    // RFC 9110, section 8.6, and RFC 9112, section 6.1.
    let is_nothing = status.is_informational() || status == StatusCode::NO_CONTENT;
    let told = if is_nothing || said.chunked { None } else { said.length };
    let framing = match (said.chunked, said.length) {
        _ if is_head || is_nothing || status == StatusCode::NOT_MODIFIED => Framing::Length(0),
        // RFC 9112, section 6.3.
        (true, _) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::End,
    };
    // RFC 9112, sections 9.3 and 6.1.
    let keeps = said.keeps.unwrap_or(is_http11) && (is_http11 || !said.chunked) && framing != Framing::End;
    let reason = response.reason.unwrap_or_default();
    take(&AnswerHead { length, status, framing, keeps, told, reason, fields }).map(Some)
}

/// What the fields say of the answer's end.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    keeps: Option<bool>,
}

impl Said {
    fn take(&mut self, field: &Header<'_>) -> pingora_error::Result<()> {
        let name = field.name.as_bytes();
        match name.len() {
            14 if is(name, b"content-length") => {
                // The same length, said again, is one (RFC 9110, section 8.6).
                for said in str::from_utf8(field.value).unwrap_or("?").split(',') {
                    let said = said.trim_ascii();
                    let digits = !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_digit());
                    let length = said.parse().ok().filter(|_| digits).ok_or_else(|| broken("the length is none"))?;
                    if self.length.replace(length).is_some_and(|before| before != length) {
                        return Err(broken("there are two lengths"));
                    }
                }
            }
            17 if is(name, b"transfer-encoding") => {
                for coding in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    // One that is none (RFC 2616, section 3.6), which old servers still name. Nobody asked for any other.
                    if is(coding, b"chunked") && !std::mem::replace(&mut self.chunked, true) || is(coding, b"identity")
                    {
                        continue;
                    }
                    return Err(broken("the transfer coding is not chunked"));
                }
            }
            10 if is(name, b"connection") => {
                for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if is(option, b"close") {
                        self.keeps = Some(false);
                    } else if is(option, b"keep-alive") {
                        self.keeps.get_or_insert(true);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn is(text: &[u8], own: &[u8]) -> bool {
    text.eq_ignore_ascii_case(own)
}

impl AnswerHead<'_> {
    /// How many header fields there are.
    pub(crate) fn count(&self) -> usize {
        self.fields.len()
    }

    /// The fields that a client is to get: neither those of the server's connection, nor those that tell a body's end, nor those
    /// that the gateway itself writes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
        let is_for_client = |field: &&Header<'_>| {
            let name = field.name.as_bytes();
            !match name.len() {
                7 => is(name, b"upgrade"),
                10 => is(name, b"connection") || is(name, b"keep-alive"),
                12 => is(name, REQUEST_ID_HEADER.as_bytes()),
                14 => is(name, b"content-length"),
                16 => is(name, b"proxy-connection"),
                17 => is(name, b"transfer-encoding"),
                18 => is(name, VARIANT_HEADER.as_bytes()),
                _ => false,
            }
        };
        self.fields.iter().filter(is_for_client).map(|field| (field.name.as_bytes(), on_one_line(field.value)))
    }

    /// The length of the body that a client is told, if it is: of one that is not sent, too.
    pub(crate) fn length_told(&self) -> Option<u64> {
        self.told
    }

    /// As an answer that announces another.
    pub(crate) fn write_interim(&self) -> Vec<u8> {
        let mut out = self.status_line();
        for (name, value) in self.fields() {
            write_field(&mut out, name, &value);
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// As the client is to get it.
    pub(crate) fn write(&self, ending: Ending, context: &Context) -> Vec<u8> {
        let mut out = self.status_line();
        let mut has_date = false;
        for (name, value) in self.fields() {
            has_date |= is(name, b"date");
            write_field(&mut out, name, &value);
        }
        if !has_date {
            // RFC 9110, section 6.6.1.
            write_field(&mut out, b"date", get_cached_date().as_bytes());
        }
        write_marks(&mut out, context);
        if ending.chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if let Some(length) = self.told {
            write_field(&mut out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        if !ending.keeps {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    fn status_line(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_HEAD.max(self.length + USUAL_HEAD / 2));
        for part in ["HTTP/1.1 ", self.status.as_str(), " ", self.reason, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        out
    }
}

/// A value that goes on over the end of a line is put on one (RFC 9112, section 5.2).
fn on_one_line(value: &[u8]) -> Cow<'_, [u8]> {
    match memchr2(b'\r', b'\n', value) {
        None => Cow::Borrowed(value),
        Some(_) => value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, is_head: bool, expected: Result<(u16, Framing, bool), ()>) {
        let text = format!("{head}\r\n\r\n");
        let read = with_head(text.as_bytes(), is_head, |head| {
            assert_eq!(head.length, text.len());
            Ok((head.status.as_u16(), head.framing, head.keeps))
        });
        assert_eq!(read.map(Option::unwrap).map_err(drop), expected, "{head:?}");
        for cut in 1..text.len() {
            let part = with_head(&text.as_bytes()[..cut], is_head, |_| Ok(()));
            assert!(matches!(part, Ok(None) | Err(_)), "{cut} bytes of {head:?}");
        }
    }

    #[test]
    fn the_end_of_an_answer() {
        use Framing::{Chunked, End, Length};
        check("HTTP/1.1 200 OK\r\nContent-Length: 4", false, Ok((200, Length(4), true)));
        check("HTTP/1.1 200\r\ncontent-length: 4, 4\r\ncontent-length: 4", false, Ok((200, Length(4), true)));
        check("HTTP/1.1 200 OK\r\ncontent-length: 4", true, Ok((200, Length(0), true)));
        check("HTTP/1.1 304 OK\r\ncontent-length: 4", false, Ok((304, Length(0), true)));
        check("HTTP/1.1 204 OK", false, Ok((204, Length(0), true)));
        check("HTTP/1.1 103 Early Hints", false, Ok((103, Length(0), true)));
        check("HTTP/1.1 200 OK", false, Ok((200, End, false)));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: identity", false, Ok((200, End, false)));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", false, Ok((200, Chunked, true)));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: identity, Chunked", false, Ok((200, Chunked, true)));
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked", false, Ok((200, Chunked, true)));
        check("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0", false, Ok((200, Length(0), false)));
        check(
            "HTTP/1.1 200 OK\r\nconnection: x, Close, keep-alive\r\ncontent-length: 0",
            false,
            Ok((200, Length(0), false)),
        );
        check("HTTP/1.0 200 OK\r\ncontent-length: 0", false, Ok((200, Length(0), false)));
        check("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0", false, Ok((200, Length(0), true)));
        check(
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked",
            false,
            Ok((200, Chunked, false)),
        );
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_no_answer() {
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5",
            "HTTP/1.1 200 OK\r\ncontent-length: 4, 5",
            "HTTP/1.1 200 OK\r\ncontent-length: +4",
            "HTTP/1.1 200 OK\r\ncontent-length: four",
            "HTTP/1.1 200 OK\r\ncontent-length:",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding:",
            "HTTP/1.1 099 OK\r\ncontent-length: 4",
            "HTTP/2 200 OK\r\ncontent-length: 4",
            "what is this?",
        ] {
            check(bad, false, Err(()));
        }
    }
}
