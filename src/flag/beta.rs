//! The beta list: targeting keys that are on canary whatever the percentage.

mod changes;
mod lines;

use std::sync::Arc;

use hashbrown::HashSet;

use crate::flag::SetVersion;

pub use crate::flag::beta::changes::{BetaChange, BetaChangeKind, BetaChanged, BetaChanges, TooManyChanges};
pub use crate::flag::beta::lines::{KeyLines, TooLarge};

/// A set of targeting keys: some listed in the flag file, the rest in a file of their own. Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BetaList {
    listed: Arc<HashSet<Box<str>>>,
    file: Option<Arc<KeyLines>>,
}

/// Where a targeting key is on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// In the flag file.
    FlagFile,
    /// In the file beside it, on this line, from 1.
    UsersFile(usize),
}

impl BetaList {
    /// A list of the keys `listed` and of those in `file`.
    #[must_use]
    pub fn new(listed: impl IntoIterator<Item = Box<str>>, file: Option<Arc<KeyLines>>) -> Self {
        Self { listed: Arc::new(listed.into_iter().collect()), file }
    }

    /// Whether `targeting_key` is on the list. Exact: no trimming, no folding of case.
    #[must_use]
    pub fn contains(&self, targeting_key: &str) -> bool {
        (!self.listed.is_empty() && self.listed.contains(targeting_key))
            || self.file.as_ref().is_some_and(|file| file.contains(targeting_key))
    }

    /// Where `targeting_key` is on the list. Unlike [`BetaList::contains`] it takes time in proportion to the list.
    #[must_use]
    pub fn find(&self, targeting_key: &str) -> Option<Listing> {
        if self.listed.contains(targeting_key) {
            return Some(Listing::FlagFile);
        }
        self.file.as_ref()?.line_of(targeting_key).map(Listing::UsersFile)
    }

    /// Every key on the list, each once.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        let listed = self.listed();
        let file = self.file.iter().flat_map(|file| file.keys());
        listed.into_iter().chain(file.filter(|key| !self.listed.contains(*key)))
    }

    /// The keys in the flag file, in order.
    #[must_use]
    pub fn listed(&self) -> Vec<&str> {
        let mut listed: Vec<_> = self.listed.iter().map(|key| &**key).collect();
        listed.sort_unstable();
        listed
    }

    /// The keys in the file beside it.
    #[must_use]
    pub fn file(&self) -> Option<&KeyLines> {
        self.file.as_deref()
    }

    /// The version of the file that keys are from, if they are from one.
    #[must_use]
    pub fn file_version(&self) -> Option<SetVersion> {
        self.file.as_ref().map(|file| file.version())
    }

    /// How many keys are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        let Some(file) = &self.file else { return self.listed.len() };
        file.len() + self.listed.iter().filter(|key| !file.contains(key)).count()
    }

    /// Whether nobody is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Into<Box<str>>> FromIterator<K> for BetaList {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        Self::new(keys.into_iter().map(Into::into), None)
    }
}
