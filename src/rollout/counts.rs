//! Both arms' requests, of all gateways that share a store.

use std::collections::BTreeMap;

use crate::flag::{Arm, FlagKey, Generation};
use crate::outcome::{LATENCY_BUCKETS, LatencyHistogram, Tally};
use crate::recorder::RecordedFlag;
use crate::rollout::Rollouts;
use crate::rollout::book::Book;
use crate::store::{ArmCounts, Counted, StoreError};

impl Rollouts {
    /// Tells the other gateways what was counted here, where that is not what they were told last.
    ///
    /// # Errors
    ///
    /// If the store fails; then it is told the next time.
    pub(crate) async fn tell_counts(&self) -> Result<(), StoreError> {
        if !self.store.is_shared() || self.is_unread() {
            return Ok(());
        }
        let all: Vec<_> = self.flags.load().entries().into_iter().flat_map(|entry| own(entry)).collect();
        let news: Vec<_> = {
            let book = self.book();
            all.iter().filter(|counts| !book.told.contains(counts)).cloned().collect()
        };
        if !news.is_empty() {
            self.store.put_counts(&self.instance.id, &news).await?;
        }
        self.book().told = all;
        Ok(())
    }

    /// What the other gateways that share the store have counted of stable and of the canary, as it was last read: sums that only
    /// grow as long as the generation is the same.
    #[must_use]
    pub fn counts_of_others(&self) -> BTreeMap<(FlagKey, Generation), [Tally; 2]> {
        let mut sums: BTreeMap<_, [Tally; 2]> = BTreeMap::new();
        for ArmCounts { flag, generation, arm, counted } in &self.book().others {
            let [stable, canary] = sums.entry((flag.clone(), *generation)).or_default();
            let sum = if *arm == Arm::Stable { stable } else { canary };
            sum.add(&tally(counted));
        }
        sums
    }
}

fn own(entry: &RecordedFlag) -> [ArmCounts; 2] {
    Arm::BOTH.map(|arm| ArmCounts {
        flag: entry.flag.key.clone(),
        generation: entry.rollout.generation,
        arm,
        counted: counted(&entry.attached.tally(arm)),
    })
}

fn counted(Tally { successes, failures, latency, .. }: &Tally) -> Counted {
    let buckets = (0..LATENCY_BUCKETS).map(|bucket| (bucket, latency.bucket(bucket)));
    Counted {
        successes: *successes,
        failures: *failures,
        latency: buckets.filter(|(_, count)| *count > 0).collect(),
        latency_sum_us: latency.sum_us(),
    }
}

fn tally(counted: &Counted) -> Tally {
    let mut buckets = vec![0; LATENCY_BUCKETS];
    for (bucket, count) in &counted.latency {
        if let Some(place) = buckets.get_mut(*bucket) {
            *place = *count;
        }
    }
    let latency = LatencyHistogram::new(buckets, counted.latency_sum_us);
    Tally { successes: counted.successes, failures: counted.failures, latency, ..Tally::default() }
}

/// What was counted of an arm in the generation in force, here and by `others`.
pub(crate) fn of_all(entry: &RecordedFlag, arm: Arm, others: &[ArmCounts]) -> Tally {
    let mut sum = entry.attached.tally(arm);
    for counts in theirs(entry, arm, others) {
        sum.add(&tally(&counts.counted));
    }
    sum
}

/// The canary's requests on all gateways in the generation in force, and their failures: by what they told the judge, or what
/// they counted. The first is newer, the second goes back further.
pub(crate) fn of_canary(book: &Book, entry: &RecordedFlag) -> (u64, u64) {
    let (requests, failures) = entry.attached.counts(Arm::Canary);
    let live = book.live.get(&entry.flag.key);
    let told = live.map(|live| live.on_trial.others(entry.rollout.generation)).unwrap_or_default();
    let told = (requests.saturating_add(told.requests), failures.saturating_add(told.failures));
    let counted = of_all(entry, Arm::Canary, &book.others);
    let counted = (counted.successes.saturating_add(counted.failures), counted.failures);
    if counted.0 > told.0 { counted } else { told }
}

/// How many gateways' requests these are, this one's and those of gateways that are gone included.
pub(crate) fn gateways(entry: &RecordedFlag, others: &[ArmCounts]) -> usize {
    // Each tells of both arms.
    1 + theirs(entry, Arm::Stable, others).count()
}

fn theirs<'o>(entry: &RecordedFlag, arm: Arm, others: &'o [ArmCounts]) -> impl Iterator<Item = &'o ArmCounts> {
    others.iter().filter(move |counts| {
        counts.arm == arm && counts.flag == entry.flag.key && counts.generation == entry.rollout.generation
    })
}
