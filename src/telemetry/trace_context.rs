//! W3C Trace Context, level 1: <https://www.w3.org/TR/trace-context-1/>.

use std::ops::Range;

use uuid::Uuid;
use uuid::fmt::Simple;

/// The flag that says that the caller may have recorded its part (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// What `traceparent` holds: the trace that a request belongs to, and the span that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// What the caller says of it.
    pub flags: u8,
}

impl TraceContext {
    /// Reads a header's value; `None` if it is to be taken for none (section 3.2.2.1, and 4.3 for later versions).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (trace, rest) = rest.split_once('-')?;
        let (span, rest) = rest.split_once('-')?;
        let (flags, more) = rest.split_at_checked(2)?;
        let version = number(version, 2)?;
        let ends = if version == 0 { more.is_empty() } else { more.is_empty() || more.starts_with('-') };
        let found = Self {
            trace: number(trace, 32)?,
            span: u64::try_from(number(span, 16)?).ok()?,
            flags: u8::try_from(number(flags, 2)?).ok()?,
        };
        (version != 0xff && ends && found.trace != 0 && found.span != 0).then_some(found)
    }

    /// A trace that begins here, made of random bits.
    #[must_use]
    pub fn begin(trace: u128, span: u64) -> Self {
        Self { trace: trace.max(1), span: span.max(1), flags: 0 }
    }

    /// The same trace, as `span` passes it on, which is recorded or not.
    #[must_use]
    pub fn passed_on(self, span: u64, recorded: bool) -> Self {
        Self { span: span.max(1), flags: if recorded { SAMPLED } else { 0 }, ..self }
    }

    /// The header's value.
    #[must_use]
    pub fn written(self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut digits = [0; Simple::LENGTH];
        let mut write = |place: Range<usize>, number: u128| {
            let digits = Uuid::from_u128(number).as_simple().encode_lower(&mut digits).as_bytes();
            let last = digits.len() - place.len();
            if let (Some(place), Some(digits)) = (text.get_mut(place), digits.get(last..)) {
                place.copy_from_slice(digits);
            }
        };
        write(3..35, self.trace);
        write(36..52, self.span.into());
        write(53..55, self.flags.into());
        text
    }

    /// Whether the caller may have recorded its part.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// A number of `digits` hexadecimal digits in lower case.
fn number(text: &str, digits: usize) -> Option<u128> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() == digits && plain { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn what_is_written_is_read() {
        // The example of section 3.2.3.
        let text = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let context = TraceContext::parse(&text).unwrap();
        assert_eq!(context.written(), text.as_bytes());
        assert!(context.is_sampled());
        assert_eq!(context.passed_on(7, false).written(), format!("00-{TRACE}-0000000000000007-00").as_bytes());
        assert_eq!(TraceContext::parse(&format!("01-{TRACE}-00f067aa0ba902b7-01-more")), Some(context));
    }

    #[test]
    fn anything_else_is_none() {
        let zero = "0".repeat(32);
        for wrong in [
            "",
            "00",
            &format!("00-{TRACE}-00f067aa0ba902b7"),
            &format!("00-{TRACE}-00f067aa0ba902b7-1"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-"),
            &format!("01-{TRACE}-00f067aa0ba902b7-01more"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            &format!("00-{zero}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{TRACE}-+0f067aa0ba902b7-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-0é"),
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }
}
