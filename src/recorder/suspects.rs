//! Who is behind the slow answers of an arm, so that no single user is behind many of those that are judged.
//!
//! The same as for failures, but a slow answer is known to be one before it is there: what a user still waits for counts
//! against them as well.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::recorder::units::{Heads, Unit, bearable};

/// Users who are told apart.
const SUSPECTS: usize = 1 << 10;

/// So many slow or awaited answers of a user are judged in any case. The judge sets as many aside
/// (`judge::Aside`).
const ALWAYS_JUDGED: u64 = 2;

/// The slow answers of one arm by user, for each of `N` lines that they can be slow by.
#[derive(Debug)]
pub(crate) struct Suspects<const N: usize> {
    waiting: Box<[AtomicU32]>,
    slow: [Box<[AtomicU32]>; N],
    total: [AtomicU64; N],
    users: Heads,
}

impl<const N: usize> Default for Suspects<N> {
    fn default() -> Self {
        let table = || (0..SUSPECTS).map(|_| AtomicU32::new(0)).collect();
        Self {
            waiting: table(),
            slow: std::array::from_fn(|_| table()),
            total: std::array::from_fn(|_| AtomicU64::new(0)),
            users: Heads::default(),
        }
    }
}

impl<const N: usize> Suspects<N> {
    /// Whether another request of `unit` may be judged. It depends on what is known of the user, never on the request.
    pub(crate) fn may_ask(&self, unit: Unit) -> bool {
        // Relaxed throughout: every cell stands for itself, and nothing else is published by it.
        let users = self.users.count(unit);
        let place = unit.high(SUSPECTS);
        let waiting = read(&self.waiting, place);
        self.slow.iter().zip(&self.total).all(|(slow, total)| {
            let total = total.load(Ordering::Relaxed);
            waiting + read(slow, place) < bearable(ALWAYS_JUDGED, total, users)
        })
    }

    /// Notes that `unit` waits for an answer.
    pub(crate) fn ask(&self, unit: Unit) {
        if let Some(waiting) = self.waiting.get(unit.high(SUSPECTS)) {
            waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that `unit` waits no more.
    pub(crate) fn answered(&self, unit: Unit) {
        if let Some(waiting) = self.waiting.get(unit.high(SUSPECTS)) {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes that an answer to `unit` was slow by this line.
    pub(crate) fn slow(&self, unit: Unit, line: usize) {
        if let (Some(slow), Some(total)) = (self.slow.get(line), self.total.get(line)) {
            if let Some(own) = slow.get(unit.high(SUSPECTS)) {
                own.fetch_add(1, Ordering::Relaxed);
            }
            total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many users there are, 1024 at most, and how many of them had slow answers by this line or
    /// wait for one.
    pub(crate) fn affected(&self, line: usize) -> (usize, usize) {
        let users = usize::try_from(self.users.known()).unwrap_or(usize::MAX);
        let Some(slow) = self.slow.get(line) else { return (users, 0) };
        let hit = |(waiting, slow): &(&AtomicU32, &AtomicU32)| {
            waiting.load(Ordering::Relaxed) > 0 || slow.load(Ordering::Relaxed) > 0
        };
        (users, self.waiting.iter().zip(slow).filter(hit).count())
    }

    /// The first `most` users, and the first of those who had slow answers by this line or wait for one.
    pub(crate) fn some(&self, line: usize, most: usize) -> (Vec<u32>, Vec<u32>) {
        let users = self.users.some(most);
        let Some(slow) = self.slow.get(line) else { return (users, Vec::new()) };
        let hit = (0..)
            .zip(self.waiting.iter().zip(slow))
            .filter(|(_, (waiting, slow))| waiting.load(Ordering::Relaxed) > 0 || slow.load(Ordering::Relaxed) > 0);
        (users, hit.map(|(place, _)| place).take(most).collect())
    }
}

fn read(table: &[AtomicU32], place: usize) -> u64 {
    table.get(place).map_or(0, |cell| u64::from(cell.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(number: u64) -> Unit {
        Unit::from_hash(number << 32 | number)
    }

    /// Has `users` users ask in turn, each slow answer noted; says how often the first was judged.
    fn judged(suspects: &Suspects<1>, users: u64, rounds: u64, slow: impl Fn(u64) -> bool) -> u64 {
        let mut first = 0;
        for _ in 0..rounds {
            for user in 0..users {
                if suspects.may_ask(unit(user)) {
                    first += u64::from(user == 0);
                    suspects.ask(unit(user));
                    suspects.answered(unit(user));
                    if slow(user) {
                        suspects.slow(unit(user), 0);
                    }
                }
            }
        }
        first
    }

    #[test]
    fn users_who_are_all_slow_are_all_judged() {
        for users in [1, 2, 3, 10, 19, 40, 100] {
            assert_eq!(judged(&Suspects::default(), users, 200, |_| true), 200, "{users} users");
        }
    }

    #[test]
    fn one_who_alone_is_slow_is_soon_left_out() {
        let suspects = Suspects::default();
        assert_eq!(judged(&suspects, 60, 200, |user| user == 0), ALWAYS_JUDGED);
        assert_eq!(suspects.affected(0).1, 1);
    }

    #[test]
    fn who_waits_is_judged_twice_at_most() {
        let suspects = Suspects::<1>::default();
        let asked = (0..50).filter(|_| {
            let may = suspects.may_ask(unit(1));
            if may {
                suspects.ask(unit(1));
            }
            may
        });
        assert_eq!(asked.count() as u64, ALWAYS_JUDGED);
        suspects.answered(unit(1));
        assert!(suspects.may_ask(unit(1)));
        assert_eq!(suspects.affected(0), (1, 1));
    }
}
