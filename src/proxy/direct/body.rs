//! The body of a backend's answer, on its way to the client.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;
use pingora_error::{Error, ErrorType};

use crate::proxy::direct::head::Framing;

/// Bytes of a chunk's size with its extensions, and of a line of trailers. Nobody here reads either.
const MAX_LINE: usize = 16 * 1024;

/// Bytes of all trailers.
const MAX_TRAILERS: usize = 64 * 1024;

/// A body that is being read.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(Place),
    /// It goes on until the connection ends.
    End,
}

/// Where in the chunked coding (RFC 9112, section 7.1) the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
    Done,
}

fn broken(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Place::Size),
            Framing::End => Self::End,
        }
    }

    /// Whether all of it was taken.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Place::Done))
    }

    /// Whether it may end where the connection does.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Self::End) || self.is_done()
    }

    /// The next part of the body in `input`, without its framing; `None` if more has to come, or nothing does.
    ///
    /// # Errors
    ///
    /// If it is not the chunked coding.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> pingora_error::Result<Option<Bytes>> {
        match self {
            Self::Length(left) => Ok(take_up_to(left, input)),
            Self::End => Ok(take_up_to(&mut u64::MAX.clone(), input)),
            Self::Chunked(place) => loop {
                match place {
                    Place::Data(left) => {
                        let part = take_up_to(left, input);
                        if *left == 0 {
                            *place = Place::DataEnd;
                        }
                        if part.is_some() || *place != Place::DataEnd {
                            return Ok(part);
                        }
                    }
                    Place::Done => return Ok(None),
                    Place::Size | Place::DataEnd | Place::Trailers(_) => {
                        let Some(line) = line(input)? else { return Ok(None) };
                        *place = place.after(&line)?;
                    }
                }
            },
        }
    }
}

impl Place {
    /// Where the reader is after a line that stands here.
    fn after(self, line: &[u8]) -> pingora_error::Result<Self> {
        match self {
            Self::Size => match size(line) {
                Some(0) => Ok(Self::Trailers(0)),
                Some(size) => Ok(Self::Data(size)),
                None => Err(broken("a chunk's size is none")),
            },
            Self::DataEnd if line.is_empty() => Ok(Self::Size),
            Self::DataEnd => Err(broken("a chunk is longer than its size")),
            Self::Trailers(_) if line.is_empty() => Ok(Self::Done),
            Self::Trailers(before) if before + line.len() <= MAX_TRAILERS => Ok(Self::Trailers(before + line.len())),
            Self::Trailers(_) => Err(broken("the trailers are too long")),
            Self::Data(_) | Self::Done => Ok(self),
        }
    }
}

/// The size at the beginning of a chunk, before its extensions. Some servers fill it up with spaces.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let text = str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
    u64::from_str_radix(text, 16).ok()
}

/// What is there of so many bytes.
fn take_up_to(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= length as u64;
    (length > 0).then(|| input.split_to(length).freeze())
}

/// The next line, without its end, if it is whole.
fn line(input: &mut BytesMut) -> pingora_error::Result<Option<Bytes>> {
    let end = memchr(b'\n', input);
    if end.unwrap_or(input.len()) > MAX_LINE {
        return Err(broken("a line of the chunked coding is too long"));
    }
    let Some(end) = end else { return Ok(None) };
    let line = input.split_to(end).freeze();
    input.advance(1);
    let line = line.strip_suffix(b"\r").map_or(line.clone(), |whole| line.slice_ref(whole));
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the body holds, and what is left after it; however it comes in pieces.
    #[track_caller]
    fn check(framing: Framing, input: &str, expected: Option<(&str, bool, &str)>) {
        for piece in [1, 2, 7, input.len().max(1)] {
            let (mut body, mut buffer, mut taken) = (Body::new(framing), BytesMut::new(), Vec::new());
            let mut read = || {
                for part in input.as_bytes().chunks(piece) {
                    buffer.extend_from_slice(part);
                    while let Some(part) = body.take(&mut buffer)? {
                        taken.extend_from_slice(&part);
                    }
                }
                Ok::<_, Box<Error>>((body.is_done(), buffer.clone()))
            };
            let found = read().ok();
            let taken = String::from_utf8(taken).unwrap();
            let found = found.map(|(done, left)| (taken.as_str().to_owned(), done, left));
            let expected = expected.map(|(body, done, left)| (body.to_owned(), done, BytesMut::from(left)));
            assert_eq!(found, expected, "{input:?} in pieces of {piece}");
        }
    }

    #[test]
    fn a_body_ends_where_it_says() {
        check(Framing::Length(4), "goodevil", Some(("good", true, "evil")));
        check(Framing::Length(9), "half", Some(("half", false, "")));
        check(Framing::Length(0), "evil", Some(("", true, "evil")));
        check(Framing::End, "all of it", Some(("all of it", false, "")));
        check(Framing::Chunked, "4\r\ngood\r\n0\r\n\r\nevil", Some(("good", true, "evil")));
        check(Framing::Chunked, "2;a=b\r\ngo\r\n02 \r\nod\r\n0\r\nx-sum: 1\r\n\r\n", Some(("good", true, "")));
        check(Framing::Chunked, "A\r\n01234", Some(("01234", false, "")));
        check(Framing::Chunked, "4\r\nhalf\r\n0\r\nx-sum: 1", Some(("half", false, "x-sum: 1")));
    }

    #[test]
    fn what_is_no_chunk_ends_the_exchange() {
        for bad in ["zz\r\n", "\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", "11111111111111111\r\n", "1\r\nab\r\n", ";a\r\n"] {
            check(Framing::Chunked, bad, None);
        }
    }
}
