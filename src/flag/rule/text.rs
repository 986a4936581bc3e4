//! What can be asked of a text.

use std::fmt;

use hashbrown::HashSet;

use crate::flag::rule::pattern::Pattern;
use crate::flag::rule::version::{VersionRange, VersionTest};

/// More values than this are not listed when a condition is put into words.
const MAX_LISTED: usize = 5;

/// A test of an attribute's text. A text that is missing passes none but `Exists(false)`.
#[derive(Debug, Clone, PartialEq)]
pub enum TextTest {
    /// It is this text.
    Equals(Box<str>),
    /// It is one of these texts.
    In(HashSet<Box<str>>),
    /// It begins with this text.
    Prefix(Box<str>),
    /// It ends with this text.
    Suffix(Box<str>),
    /// It holds this text.
    Contains(Box<str>),
    /// The pattern is found in it.
    Regex(Pattern),
    /// It is a version in this range.
    Semver(VersionRange),
    /// It is a version that compares so with another.
    Version(VersionTest),
    /// It is there, or it is not.
    Exists(bool),
}

impl TextTest {
    /// Whether `value` passes.
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return *self == Self::Exists(false) };
        match self {
            Self::Equals(text) => value == &**text,
            Self::In(texts) => texts.contains(value),
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
            Self::Contains(text) => value.contains(&**text),
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Semver(range) => range.contains(value),
            Self::Version(test) => test.holds(value),
            Self::Exists(wanted) => *wanted,
        }
    }
}

impl fmt::Display for TextTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(text) => write!(f, "equals `{text}`"),
            Self::In(texts) => {
                let mut texts: Vec<_> = texts.iter().map(|text| format!("`{text}`")).collect();
                texts.sort_unstable();
                let more = texts.len().saturating_sub(MAX_LISTED);
                texts.truncate(MAX_LISTED);
                write!(f, "in {}", texts.join(", "))?;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::Prefix(text) => write!(f, "prefix `{text}`"),
            Self::Suffix(text) => write!(f, "suffix `{text}`"),
            Self::Contains(text) => write!(f, "contains `{text}`"),
            Self::Regex(pattern) => write!(f, "regex `{pattern}`"),
            Self::Semver(range) => write!(f, "semver `{range}`"),
            Self::Version(test) => write!(f, "version {test}"),
            Self::Exists(true) => f.write_str("exists"),
            Self::Exists(false) => f.write_str("does not exist"),
        }
    }
}
