//! The beta list: targeting keys that are on canary whatever the percentage.

use std::collections::HashSet;

/// A set of targeting keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BetaList {
    keys: HashSet<Box<str>>,
}

impl BetaList {
    /// Whether `targeting_key` is on the list. Exact: no trimming, no folding of case.
    #[must_use]
    pub fn contains(&self, targeting_key: &str) -> bool {
        self.keys.contains(targeting_key)
    }

    /// How many keys are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl<K: Into<Box<str>>> FromIterator<K> for BetaList {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        Self { keys: keys.into_iter().map(Into::into).collect() }
    }
}
