//! Which flag files are in force, in one number.

use std::fmt;

/// The version of a set of flag files: a hash of all that they say, so that gateways with the same files have the same.
///
/// It is FNV-1a with 64 bits (Fowler, Noll and Vo; draft-eastlake-fnv, section 2), which is the same on every machine
/// and in every release. It tells sets apart that differ by accident, not those that somebody made to collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetVersion(u64);

impl SetVersion {
    /// The version of nothing.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// The version of this and, after it, `bytes`.
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// The version of this and, after it, of what `part` is the version of.
    #[must_use]
    pub fn and_part(self, part: Self) -> Self {
        self.and(&part.0.to_be_bytes())
    }
}

impl fmt::Display for SetVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        // From the draft's appendix C.
        assert_eq!(SetVersion::EMPTY.and(b"a").to_string(), "af63dc4c8601ec8c");
        assert_eq!(SetVersion::EMPTY.and(b"foo").and(b"bar").to_string(), "85944171f73967e8");
    }
}
