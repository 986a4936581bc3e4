//! Ranges of versions.

use std::fmt;
use std::str::FromStr;

use semver::{BuildMetadata, Prerelease, Version, VersionReq};

/// A range of versions in Cargo's syntax: `>=2.3.0`, `>=2.3, <3`, `~1.4`, `2.*`.
///
/// A pre-release is only in a range that names a pre-release of the same version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRange {
    required: VersionReq,
}

/// Why a text is no [`VersionRange`].
#[derive(Debug, thiserror::Error)]
#[error("{0}; write a range like \">=2.3.0\" or \">=2.3, <3\"")]
pub struct VersionRangeError(semver::Error);

impl VersionRange {
    /// Whether `text` is a version in the range.
    pub(crate) fn contains(&self, text: &str) -> bool {
        version(text).is_some_and(|version| self.required.matches(&version))
    }
}

impl FromStr for VersionRange {
    type Err = VersionRangeError;

    fn from_str(text: &str) -> Result<Self, VersionRangeError> {
        text.parse().map(|required| Self { required }).map_err(VersionRangeError)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.required.fmt(f)
    }
}

/// The version that `text` writes, more leniently than the standard has it: clients say `v2.3` and mean 2.3.0.
///
/// Build metadata says nothing about the order of versions, and is left aside. Only a pre-release tag of more than eight
/// bytes is allocated for.
fn version(text: &str) -> Option<Version> {
    let text = text.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let text = text.split_once('+').map_or(text, |(version, _)| version);
    let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
    let mut numbers = numbers.split('.');
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let major = number(numbers.next()?)?;
    let minor = numbers.next().map_or(Some(0), number)?;
    let patch = numbers.next().map_or(Some(0), number)?;
    if numbers.next().is_some() {
        return None;
    }
    let pre = pre.map_or(Some(Prerelease::EMPTY), |pre| Prerelease::new(pre).ok())?;
    Some(Version { major, minor, patch, pre, build: BuildMetadata::EMPTY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, text: &str, inside: bool) {
        assert_eq!(range.parse::<VersionRange>().unwrap().contains(text), inside, "{text:?} in {range:?}");
    }

    #[test]
    fn versions_are_read_as_clients_write_them() {
        for text in ["2.3.0", "v2.3.0", "2.3", "2.10.1", "2.3.0+build.7", "3", " 2.3.1 "] {
            check(">=2.3.0", text, true);
        }
        for text in ["2.2.9", "2.3.0-rc.1", "2.4.0-rc.1", "", "v", "two", "2.3.0.1", "2..3", "+2.3.0", "2.-3"] {
            check(">=2.3.0", text, false);
        }
        check(">=2.3.0-rc.1", "2.3.0-rc.2", true);
        check(">=2.3, <3", "3.0.0", false);
        assert!(">= two".parse::<VersionRange>().is_err());
    }
}
