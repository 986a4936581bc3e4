//! The chunked transfer coding, followed strictly (RFC 9112, section 7.1).

use crate::downstream::head::{is_field_text, is_token};
use crate::downstream::refusal::Refusal;

/// Digits of a chunk's size: more are no size that a chunk could have.
const MAX_SIZE_DIGITS: u8 = 15;

/// Bytes of a chunk's extensions, and of all trailers. Nobody here reads either.
const MAX_EXTENSION: u16 = 256;
const MAX_TRAILERS: u16 = 8192;

/// Where in a chunked body the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size { value: u64, digits: u8 },
    Extension { value: u64, length: u16 },
    SizeEnd { value: u64 },
    Data { left: u64 },
    DataEnd { line_feed: bool },
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
    Done,
}

/// A chunked body under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunks {
    place: Place,
    trailers: u16,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self { place: Place::Size { value: 0, digits: 0 }, trailers: 0 }
    }

    /// Whether the body has come to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Follows `input`, and says how many bytes of it belong to the body.
    ///
    /// # Errors
    ///
    /// If it is not the chunked coding, or could be understood in two ways.
    pub(crate) fn follow(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut position = 0;
        while let (false, Some(&byte)) = (self.is_done(), input.get(position)) {
            if let Place::Data { left } = &mut self.place {
                let there = input.len() - position;
                let taken = usize::try_from(*left).map_or(there, |left| left.min(there));
                *left -= taken as u64;
                position += taken;
                if *left == 0 {
                    self.place = Place::DataEnd { line_feed: false };
                }
            } else {
                self.place = self.after(byte)?;
                position += 1;
            }
        }
        Ok(position)
    }

    fn after(&mut self, byte: u8) -> Result<Place, Refusal> {
        if matches!(self.place, Place::TrailerStart | Place::TrailerName | Place::TrailerValue) {
            self.trailers += 1;
            if self.trailers > MAX_TRAILERS {
                return Err(Refusal::Malformed("the trailers are too long"));
            }
        }
        Ok(match (self.place, byte) {
            (Place::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Place::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Place::Size { value, digits: 1.. }, b';') => Place::Extension { value, length: 0 },
            (Place::Size { value, digits: 1.. }, b'\r') => Place::SizeEnd { value },
            (Place::Size { .. }, _) => return Err(Refusal::Malformed("a chunk's size is no hexadecimal number")),
            (Place::Extension { value, length: 1.. }, b'\r') => Place::SizeEnd { value },
            (Place::Extension { value, length }, _) if is_field_text(byte) && length < MAX_EXTENSION => {
                Place::Extension { value, length: length + 1 }
            }
            (Place::Extension { .. }, _) => return Err(Refusal::Malformed("a chunk's extension cannot be one")),
            (Place::SizeEnd { value: 0 }, b'\n') => Place::TrailerStart,
            (Place::SizeEnd { value }, b'\n') => Place::Data { left: value },
            (Place::DataEnd { line_feed: false }, b'\r') => Place::DataEnd { line_feed: true },
            (Place::DataEnd { line_feed: true }, b'\n') => Place::Size { value: 0, digits: 0 },
            (Place::DataEnd { .. }, _) => return Err(Refusal::Malformed("a chunk is longer than its size")),
            (Place::TrailerStart, b'\r') => Place::LastEnd,
            (Place::TrailerStart | Place::TrailerName, _) if is_token(byte) => Place::TrailerName,
            (Place::TrailerName, b':') => Place::TrailerValue,
            (Place::TrailerValue, b'\r') => Place::TrailerEnd,
            (Place::TrailerValue, _) if is_field_text(byte) => Place::TrailerValue,
            (Place::TrailerStart | Place::TrailerName | Place::TrailerValue, _) => {
                return Err(Refusal::Malformed("a trailer is no header field"));
            }
            (Place::TrailerEnd, b'\n') => Place::TrailerStart,
            (Place::LastEnd, b'\n') => Place::Done,
            (Place::SizeEnd { .. } | Place::TrailerEnd | Place::LastEnd, _) => {
                return Err(Refusal::Malformed("a line ends with CR LF, not with CR alone"));
            }
            (place @ (Place::Data { .. } | Place::Done), _) => place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What belongs to the body, and whether it is whole.
    #[track_caller]
    fn check(input: &str, expected: Option<(usize, bool)>) {
        let mut whole = Chunks::new();
        let at_once = whole.follow(input.as_bytes()).map(|length| (length, whole.is_done())).ok();
        assert_eq!(at_once, expected, "{input:?}");
        let mut bytewise = Chunks::new();
        let mut length = 0;
        let mut refused = false;
        for byte in input.as_bytes() {
            match bytewise.follow(&[*byte]) {
                Ok(taken) => length += taken,
                Err(_) => refused = true,
            }
            if refused {
                break;
            }
        }
        assert_eq!((!refused).then_some((length, bytewise.is_done())), expected, "{input:?} byte by byte");
    }

    #[test]
    fn chunks_are_followed_to_their_end() {
        check("5\r\nhello\r\n0\r\n\r\n", Some((15, true)));
        check("5\r\nhello\r\n0\r\n\r\nGET", Some((15, true)));
        check("0005;a=b\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n", Some((32, true)));
        check("A\r\n0123", Some((7, false)));
        check("", Some((0, false)));
    }

    #[test]
    fn what_could_end_elsewhere_is_refused() {
        for bad in [
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r",
            "1;\r\n",
            "1;a\n",
            "1;a\x00",
            "fffffffffffffffff\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r",
            "1\r\na0\r\n",
            "0\r\n\n",
            "0\r\n \r\n",
            "0\r\nx\r\n",
            "0\r\nx : y\r\n",
            "0\r\nx: y\n",
            "0\r\nx: y\r\n z\r\n",
            "0\r\n\rx",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_followed_without_a_panic(
            input in prop::collection::vec(prop::sample::select(&b"0123af;:\r\n x\x00"[..]), 0..60),
        ) {
            let mut chunks = Chunks::new();
            if let Ok(length) = chunks.follow(&input) {
                prop_assert!(length == input.len() || chunks.is_done());
            }
        }
    }
}
