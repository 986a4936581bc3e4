//! The set of flags that one moment's decisions are made on.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::flag::{Flag, FlagKey, Rollout, SetVersion};

/// One flag as it is in force, with what belongs to its generation (`T`: the ledger that its outcomes are charged to).
#[derive(Debug)]
pub struct Entry<T> {
    /// What the file says.
    pub flag: Arc<Flag>,
    /// What is in force.
    pub rollout: Rollout,
    /// What belongs to this flag in this generation.
    pub attached: T,
}

/// An immutable set of flags in force.
#[derive(Debug)]
pub struct FlagSet<T> {
    version: SetVersion,
    entries: HashMap<FlagKey, Arc<Entry<T>>>,
}

impl<T> FlagSet<T> {
    /// This set as the one that the files of `version` make.
    #[must_use]
    pub fn of_version(self, version: SetVersion) -> Self {
        Self { version, ..self }
    }

    /// The version of the files that the set is from.
    #[must_use]
    pub fn version(&self) -> SetVersion {
        self.version
    }

    /// The entry of `key`.
    #[must_use]
    pub fn get(&self, key: &FlagKey) -> Option<&Arc<Entry<T>>> {
        self.entries.get(key)
    }

    /// Every entry, by key.
    #[must_use]
    pub fn entries(&self) -> Vec<&Arc<Entry<T>>> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by(|a, b| a.flag.key.cmp(&b.flag.key));
        entries
    }

    /// This set with `entry` in place of the one of the same key.
    #[must_use]
    pub fn with(&self, entry: Entry<T>) -> Self {
        let mut entries = self.entries.clone();
        entries.insert(entry.flag.key.clone(), Arc::new(entry));
        Self { entries, version: self.version }
    }
}

impl<T> Default for FlagSet<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), version: SetVersion::EMPTY }
    }
}

impl<T> FromIterator<Arc<Entry<T>>> for FlagSet<T> {
    fn from_iter<I: IntoIterator<Item = Arc<Entry<T>>>>(entries: I) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.flag.key.clone(), entry)).collect();
        Self { entries, version: SetVersion::EMPTY }
    }
}
