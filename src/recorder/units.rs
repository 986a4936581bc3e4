//! Which requests are compared: each user once in a while, and a user who keeps failing not for ever.
//!
//! What was drawn at random are users, not requests. A client that retries in bursts, or that fails wherever it lands,
//! would otherwise be taken for many failures of the canary. Whether a request is compared follows from what was known
//! of its user before, never from how the request ended, so leaving it out favours neither verdict.
//!
//! Users are told apart by a few bits of a hash, in tables of a fixed size. Two that collide count as one: some requests
//! are left out of the comparison, on both arms alike.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::flag::Arm;

/// Users who are told apart within one block of the comparison.
const SEEN_BITS: usize = 1 << 16;

/// Users whose failures are told apart over a generation.
const FAILING: usize = 1 << 11;

/// A user's failures up to this number count in any case. Two, because at the default settings no two failures suffice
/// to roll back, whatever else happens.
const ALWAYS_COUNTED: u32 = 2;

/// Beyond that, one user may be behind at most one in this many of an arm's failures. A share and not a number, so that
/// a long rollout with its many ordinary failures does not end up with everybody left out.
const ONE_IN: u32 = 20;

/// A user as the comparison knows them: a hash of the targeting key, independent of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit(u64);

impl Unit {
    /// The unit of this hash.
    #[must_use]
    pub fn from_hash(hash: u64) -> Self {
        Self(hash)
    }

    fn low(self, size: usize) -> usize {
        usize::try_from(self.0 % size as u64).unwrap_or(0)
    }

    fn high(self, size: usize) -> usize {
        usize::try_from((self.0 >> 32) % size as u64).unwrap_or(0)
    }
}

/// What is known of the users of one flag in one generation.
#[derive(Debug)]
pub(crate) struct Units {
    /// A bit for each user who was compared in this block.
    seen: Box<[AtomicU64]>,
    stable: Failures,
    canary: Failures,
}

/// Compared failures of one arm, by user and in all.
#[derive(Debug)]
struct Failures {
    by_unit: Box<[AtomicU32]>,
    total: AtomicU32,
}

impl Default for Failures {
    fn default() -> Self {
        Self { by_unit: (0..FAILING).map(|_| AtomicU32::new(0)).collect(), total: AtomicU32::new(0) }
    }
}

impl Default for Units {
    fn default() -> Self {
        let seen = (0..SEEN_BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self { seen, stable: Failures::default(), canary: Failures::default() }
    }
}

impl Units {
    /// Whether a request of `unit` to `arm` is compared: the first of its user in this block, if the user is not behind
    /// too many of the failures so far. Asking counts.
    pub(crate) fn admit(&self, arm: Arm, unit: Unit) -> bool {
        // Relaxed throughout: every cell stands for itself, and nothing else is published by it.
        let failures = self.failures(arm);
        let own = failures.by_unit.get(unit.high(FAILING)).map_or(0, |own| own.load(Ordering::Relaxed));
        if own >= ALWAYS_COUNTED.max(failures.total.load(Ordering::Relaxed) / ONE_IN) {
            return false;
        }
        let bit = unit.low(SEEN_BITS);
        let mask = 1 << (bit % 64);
        self.seen.get(bit / 64).is_some_and(|word| word.fetch_or(mask, Ordering::Relaxed) & mask == 0)
    }

    /// Notes that a compared request of `unit` failed.
    pub(crate) fn fail(&self, arm: Arm, unit: Unit) {
        let failures = self.failures(arm);
        if let Some(own) = failures.by_unit.get(unit.high(FAILING)) {
            own.fetch_add(1, Ordering::Relaxed);
        }
        failures.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins another block: every user may be compared again.
    pub(crate) fn next_block(&self) {
        for word in &self.seen {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// How many users have failed on `arm`, as far as they can be told apart.
    pub(crate) fn failing(&self, arm: Arm) -> usize {
        self.failures(arm).by_unit.iter().filter(|own| own.load(Ordering::Relaxed) > 0).count()
    }

    fn failures(&self, arm: Arm) -> &Failures {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(number: u64) -> Unit {
        Unit::from_hash(number << 32 | number)
    }

    #[test]
    fn a_user_counts_once_a_block() {
        let units = Units::default();
        assert!(units.admit(Arm::Canary, unit(1)));
        assert!(!units.admit(Arm::Canary, unit(1)));
        assert!(units.admit(Arm::Canary, unit(2)));
        units.next_block();
        assert!(units.admit(Arm::Canary, unit(1)));
    }

    /// How many of `blocks` blocks a request of `unit` is compared in, if it fails in each.
    fn failing_in(units: &Units, unit: Unit, blocks: u32) -> u32 {
        let mut compared = 0;
        for _ in 0..blocks {
            if units.admit(Arm::Canary, unit) {
                units.fail(Arm::Canary, unit);
                compared += 1;
            }
            units.next_block();
        }
        compared
    }

    #[test]
    fn a_user_who_keeps_failing_is_left_out() {
        let units = Units::default();
        assert_eq!(failing_in(&units, unit(1), 1000), ALWAYS_COUNTED);
        assert!(units.admit(Arm::Canary, unit(2)));
        assert_eq!((units.failing(Arm::Canary), units.failing(Arm::Stable)), (1, 0));
    }

    #[test]
    fn ordinary_failures_of_many_leave_nobody_out() {
        let units = Units::default();
        for round in 0..100 {
            for number in 0..100 {
                assert_eq!(failing_in(&units, unit(number), 1), 1, "user {number} in round {round}");
            }
        }
        // And one who fails always is then behind about one failure in twenty, not more.
        let poison = failing_in(&units, unit(1000), 100_000);
        assert!((400..700).contains(&poison), "{poison} of 10,000");
    }
}
