//! Millions of targeting keys, as the lines of one text.
//!
//! A set of strings costs an allocation and three words for each key beside its bytes. Here the text of the file is kept
//! as it is, and a hash table of 32-bit offsets into it says where keys begin: 5 bytes for each of its slots, which are
//! 8 for 7 keys at best and for 3.5 at worst, since it doubles. It stays exact, since every look-up ends in comparing
//! the key itself; a sorted array of offsets would be 4 bytes a key, but each look-up would miss the cache some twenty
//! times. And because the text is kept, a file that did not change is known by comparing it, without a second table.

use std::fmt;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::flag::SetVersion;
use crate::flag::bucket::fingerprint;

/// What a line begins with that is for people.
const COMMENT: char = '#';

/// The keys in a text: one a line, without the white space around it. Empty lines and those that begin with `#` are none.
pub struct KeyLines {
    text: Box<str>,
    version: SetVersion,
    /// Where each key begins.
    offsets: HashTable<u32>,
}

/// The text is too large for 32-bit offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a list of users holds at most 4 GiB")]
pub struct TooLarge;

impl KeyLines {
    /// The keys in `text`.
    ///
    /// # Errors
    ///
    /// If the text has 4 GiB or more.
    pub fn new(text: String) -> Result<Self, TooLarge> {
        u32::try_from(text.len()).map_err(|_| TooLarge)?;
        let text = text.into_boxed_str();
        // Grown step by step, a table would be copied again and again, and end up to twice as large.
        let mut offsets = HashTable::with_capacity(text.bytes().filter(|byte| *byte == b'\n').count() + 1);
        let mut line_begins = 0;
        for line in text.split_inclusive('\n') {
            let begins = line_begins + (line.len() - line.trim_start().len());
            line_begins += line.len();
            let key = line.trim();
            if key.is_empty() || key.starts_with(COMMENT) {
                continue;
            }
            let begins = u32::try_from(begins).map_err(|_| TooLarge)?;
            let slot =
                offsets.entry(hash(key), |other| key_at(&text, *other) == key, |other| hash(key_at(&text, *other)));
            if let Entry::Vacant(slot) = slot {
                slot.insert(begins);
            }
        }
        Ok(Self { version: SetVersion::EMPTY.and(text.as_bytes()), text, offsets })
    }

    /// The text that the keys are from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The version of the text.
    #[must_use]
    pub fn version(&self) -> SetVersion {
        self.version
    }

    /// Whether `key` is one of the keys.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.offset_of(key).is_some()
    }

    /// The line that `key` is on first, from 1.
    #[must_use]
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let before = self.text.get(..self.offset_of(key)? as usize)?;
        Some(before.bytes().filter(|byte| *byte == b'\n').count() + 1)
    }

    /// How many keys there are, each counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// What the keys take, text and table, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.text.len() + self.offsets.allocation_size()
    }

    /// Every key, in the order of the text, each once.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys_from(0).map(|(_, key)| key)
    }

    /// The keys of the lines from the one that begins at `offset` bytes on, each with where its line begins.
    pub fn keys_from(&self, offset: usize) -> impl Iterator<Item = (usize, &str)> {
        let mut line_begins = offset;
        self.text.get(offset..).unwrap_or_default().split_inclusive('\n').filter_map(move |line| {
            let (begins, key) = (line_begins, line.trim());
            let key_begins = begins + (line.len() - line.trim_start().len());
            line_begins += line.len();
            let is_first = self.offset_of(key).is_some_and(|first| first as usize == key_begins);
            is_first.then_some((begins, key))
        })
    }

    fn offset_of(&self, key: &str) -> Option<u32> {
        self.offsets.find(hash(key), |offset| key_at(&self.text, *offset) == key).copied()
    }
}

/// The key that begins at `offset`.
fn key_at(text: &str, offset: u32) -> &str {
    let rest = text.get(offset as usize..).unwrap_or_default();
    rest.split('\n').next().unwrap_or_default().trim_end()
}

/// The hash of flags' own buckets, without their salt, and spread over the 64 bits that the table looks at. Its keys are
/// the operator's, so nobody can choose them to collide.
fn hash(key: &str) -> u64 {
    // 2^64 divided by the golden ratio: Knuth, The Art of Computer Programming, volume 3, section 6.4.
    u64::from(fingerprint(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl PartialEq for KeyLines {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What is equal to itself is found so by its address, where two of these are behind the same pointer.
impl Eq for KeyLines {}

impl fmt::Debug for KeyLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLines").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_trimmed_and_keys_are_not() {
        let keys = KeyLines::new("\n alice \r\nbob\nalice\na b\n\n\tdave".to_owned()).unwrap();
        assert_eq!(keys.len(), 4);
        for key in ["alice", "bob", "a b", "dave"] {
            assert!(keys.contains(key), "{key:?}");
        }
        for key in ["", " alice", "alice ", "ALICE", "alic", "a", "b", "bob\nalice", "alice \r", "dav"] {
            assert!(!keys.contains(key), "{key:?}");
        }
        assert_eq!((keys.line_of("alice"), keys.line_of("a b"), keys.line_of("x")), (Some(2), Some(5), None));
        assert!(KeyLines::new(" \n\n".to_owned()).unwrap().is_empty());
    }

    #[test]
    fn many_keys_take_few_bytes() {
        let text: String = (0..100_000).map(|number| format!("user-{number:07}\n")).collect();
        let keys = KeyLines::new(text).unwrap();
        assert!((0..100_000).all(|number| keys.contains(&format!("user-{number:07}"))));
        assert!((100_000..200_000).all(|number| !keys.contains(&format!("user-{number:07}"))));
        assert!(keys.size_bytes() < 100_000 * (13 + 12), "{} bytes", keys.size_bytes());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds(text in "[ab# \n\r\u{e4}]{0,60}", asked in "[ab \u{e4}]{0,3}") {
            let plain: HashSet<&str> =
                text.split('\n').map(str::trim).filter(|key| !key.is_empty() && !key.starts_with('#')).collect();
            let keys = KeyLines::new(text.clone()).unwrap();
            prop_assert_eq!(keys.len(), plain.len());
            prop_assert_eq!(keys.contains(&asked), plain.contains(asked.as_str()));
            prop_assert!(plain.iter().all(|key| keys.contains(key)));
            prop_assert_eq!(keys.keys().collect::<HashSet<_>>(), plain);
            prop_assert_eq!(keys.keys().count(), keys.len());
        }
    }
}
