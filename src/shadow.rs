//! What became of the copies that canaries got of stable's requests.
//!
//! A request that stable answers may be copied to the canary, whose answer nobody gets; it is compared with stable's. Some
//! requests are copied to stable as well: what stable answers otherwise by itself is noise, and says nothing of the
//! canary. Nothing here has any part in the judge's verdict.

mod compare;
mod findings;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::flag::{Flag, FlagKey, Generation, Percentage, Shadow};
use crate::shadow::findings::Findings;

pub use crate::shadow::compare::{Answer, Body, Difference, compare};
pub use crate::shadow::findings::{Finding, Report, Sample, Verdict};

/// How a request that was to be copied ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyResult {
    /// The canary answered as stable did.
    Same,
    /// It answered otherwise, but only where stable does so by itself.
    Noise,
    /// It answered otherwise.
    Different,
    /// It did not answer.
    Failed,
    /// It was not copied: too many copies were under way.
    SkippedInFlight,
    /// It was not copied: a body was too long to be kept, or came in a form that cannot be read.
    SkippedBody,
    /// It was not copied: stable's own answer did not come to its end, or the canary was taken out meanwhile.
    SkippedUnanswered,
}

impl CopyResult {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::Same,
        Self::Noise,
        Self::Different,
        Self::Failed,
        Self::SkippedInFlight,
        Self::SkippedBody,
        Self::SkippedUnanswered,
    ];

    /// As written in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Noise => "noise",
            Self::Different => "different",
            Self::Failed => "failed",
            Self::SkippedInFlight => "skipped_in_flight",
            Self::SkippedBody => "skipped_body",
            Self::SkippedUnanswered => "skipped_unanswered",
        }
    }
}

/// What is counted of one flag's copies since the start.
#[derive(Debug, Default)]
struct Counts {
    /// Requests that could have been copied.
    asked: AtomicU64,
    in_flight: AtomicUsize,
    results: [AtomicU64; CopyResult::ALL.len()],
}

/// The copies of one flag's requests, and what was found in one release of it.
#[derive(Debug)]
struct Account {
    release: String,
    generation: Generation,
    counts: Arc<Counts>,
    /// What had been counted when the release began.
    before: [u64; CopyResult::ALL.len()],
    findings: Mutex<Findings>,
}

impl Account {
    fn new(flag: &Flag, generation: Generation, counts: Arc<Counts>) -> Self {
        let before = counts.results();
        Self { release: flag.release.clone(), generation, counts, before, findings: Mutex::default() }
    }
}

impl Counts {
    fn results(&self) -> [u64; CopyResult::ALL.len()] {
        // Relaxed, here and below: each is a count of its own.
        self.results.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn count(&self, result: CopyResult) {
        if let Some(count) = self.results.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The copies of every flag.
#[derive(Debug, Default)]
pub struct Shadows {
    flags: ArcSwap<HashMap<FlagKey, Arc<Account>>>,
}

impl Shadows {
    /// Whether this request of `flag`, which `shadow` is about, is copied: leave to do so, or nothing. Takes no lock.
    pub fn begin(&self, flag: &Flag, generation: Generation, shadow: &Shadow) -> Option<Leave> {
        let account = self.account(flag, generation);
        let turn = account.counts.asked.fetch_add(1, Ordering::Relaxed);
        if !drawn(turn, "copy", shadow.percentage) {
            return None;
        }
        let noise = drawn(turn, "noise", shadow.noise);
        let leave = Leave { account, noise };
        if leave.account.counts.in_flight.fetch_add(1, Ordering::Relaxed) >= shadow.max_in_flight {
            leave.end(CopyResult::SkippedInFlight);
            return None;
        }
        Some(leave)
    }

    /// What was found in the release of `flag` in force, if anything was copied in it.
    #[must_use]
    pub fn report(&self, flag: &Flag) -> Option<Report> {
        let accounts = self.flags.load();
        let account = accounts.get(&flag.key).filter(|account| account.release == flag.release)?;
        let mut results = account.counts.results();
        results.iter_mut().zip(account.before).for_each(|(now, before)| *now = now.saturating_sub(before));
        let shown = |place: &str| flag.shadow.as_ref().is_none_or(|shadow| compare::is_compared(shadow, place));
        let findings = account.findings.lock().unwrap_or_else(PoisonError::into_inner);
        Some(findings.report(CopyResult::ALL.into_iter().zip(results).collect(), shown))
    }

    /// How the copies of each flag's requests ended, since the start.
    #[must_use]
    pub fn totals(&self) -> Vec<(FlagKey, CopyResult, u64)> {
        let accounts = self.flags.load();
        let mut totals: Vec<_> = accounts
            .iter()
            .flat_map(|(key, account)| {
                let results = CopyResult::ALL.into_iter().zip(account.counts.results());
                results.map(|(result, count)| (key.clone(), result, count))
            })
            .collect();
        totals.sort_by(|a, b| (&a.0, a.1 as usize).cmp(&(&b.0, b.1 as usize)));
        totals
    }

    /// The account of the release that `flag` is on in `generation`. A request of an older generation does not bring its
    /// release back.
    fn account(&self, flag: &Flag, generation: Generation) -> Arc<Account> {
        let goes_on = |account: &Account| account.release == flag.release || account.generation > generation;
        if let Some(account) = self.flags.load().get(&flag.key).filter(|account| goes_on(account)) {
            return Arc::clone(account);
        }
        let mut made = None;
        self.flags.rcu(|accounts| {
            let mut accounts = HashMap::clone(accounts);
            let before = accounts.get(&flag.key);
            let account = match before.filter(|account| goes_on(account)) {
                Some(account) => Arc::clone(account),
                None => {
                    let counts = before.map_or_else(Arc::default, |account| Arc::clone(&account.counts));
                    Arc::new(Account::new(flag, generation, counts))
                }
            };
            made = Some(Arc::clone(&account));
            accounts.insert(flag.key.clone(), account);
            accounts
        });
        made.unwrap_or_else(|| Arc::new(Account::new(flag, generation, Arc::default())))
    }
}

/// Whether the request whose turn it is is among the `share`. The same share of every kind of traffic is, also of traffic that
/// comes in a rhythm.
fn drawn(turn: u64, purpose: &str, share: Percentage) -> bool {
    let mut hasher = DefaultHasher::new();
    (turn, purpose).hash(&mut hasher);
    let place = ((hasher.finish() >> 32) * 100_000) >> 32;
    place < u64::from(share.thousandths())
}

/// Leave to copy one request. Its place is free again once it is dropped.
#[derive(Debug)]
pub struct Leave {
    account: Arc<Account>,
    noise: bool,
}

impl Leave {
    /// Whether stable gets a copy, too.
    #[must_use]
    pub fn is_for_noise(&self) -> bool {
        self.noise
    }

    /// The request is not copied after all, or its copy was not answered.
    pub fn end(self, result: CopyResult) {
        self.account.counts.count(result);
    }

    /// The canary answered with these `differences`, and stable, if it was asked again, with those of `noise`.
    pub fn found(self, differences: &[Difference], noise: Option<&[Difference]>, sample: Sample) {
        let mut findings = self.account.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let result = findings.note(differences, noise, sample);
        drop(findings);
        self.end(result);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.account.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_drawn_evenly_and_by_itself() {
        let share = Percentage::from_percent(5.0).unwrap();
        let count = |purpose| (0..100_000).filter(|turn| drawn(*turn, purpose, share)).count();
        for purpose in ["copy", "noise"] {
            assert!((4_700..5_300).contains(&count(purpose)), "{}", count(purpose));
        }
        let both = (0..100_000).filter(|turn| drawn(*turn, "copy", share) && drawn(*turn, "noise", share)).count();
        assert!((180..330).contains(&both), "{both}");
        assert!((0..1000).all(|turn| drawn(turn, "copy", Percentage::FULL)));
        assert!(!(0..1000).any(|turn| drawn(turn, "copy", Percentage::ZERO)));
    }
}
