//! Which requests the judge hears: each user's once in a while, and those of a user who keeps failing not for ever.
//!
//! What was drawn at random are users, not requests. A client that retries in bursts, or that fails wherever it lands,
//! would otherwise be taken for many failures of the canary. Whether a request is admitted follows from what was known
//! of its user before, never from how the request ended, so leaving it out favours neither verdict.
//!
//! Users are told apart by a few bits of a hash, in tables of a fixed size. Two that collide count as one: some requests
//! are left out of the comparison, on both arms alike.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::flag::Arm;

/// Users who are told apart within one block of the comparison.
const SEEN_BITS: usize = 1 << 16;

/// Users whose failures are told apart over a generation. More than [`HEADS`], so that an equal share is no less for two
/// users who are taken for one.
const FAILING: usize = 1 << 11;

/// A user's failures up to this number count in any case: whoever fails again says little more about the canary. The judge
/// sets as many aside (`judge::Aside`), since one user alone must not be evidence.
const ALWAYS_COUNTED: u64 = 1;

/// And behind this many times an equal share of them, so that nobody is left out of a rollout that is long or has few users.
const TIMES_EQUAL: u64 = 3;

/// Users who can be told from each other when they are counted. More count as this many.
const HEADS: usize = 1 << 10;

/// With fewer users than this, nobody is left out.
const FEW: u64 = 3;

/// So many blocks (10 s of ticks) a user is not heard after a failure: retries fail for the reason of the first.
const SILENCE: u32 = 100;

/// With fewer users than this everybody is heard again at once, or there would be nobody left to hear.
const MANY: u64 = 20;

/// A user as the comparison knows them: a hash of the targeting key, independent of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit(u64);

impl Unit {
    /// The unit of this hash.
    #[must_use]
    pub fn from_hash(hash: u64) -> Self {
        Self(hash)
    }

    pub(crate) fn low(self, size: usize) -> usize {
        usize::try_from(self.0 % size as u64).unwrap_or(0)
    }

    pub(crate) fn high(self, size: usize) -> usize {
        usize::try_from((self.0 >> 32) % size as u64).unwrap_or(0)
    }
}

/// How many of `total` failures, or slow answers, one of `users` may be behind before the next request of that user is left
/// out: `always`, or half the square root, or three equal shares, whichever is most.
///
/// The root, since what a user who always fails adds is to be worth little however long it goes on: k failures among n are a
/// rate that is higher by k/n, for which about `n (k/n)^2 / 2` nats could be had, an eighth with `k = sqrt(n)/2`.
pub(crate) fn bearable(always: u64, total: u64, users: u64) -> u64 {
    always.max(total.isqrt() / 2).max(total.saturating_mul(TIMES_EQUAL) / users.max(1))
}

/// How many users there are, as far as they can be told apart.
#[derive(Debug)]
pub(crate) struct Heads {
    bits: Box<[AtomicU64]>,
    count: AtomicU64,
}

impl Default for Heads {
    fn default() -> Self {
        Self { bits: (0..HEADS / 64).map(|_| AtomicU64::new(0)).collect(), count: AtomicU64::new(0) }
    }
}

impl Heads {
    /// Counts `unit`, if it is new, and says how many there are.
    pub(crate) fn count(&self, unit: Unit) -> u64 {
        let place = unit.low(HEADS);
        let mask = 1 << (place % 64);
        // Read first: nearly always the bit is set, and a line that is only read is shared between cores.
        let is_new = self.bits.get(place / 64).is_some_and(|word| {
            word.load(Ordering::Relaxed) & mask == 0 && word.fetch_or(mask, Ordering::Relaxed) & mask == 0
        });
        if is_new { self.count.fetch_add(1, Ordering::Relaxed) + 1 } else { self.known() }
    }

    /// The first `most` of them.
    pub(crate) fn some(&self, most: usize) -> Vec<u32> {
        let is_set = |place: &u32| {
            let place = usize::try_from(*place).unwrap_or(0);
            self.bits.get(place / 64).is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (place % 64)) != 0)
        };
        (0..u32::try_from(HEADS).unwrap_or(u32::MAX)).filter(is_set).take(most).collect()
    }

    /// How many there are.
    pub(crate) fn known(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The users who have been heard in a block, a bit for each.
#[derive(Debug)]
pub(crate) struct SeenUnits {
    bits: Box<[AtomicU64]>,
}

impl Default for SeenUnits {
    fn default() -> Self {
        Self { bits: (0..SEEN_BITS / 64).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl SeenUnits {
    /// Whether `unit` has not been heard in this block. Asking counts.
    pub(crate) fn is_first(&self, unit: Unit) -> bool {
        let bit = unit.low(SEEN_BITS);
        let mask = 1 << (bit % 64);
        self.bits.get(bit / 64).is_some_and(|word| word.fetch_or(mask, Ordering::Relaxed) & mask == 0)
    }

    /// Begins another block.
    pub(crate) fn forget(&self) {
        for word in &self.bits {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// What is known of the users of one flag in one generation.
#[derive(Debug, Default)]
pub struct Units {
    /// Who was admitted in this block.
    seen: SeenUnits,
    /// How many blocks there have been.
    blocks: AtomicU32,
    stable: Failures,
    canary: Failures,
}

/// How many users there are, as far as they can be told apart, and how many of them have met what is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affected {
    /// Users who were served, as far as they can be told apart: 1024 at most.
    pub users: usize,
    /// Those of them who have met a failure, or a slow answer.
    pub failing: usize,
}

/// Admitted failures of one arm, by user and in all.
#[derive(Debug)]
struct Failures {
    by_unit: Box<[AtomicU32]>,
    /// The block of each user's last failure, counted from 1.
    last: Box<[AtomicU32]>,
    total: AtomicU64,
    users: Heads,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            by_unit: (0..FAILING).map(|_| AtomicU32::new(0)).collect(),
            last: (0..FAILING).map(|_| AtomicU32::new(0)).collect(),
            total: AtomicU64::new(0),
            users: Heads::default(),
        }
    }
}

impl Units {
    /// Whether a request of `unit` to `arm` is admitted: the first of its user in this block, if the user is not behind
    /// too many of the failures so far. Where there are hardly any users, nobody can be one of many, and all are heard.
    /// Asking counts.
    pub fn admit(&self, arm: Arm, unit: Unit) -> bool {
        // Relaxed throughout: every cell stands for itself, and nothing else is published by it.
        let failures = self.failures(arm);
        let users = failures.users.count(unit);
        let own = failures.by_unit.get(unit.high(FAILING)).map_or(0, |own| own.load(Ordering::Relaxed));
        let bearable = bearable(ALWAYS_COUNTED, failures.total.load(Ordering::Relaxed), users);
        if u64::from(own) >= bearable && users >= FEW {
            return false;
        }
        let last = failures.last.get(unit.high(FAILING)).map_or(0, |last| last.load(Ordering::Relaxed));
        if last > 0 && users >= MANY && (self.blocks.load(Ordering::Relaxed) + 1).saturating_sub(last) < SILENCE {
            return false;
        }
        self.seen.is_first(unit)
    }

    /// Notes that an admitted request of `unit` failed.
    pub fn fail(&self, arm: Arm, unit: Unit) {
        let failures = self.failures(arm);
        if let Some(own) = failures.by_unit.get(unit.high(FAILING)) {
            own.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(last) = failures.last.get(unit.high(FAILING)) {
            last.store(self.blocks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        failures.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins another block: every user may be compared again.
    pub fn next_block(&self) {
        self.seen.forget();
        self.blocks.fetch_add(1, Ordering::Relaxed);
    }

    /// Who was served by `arm`, and who of them saw a failure.
    pub(crate) fn affected(&self, arm: Arm) -> Affected {
        let failures = self.failures(arm);
        let users = usize::try_from(failures.users.known()).unwrap_or(usize::MAX);
        let failing = failures.by_unit.iter().filter(|own| own.load(Ordering::Relaxed) > 0).count();
        Affected { users, failing }
    }

    /// The first `most` users who were served by `arm`, and the first of those who saw a failure.
    pub(crate) fn some(&self, arm: Arm, most: usize) -> (Vec<u32>, Vec<u32>) {
        let failures = self.failures(arm);
        let failed = (0..).zip(&failures.by_unit).filter(|(_, own)| own.load(Ordering::Relaxed) > 0);
        (failures.users.some(most), failed.map(|(place, _)| place).take(most).collect())
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

    /// Units that know of enough users to leave one out.
    fn units() -> Units {
        let units = Units::default();
        for number in 40..50 {
            units.admit(Arm::Canary, unit(number));
        }
        units.next_block();
        units
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
        let units = units();
        assert_eq!(u64::from(failing_in(&units, unit(1), 1000)), ALWAYS_COUNTED);
        assert!(units.admit(Arm::Canary, unit(2)));
        assert_eq!(units.affected(Arm::Canary).failing, 1);
        assert_eq!(units.affected(Arm::Stable), Affected { users: 0, failing: 0 });
    }

    #[test]
    fn users_are_counted() {
        let heads = Heads::default();
        assert_eq!((0..300).map(|number| heads.count(unit(number % 100))).max(), Some(100));
        assert_eq!(heads.known(), 100);
        (0..100_000).for_each(|number| _ = heads.count(unit(number)));
        assert_eq!(heads.known(), HEADS as u64);
    }

    #[test]
    fn one_of_thousands_never_adds_up() {
        for total in [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000_u64] {
            let most = bearable(ALWAYS_COUNTED, total, 1024) as f64;
            assert!((most - 1.0).powi(2) / (2.0 * total as f64) < 6.0, "{most} of {total}");
        }
    }

    #[test]
    fn an_only_user_is_heard() {
        let units = Units::default();
        assert_eq!(failing_in(&units, unit(1), 100), 100);
        assert_eq!(units.affected(Arm::Canary), Affected { users: 1, failing: 1 });
    }

    #[test]
    fn ordinary_failures_of_many_leave_nobody_out() {
        let units = Units::default();
        for round in 0..100 {
            for number in 0..100 {
                assert_eq!(failing_in(&units, unit(number), 1), 1, "user {number} in round {round}");
            }
        }
        // And one who fails always is then behind three equal shares, not more.
        let poison = failing_in(&units, unit(1000), 100_000);
        assert!((290..310).contains(&poison), "{poison} of 10,000");
    }
}
