//! Ranges of versions.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use semver::{BuildMetadata, Comparator, Op, Prerelease, Version, VersionReq};

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

impl VersionRange {
    /// The range as comparisons of versions without a pre-release, all of which hold; `None` if it names a pre-release.
    ///
    /// Of the versions that have none, a range holds exactly those that all of its comparisons hold for: the rules are those
    /// of Cargo's book, "Specifying Dependencies".
    #[must_use]
    pub fn comparisons(&self) -> Option<Vec<VersionTest>> {
        let mut found = Vec::new();
        for comparator in &self.required.comparators {
            if !comparator.pre.is_empty() {
                return None;
            }
            found.extend(bounds(comparator));
        }
        let any = || VersionTest::new(Comparison::GreaterOrEqual, Version::new(0, 0, 0));
        Some(if found.is_empty() { vec![any()] } else { found })
    }
}

fn bounds(comparator: &Comparator) -> Vec<VersionTest> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let Comparator { op, major, minor, patch, .. } = comparator;
    let (major, minor, patch) = (*major, *minor, *patch);
    let lowest = Version::new(major, minor.unwrap_or(0), patch.unwrap_or(0));
    let next_major = Version::new(major.saturating_add(1), 0, 0);
    let next_minor = |minor: u64| Version::new(major, minor.saturating_add(1), 0);
    // The first version after all those that begin with the numbers given.
    let after = match (minor, patch) {
        (None, _) => next_major.clone(),
        (Some(minor), _) => next_minor(minor),
    };
    let between =
        |from: &Version, to: Version| vec![VersionTest::new(GreaterOrEqual, from.clone()), VersionTest::new(Less, to)];
    match (op, minor, patch) {
        (Op::Exact, Some(_), Some(_)) => vec![VersionTest::new(Equal, lowest)],
        (Op::Greater, Some(_), Some(_)) => vec![VersionTest::new(Greater, lowest)],
        (Op::Greater, ..) => vec![VersionTest::new(GreaterOrEqual, after)],
        (Op::GreaterEq, ..) => vec![VersionTest::new(GreaterOrEqual, lowest)],
        (Op::Less, ..) => vec![VersionTest::new(Less, lowest)],
        (Op::LessEq, Some(_), Some(_)) => vec![VersionTest::new(LessOrEqual, lowest)],
        (Op::LessEq, ..) => vec![VersionTest::new(Less, after)],
        (Op::Caret, Some(0), Some(patch)) if major == 0 => {
            between(&lowest, Version::new(0, 0, patch.saturating_add(1)))
        }
        (Op::Caret, Some(minor), _) if major == 0 => between(&lowest, next_minor(minor)),
        (Op::Caret, ..) => between(&lowest, next_major),
        // `=1.2`, `~1.2` and `1.2.*` are what their numbers begin with; so is whatever `Op` may grow by.
        _ => between(&lowest, after),
    }
}

/// How two versions compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are the same, but for build metadata.
    Equal,
    /// They are not.
    NotEqual,
    /// The first is lower.
    Less,
    /// It is not higher.
    LessOrEqual,
    /// It is higher.
    Greater,
    /// It is not lower.
    GreaterOrEqual,
    /// Both have the same first number.
    SameMajor,
    /// Both have the same first two numbers.
    SameMinor,
}

impl Comparison {
    /// Every comparison.
    pub const ALL: [Self; 8] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::SameMajor,
        Self::SameMinor,
    ];

    /// As flagd's `sem_ver` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::SameMajor => "^",
            Self::SameMinor => "~",
        }
    }
}

/// A comparison with a fixed version, in the order of Semantic Versioning 2.0, section 11: a pre-release comes before its
/// version. That is flagd's `sem_ver`; a [`VersionRange`] leaves pre-releases out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTest {
    comparison: Comparison,
    version: Version,
}

impl VersionTest {
    fn new(comparison: Comparison, version: Version) -> Self {
        Self { comparison, version }
    }

    /// A comparison with the version that `text` writes; `None` if it is none.
    #[must_use]
    pub fn of(comparison: Comparison, text: &str) -> Option<Self> {
        version(text).map(|version| Self::new(comparison, version))
    }

    /// How it compares.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        self.comparison
    }

    /// What it compares with.
    #[must_use]
    pub fn version(&self) -> String {
        self.version.to_string()
    }

    /// Whether `text` is a version that compares so.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        let Some(found) = version(text) else { return false };
        let order = found.cmp_precedence(&self.version);
        match self.comparison {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::NotEqual => order != Ordering::Equal,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessOrEqual => order != Ordering::Greater,
            Comparison::Greater => order == Ordering::Greater,
            Comparison::GreaterOrEqual => order != Ordering::Less,
            Comparison::SameMajor => found.major == self.version.major,
            Comparison::SameMinor => (found.major, found.minor) == (self.version.major, self.version.minor),
        }
    }
}

impl fmt::Display for VersionTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.comparison.as_str(), self.version)
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn comparisons_hold_what_the_range_holds(
            operator in prop::sample::select(vec!["", "=", ">", ">=", "<", "<=", "~", "^"]),
            parts in prop::collection::vec(0_u64..3, 1..=3),
            wildcard in any::<bool>(),
            asked in (0_u64..4, 0_u64..4, 0_u64..4),
        ) {
            let mut text: Vec<_> = parts.iter().map(ToString::to_string).collect();
            if wildcard && text.len() < 3 {
                text.push("*".to_owned());
            }
            let operator = if text.contains(&"*".to_owned()) { "" } else { operator };
            let range: VersionRange = format!("{operator}{}", text.join(".")).parse().unwrap();
            let version = format!("{}.{}.{}", asked.0, asked.1, asked.2);
            let all = range.comparisons().unwrap().iter().all(|test| test.holds(&version));
            prop_assert_eq!(all, range.contains(&version), "{} in {}", version, range);
        }
    }
}
