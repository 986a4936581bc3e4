//! What people change in a beta list at runtime, over what the files say.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::flag::beta::BetaList;

/// How many changes a flag holds at most. More than a person asks for one by one belongs into the file.
const MAX_CHANGES: usize = 10_000;

/// How long the keys of all changes are together at most, in bytes.
const MAX_CHANGED_BYTES: usize = 1024 * 1024;

/// Whether a targeting key was put on the list or taken off it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaChangeKind {
    /// It is on the list, though the files do not have it.
    Added,
    /// It is not on the list, though the files have it.
    Removed,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BetaChange {
    /// What was done.
    pub kind: BetaChangeKind,
    /// Who did it.
    pub by: String,
    /// When, in RFC 3339.
    pub at: String,
}

/// Changes over the files' list, which hold whatever the files come to say, until they are taken back. Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BetaChanges {
    changes: Option<Arc<HashMap<Box<str>, BetaChange>>>,
}

/// What came of a request to change the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BetaChanged {
    /// The keys that are on the list and were not.
    pub added: Vec<String>,
    /// The keys that were on the list and are not.
    pub removed: Vec<String>,
}

/// There would be more changes than a flag holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a flag holds at most {MAX_CHANGES} changes of its beta list, and {MAX_CHANGED_BYTES} bytes of users in them; put the \
     users into the flag's `users_file`"
)]
pub struct TooManyChanges;

impl BetaChanges {
    /// The change of `targeting_key`, if there is one.
    #[must_use]
    pub fn get(&self, targeting_key: &str) -> Option<&BetaChange> {
        self.changes.as_ref()?.get(targeting_key)
    }

    /// Whether `targeting_key` is on `list` as it is changed.
    #[must_use]
    pub fn contains(&self, list: &BetaList, targeting_key: &str) -> bool {
        match self.get(targeting_key) {
            Some(change) => change.kind == BetaChangeKind::Added,
            None => list.contains(targeting_key),
        }
    }

    /// How many keys are on `list` as it is changed.
    #[must_use]
    pub fn len_over(&self, list: &BetaList) -> usize {
        let differ = |(key, change): &(&str, &BetaChange)| list.contains(key) != (change.kind == BetaChangeKind::Added);
        let (added, removed): (Vec<_>, Vec<_>) =
            self.iter().filter(differ).partition(|(_, change)| change.kind == BetaChangeKind::Added);
        list.len() + added.len() - removed.len()
    }

    /// How many changes of a kind there are.
    #[must_use]
    pub fn count(&self, kind: BetaChangeKind) -> usize {
        self.iter().filter(|(_, change)| change.kind == kind).count()
    }

    /// Every change with its key, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BetaChange)> {
        self.changes.iter().flat_map(|changes| changes.iter()).map(|(key, change)| (&**key, change))
    }

    /// These changes, and `list` with the keys `add` and without the keys `remove`. What is so already is no change.
    ///
    /// # Errors
    ///
    /// If there would be too many.
    pub fn with(
        &self,
        list: &BetaList,
        add: &[String],
        remove: &[String],
        by: &str,
        at: &str,
    ) -> Result<(Self, BetaChanged), TooManyChanges> {
        let mut changes: HashMap<_, _> = self.changes.as_deref().cloned().unwrap_or_default();
        let mut changed = BetaChanged::default();
        let wanted = add.iter().map(|key| (key, true)).chain(remove.iter().map(|key| (key, false)));
        for (key, wanted) in wanted {
            let is_on = match changes.get(key.as_str()) {
                Some(change) => change.kind == BetaChangeKind::Added,
                None => list.contains(key),
            };
            if is_on == wanted {
                continue;
            }
            if list.contains(key) == wanted {
                // Nothing is left to say over the files.
                changes.remove(key.as_str());
            } else {
                let kind = if wanted { BetaChangeKind::Added } else { BetaChangeKind::Removed };
                changes.insert(key.as_str().into(), BetaChange { kind, by: by.to_owned(), at: at.to_owned() });
            }
            if wanted { changed.added.push(key.clone()) } else { changed.removed.push(key.clone()) }
        }
        if changes.len() > MAX_CHANGES || changes.keys().map(|key| key.len()).sum::<usize>() > MAX_CHANGED_BYTES {
            return Err(TooManyChanges);
        }
        Ok((changes.into_iter().collect(), changed))
    }
}

impl FromIterator<(Box<str>, BetaChange)> for BetaChanges {
    fn from_iter<I: IntoIterator<Item = (Box<str>, BetaChange)>>(changes: I) -> Self {
        let changes: HashMap<_, _> = changes.into_iter().collect();
        Self { changes: (!changes.is_empty()).then(|| Arc::new(changes)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_so_already_is_no_change() {
        let list: BetaList = ["alice", "bob"].into_iter().collect();
        let none = BetaChanges::default();
        let (same, changed) = none.with(&list, &keys("alice"), &keys("carol"), "me", "now").unwrap();
        assert_eq!((same, changed), (none.clone(), BetaChanged::default()));
        let (changes, changed) = none.with(&list, &keys("carol carol"), &keys("bob"), "me", "now").unwrap();
        assert_eq!((changed.added, changed.removed), (keys("carol"), keys("bob")));
        assert_eq!(changes.len_over(&list), 2);
        assert_eq!(changes.get("bob").map(|change| change.kind), Some(BetaChangeKind::Removed));
        let (back, _) = changes.with(&list, &keys("bob"), &keys("carol"), "me", "now").unwrap();
        assert_eq!(back, none, "taken back, nothing is left");
        // The files change below.
        let list: BetaList = ["carol"].into_iter().collect();
        assert!(changes.contains(&list, "carol") && !changes.contains(&list, "bob"));
        assert_eq!(changes.len_over(&list), 1);
    }

    #[test]
    fn there_is_a_bound() {
        let list = BetaList::default();
        let many: Vec<_> = (0..=MAX_CHANGES).map(|number| number.to_string()).collect();
        assert_eq!(BetaChanges::default().with(&list, &many, &[], "me", "now"), Err(TooManyChanges));
        assert!(BetaChanges::default().with(&list, &many[1..], &[], "me", "now").is_ok());
        let long: Vec<_> = (0..300).map(|number| format!("{number:04096}")).collect();
        assert_eq!(BetaChanges::default().with(&list, &long, &[], "me", "now"), Err(TooManyChanges));
    }

    proptest! {
        #[test]
        fn who_was_asked_for_last_is_on_the_list(
            listed in prop::collection::btree_set("[a-d]", 0..4),
            asked in prop::collection::vec((any::<bool>(), "[a-d]"), 0..12),
        ) {
            let list: BetaList = listed.iter().map(String::as_str).collect();
            let mut plain: BTreeSet<String> = listed.clone();
            let mut changes = BetaChanges::default();
            for (add, key) in asked {
                let (added, removed) = if add { (vec![key.clone()], vec![]) } else { (vec![], vec![key.clone()]) };
                let (next, changed) = changes.with(&list, &added, &removed, "me", "now").unwrap();
                let moved = if add { plain.insert(key) } else { plain.remove(&key) };
                prop_assert_eq!(!changed.added.is_empty() || !changed.removed.is_empty(), moved);
                changes = next;
            }
            for key in ["a", "b", "c", "d"] {
                prop_assert_eq!(changes.contains(&list, key), plain.contains(key));
            }
            prop_assert_eq!(changes.len_over(&list), plain.len());
        }
    }
}
