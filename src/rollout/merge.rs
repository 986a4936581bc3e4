//! The evidence of a fleet, put together by every gateway of it alike.
//!
//! What each hears goes into the store's log, and every gateway puts the same parcels together in the same order. So all of
//! them have the same trial, and its bound on false rollbacks is that of one: an outcome is in one parcel, a parcel is in
//! the trial once, and no bet knows of what comes after it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::SecondCounts;
use crate::clock;
use crate::judge::{Absolute, Check, Counts, Sample, Stream, Trial};
use crate::recorder::{ABSOLUTE_LINE, LINES, Ledger};
use crate::rollout::latency::QUANTILES;
use crate::rollout::seconds::add_heard;
use crate::rollout::trial::{Heard, MIN_FAILING_USERS};
use crate::store::{Outgoing, Parcel, Told};

/// Failures, and each line that answers can be slow by.
const KINDS: usize = LINES + 1;

/// What the gateways that share a store have gathered together of one trial, beside the trial itself.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// The last parcel that is in the trial.
    pub(crate) through: i64,
    /// The last parcel of which it is known who was served, and how many. What is in a trial that another gateway kept, or this
    /// one before it was started again, is read once more for that.
    pub(crate) known: i64,
    /// Whether it was looked where the fleet stands: not before the first exchange, nor after being cut off.
    pub(crate) joined: bool,
    /// What was heard here and is not on its way.
    pending: Vec<Parcel>,
    /// What is on its way: it may be in the store or not.
    outbox: Vec<Parcel>,
    /// The newest generation of which there are parcels in the trial, and the canary's share in it.
    newest: Option<(u64, f64)>,
    people: People,
    /// All of the canary's requests to other gateways in the newest generation, and their failures.
    others: Counts,
    /// The trial as this gateway goes on with it while it is cut off from the others.
    pub(crate) alone: Option<Trial>,
}

/// Who was served by the canary, and who was failed by it or found it slow: as many as have to be told from each other.
#[derive(Debug, Default)]
pub(crate) struct People {
    generation: u64,
    known: [(BTreeSet<u32>, BTreeSet<u32>); KINDS],
}

impl People {
    fn add(&mut self, generation: u64, people: &[(Vec<u32>, Vec<u32>)]) {
        if generation > self.generation {
            *self = Self { generation, ..Self::default() };
        }
        if generation < self.generation {
            return;
        }
        for ((users, hit), (more, more_hit)) in self.known.iter_mut().zip(people) {
            users.extend(more);
            hit.extend(more_hit);
        }
    }

    /// Whether so many users were hit that what `check` found is more than one or two users' own.
    fn enough(&self, check: Check) -> bool {
        let kind = match check {
            Check::HarmBudget => return true,
            Check::MaxErrorRate | Check::WorseThanStable(Stream::Errors) => 0,
            Check::MaxLatency => ABSOLUTE_LINE + 1,
            Check::WorseThanStable(slow) => {
                QUANTILES.iter().position(|(stream, _)| *stream == slow).map_or(0, |line| line + 1)
            }
        };
        let Some((users, hit)) = self.known.get(kind) else { return true };
        hit.len() >= users.len().min(MIN_FAILING_USERS)
    }
}

/// Those who are told of to the others, of the canary's users.
fn people(ledger: &Ledger) -> Vec<(Vec<u32>, Vec<u32>)> {
    std::iter::once(ledger.some_canary_users(MIN_FAILING_USERS))
        .chain((0..LINES).map(|line| ledger.some_slowed_users(line, MIN_FAILING_USERS)))
        .collect()
}

impl Merged {
    /// Goes on after the parcel `through`.
    pub(crate) fn after(through: i64) -> Self {
        Self { through, ..Self::default() }
    }

    /// Takes in what was heard here, for the others and for itself.
    pub(crate) fn gather(&mut self, generation: u64, share: f64, heard: &Heard) {
        if heard.is_nothing() {
            return;
        }
        let same =
            |parcel: &&mut Parcel| parcel.generation == generation && parcel.told.share.to_bits() == share.to_bits();
        let parcel = match self.pending.iter_mut().find(same) {
            Some(parcel) => parcel,
            None => {
                let told = Told { share, ..Told::default() };
                self.pending.push_mut(Parcel { id: 0, number: 0, gateway: String::new(), generation, at: 0, told })
            }
        };
        add_heard(&mut parcel.told.counts, heard);
    }

    /// What is to be sent now: what was not taken the last time, or else what was heard since, numbered on from `numbers`.
    pub(crate) fn pack(&mut self, numbers: &mut i64, generation: u64, ledger: &Ledger) -> Vec<Parcel> {
        if self.outbox.is_empty() {
            self.outbox = std::mem::take(&mut self.pending);
            for parcel in &mut self.outbox {
                *numbers += 1;
                parcel.number = *numbers;
            }
            if let Some(last) = self.outbox.last_mut().filter(|parcel| parcel.generation == generation) {
                last.told.people = people(ledger);
            }
        }
        self.outbox.clone()
    }

    /// What was sent is in the store.
    pub(crate) fn sent(&mut self, sent: &[Outgoing]) {
        self.outbox.retain(|parcel| sent.iter().all(|sent| sent.parcel.number != parcel.number));
    }

    /// Goes on by itself with `trial`, the one of all, and with what the others have not heard.
    pub(crate) fn go_alone(&mut self, trial: &Trial) {
        if self.alone.is_some() {
            return;
        }
        self.joined = false;
        let mut alone = trial.clone();
        for parcel in self.outbox.iter().chain(&self.pending) {
            feed(&mut alone, now(), &heard(&parcel.told));
        }
        self.alone = Some(alone);
    }

    /// Adds a parcel to `trial`, unless it is in there; `own` is this gateway.
    pub(crate) fn fold(&mut self, trial: &mut Trial, parcel: &Parcel, own: &str) {
        let is_new = parcel.id > self.through;
        self.through = self.through.max(parcel.id);
        self.known = parcel.id;
        let (generation, share) = (parcel.generation, parcel.told.share);
        if self.newest.is_none_or(|(newest, _)| generation > newest) {
            if is_new && self.newest.is_some_and(|(_, before)| before.to_bits() != share.to_bits()) {
                trial.ask_for_assurance();
            }
            self.newest = Some((generation, share));
            self.others = Counts::default();
        }
        let heard = heard(&parcel.told);
        if parcel.gateway != own && self.newest.is_some_and(|(newest, _)| newest == generation) {
            let failed =
                heard.absolute.iter().filter(|(of, _)| *of == Absolute::Errors).map(|(_, counts)| counts.failures);
            self.others.requests = self.others.requests.saturating_add(heard.traffic.requests);
            self.others.failures = self.others.failures.saturating_add(failed.sum());
        }
        self.people.add(generation, &parcel.told.people);
        if is_new {
            feed(trial, Duration::from_secs(parcel.at.max(0).cast_unsigned()), &heard);
        }
    }

    /// Whether enough users were hit for what `check` found, of all that is known of the fleet's.
    pub(crate) fn enough_users(&self, check: Check) -> bool {
        self.people.enough(check)
    }

    /// Adds this gateway's own users, whom the others may not have heard of yet.
    pub(crate) fn know_own(&mut self, generation: u64, ledger: &Ledger) {
        self.people.add(generation, &people(ledger));
    }

    /// The canary's requests to other gateways in `generation`, and their failures, as far as they are known.
    pub(crate) fn others(&self, generation: u64) -> Counts {
        self.newest.filter(|(newest, _)| *newest == generation).map(|_| self.others).unwrap_or_default()
    }
}

/// The time of trials that are put together: by the calendar, since no gateway's start is everybody's.
pub(crate) fn now() -> Duration {
    Duration::from_secs(clock::wall().as_second().max(0).cast_unsigned())
}

/// Has `trial` take in what was heard.
pub(crate) fn feed(trial: &mut Trial, at: Duration, heard: &Heard) {
    trial.observe(at, &heard.samples);
    for (limit, canary) in &heard.absolute {
        trial.observe_canary(*limit, *canary);
    }
    trial.observe_traffic(heard.traffic.requests, heard.traffic.failures);
}

/// What was told, as it was heard.
fn heard(told: &Told) -> Heard {
    let counts = |[requests, failures]: [u64; 2]| Counts { requests, failures };
    let SecondCounts { streams, limits, traffic, arms } = &told.counts;
    let samples = streams.iter().filter_map(|row| {
        let stream = Stream::ALL.into_iter().find(|stream| stream.as_str() == row.stream)?;
        Some(Sample { stream, share: told.share, stable: counts(row.stable), canary: counts(row.canary) })
    });
    let absolute = limits.iter().filter_map(|row| {
        let of = Absolute::BOTH.into_iter().find(|of| of.check().as_str() == row.check)?;
        Some((of, counts(row.canary)))
    });
    let (traffic, arms) = (counts(*traffic), arms.map(counts));
    Heard { samples: samples.collect(), absolute: absolute.collect(), traffic, arms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_hit_on_several_gateways_is_one_user() {
        let mut people = People::default();
        let told = |users: &[u32], hit: &[u32]| vec![(users.to_vec(), hit.to_vec()); KINDS];
        people.add(4, &told(&[1, 2, 3], &[2]));
        people.add(4, &told(&[2, 5], &[2]));
        let enough = |people: &People| people.enough(Check::MaxErrorRate);
        assert!(!enough(&people), "one user alone");
        people.add(4, &told(&[1], &[1]));
        people.add(3, &told(&[7], &[7]));
        assert!(!enough(&people), "two, and one of an earlier generation");
        people.add(4, &told(&[9], &[9]));
        assert!(enough(&people) && people.enough(Check::MaxLatency));
        people.add(5, &told(&[1, 2], &[1]));
        assert!(!enough(&people), "another generation begins anew");
        people.add(5, &told(&[], &[2]));
        assert!(enough(&people), "there are no more users");
        assert!(People::default().enough(Check::HarmBudget));
    }

    #[test]
    fn what_is_told_is_what_was_heard() {
        let (some, none) = (Counts { requests: 9, failures: 2 }, Counts::default());
        let sample = |stream| Sample { stream, share: 5.0, stable: some, canary: none };
        let begun = Heard {
            samples: vec![sample(Stream::Errors), sample(Stream::LatencyP90)],
            absolute: vec![(Absolute::Latency, some), (Absolute::Errors, some)],
            traffic: some,
            arms: [some, none],
        };
        let mut merged = Merged::default();
        merged.gather(1, 5.0, &begun);
        let told = &merged.pending[0].told;
        let back = heard(told);
        assert_eq!(back.samples, begun.samples);
        assert_eq!(back.absolute, begun.absolute);
        assert_eq!((back.traffic, back.arms), (begun.traffic, begun.arms));
        merged.gather(1, 5.0, &begun);
        merged.gather(2, 5.0, &begun);
        merged.gather(2, 5.0, &Heard::default());
        assert_eq!(merged.pending.len(), 2);
        assert_eq!(merged.pending[0].told.counts.traffic, [18, 4]);
    }
}
