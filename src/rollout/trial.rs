//! A flag's canary on trial: what the recorder counts becomes what the judge sees.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::flag::{Arm, FlagKey, Generation};
use crate::judge::{
    Absolute, Aside, Check, Counts, Guard, MAX_SLOW_RATE, MAX_STRATA, Report, Sample, Settings, Stream, StreamSettings,
    Tolerance, Trial, TrialState,
};
use crate::recorder::{ABSOLUTE_LINE, Affected, Ledger, MAX_SAMPLES, RecordedFlag};
use crate::rollout::latency::{Crossed, Latency, QUANTILES};
use crate::rollout::merge::{Merged, feed, now as calendar};
use crate::store::{Outgoing, Parcel, Span, StoredTrial};

/// So many users must have had a failure before anything is rolled back, if the canary has that many: what only one or two
/// see is more likely theirs.
pub(crate) const MIN_FAILING_USERS: usize = 3;

/// The trial of one release, over all of its generations.
#[derive(Debug)]
pub(crate) struct OnTrial {
    trial: Trial,
    settings: Settings,
    basis: String,
    /// The hash of the basis, as gateways tell each other.
    hash: String,
    /// The generation that it began with: what came before is no part of it.
    since: Generation,
    /// How it is put together with other gateways'; nothing where the store is not shared.
    merged: Option<Merged>,
    /// How long it had lasted when this process took it up, and when that was.
    before: Duration,
    began: Option<Instant>,
    /// What was counted at the last look, of the ledger that is looked at.
    seen: Seen,
    latency: Latency,
    /// What was heard at the last look.
    heard: Heard,
    /// Without the requests of the ledger that is looked at, which it knows itself.
    span: Span,
    report: Option<Report>,
    /// Whether anything has been observed since it was last kept.
    changed: bool,
}

/// What a look hears.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The comparisons with stable.
    pub(crate) samples: Vec<Sample>,
    /// What is held against the canary's own limits.
    pub(crate) absolute: Vec<(Absolute, Counts)>,
    /// All requests to the canary, and those of their failures that users met.
    pub(crate) traffic: Counts,
    /// All requests to each arm, stable's before the canary's.
    pub(crate) arms: [Counts; 2],
}

impl Heard {
    /// Whether there was nothing to hear.
    pub(crate) fn is_nothing(&self) -> bool {
        let nothing = Counts::default();
        self.traffic == nothing
            && self.samples.iter().all(|sample| sample.stable == nothing && sample.canary == nothing)
            && self.absolute.iter().all(|(_, canary)| *canary == nothing)
    }
}

/// Notes that outcomes came in, the canary's share being `percent`.
fn note(span: &mut Span, percent: f64, at: Timestamp) {
    if span.shares.len() < MAX_STRATA && !span.shares.iter().any(|share| share.to_bits() == percent.to_bits()) {
        span.shares.push(percent);
    }
    let at = at.as_millisecond();
    span.first.get_or_insert(at);
    span.last = Some(at);
}

/// The latest requests of both, those of `before` being the older ones.
fn latest(before: &[String], now: Vec<String>) -> Vec<String> {
    let kept = before.len().saturating_sub((before.len() + now.len()).saturating_sub(MAX_SAMPLES));
    let before = before.get(before.len() - kept..).unwrap_or_default();
    before.iter().cloned().chain(now).collect()
}

#[derive(Debug, Default)]
struct Seen {
    stable: Counts,
    canary: Counts,
    /// All of its requests that the judge hears.
    canary_heard: Counts,
    /// All of its requests, and those of their failures that users met.
    canary_traffic: Counts,
    /// All of both arms' requests.
    arms: [Counts; 2],
}

impl OnTrial {
    /// A trial of a release by `guard`, from the generation `since` on.
    ///
    /// `basis` says what is on trial; the evidence that is `kept` is taken up if it is of the same.
    pub(crate) fn new(
        guard: &Guard,
        basis: String,
        since: Generation,
        sharing: Sharing,
        kept: Option<StoredTrial>,
    ) -> Self {
        let settings = settings(guard);
        let kept = kept.filter(|kept| kept.basis == basis && kept.since >= since);
        let through = kept.as_ref().map_or(0, |kept| kept.through);
        let since = kept.as_ref().map_or(since, |kept| kept.since);
        let span = kept.as_ref().map(|kept| kept.span.clone()).unwrap_or_default();
        let kept = kept.and_then(|kept| TrialState::from_numbers(&kept.numbers));
        let before = kept.as_ref().map_or(Duration::ZERO, |kept| kept.at);
        let trial = kept.map_or_else(|| Trial::new(&settings), |kept| Trial::resume(&settings, kept));
        let latency = Latency::new(guard);
        Self {
            trial,
            settings,
            hash: Sha256::digest(&basis).iter().map(|byte| format!("{byte:02x}")).collect(),
            basis,
            since,
            merged: (sharing == Sharing::Yes).then(|| Merged::after(through)),
            before,
            began: None,
            seen: Seen::default(),
            latency,
            heard: Heard::default(),
            span,
            report: None,
            changed: true,
        }
    }

    /// What is to be kept, if it is not what was asked for last; `ledger` is the one that is looked at.
    pub(crate) fn take_changes(&mut self, flag: &FlagKey, ledger: &Ledger) -> Option<StoredTrial> {
        let numbers = std::mem::take(&mut self.changed).then(|| self.trial.state().to_numbers())?;
        let through = self.merged.as_ref().map_or(0, |merged| merged.through);
        let (flag, basis, span) = (flag.clone(), self.basis.clone(), self.span(ledger));
        Some(StoredTrial { flag, basis, numbers, through, since: self.since, span })
    }

    /// Gathers the evidence for the canary anew, since the percentage is another. The evidence against it stays.
    pub(crate) fn ask_for_assurance(&mut self) {
        self.trial.ask_for_assurance();
        if let Some(report) = &mut self.report {
            report.assured = false;
        }
    }

    /// Goes on with another generation of the same release than that of `ledger`. The evidence stays; what is counted starts
    /// from nothing.
    pub(crate) fn next_generation(&mut self, ledger: &Ledger) {
        self.span = self.span(ledger);
        self.latency.next_generation();
        self.seen = Seen::default();
    }

    /// Takes in what the ledger of `entry` has counted up to `now`, and says by which check the canary is worse, if it is. Where
    /// the store is shared that is said by [`OnTrial::conclude`], unless this gateway is cut off from the others.
    pub(crate) fn observe(&mut self, now: Instant, entry: &RecordedFlag) -> Option<Check> {
        let ledger = &entry.attached;
        let share = entry.rollout.percentage.as_percent();
        self.hear(now, share, ledger);
        let began = *self.began.get_or_insert(now);
        let Some(merged) = &mut self.merged else {
            feed(&mut self.trial, self.before + now.duration_since(began), &self.heard);
            let report = self.trial.report();
            let worse = report.worse();
            self.report = Some(report);
            return worse.filter(|check| hits_enough_users(*check, ledger));
        };
        let generation = entry.rollout.generation.get();
        merged.gather(generation, share, &self.heard);
        let alone = merged.alone.as_mut()?;
        feed(alone, calendar(), &self.heard);
        let report = alone.report();
        let worse = report.worse();
        self.report = Some(report);
        merged.know_own(generation, ledger);
        worse.filter(|check| merged.enough_users(*check))
    }

    /// Notes what the ledger has counted since the last look.
    fn hear(&mut self, now: Instant, share: f64, ledger: &Ledger) {
        let counted = Seen {
            stable: counts(ledger.compared(Arm::Stable)),
            canary: counts(ledger.compared(Arm::Canary)),
            canary_heard: counts(ledger.admitted(Arm::Canary)),
            canary_traffic: Counts { requests: ledger.counts(Arm::Canary).0, failures: ledger.harm() },
            arms: Arm::BOTH.map(|arm| counts(ledger.counts(arm))),
        };
        let (stable, canary) = (since(counted.stable, self.seen.stable), since(counted.canary, self.seen.canary));
        let mut absolute = Vec::new();
        let mut samples = vec![Sample { stream: Stream::Errors, share, stable, canary }];
        for Crossed { line, stable, canary } in self.latency.look(now, ledger) {
            match QUANTILES.get(line) {
                Some((stream, _)) => samples.push(Sample { stream: *stream, share, stable, canary }),
                None => absolute.push((Absolute::Latency, canary)),
            }
        }
        if stable != Counts::default() || canary != Counts::default() {
            note(&mut self.span, share, clock::wall());
        }
        self.changed |= stable != Counts::default() || counted.canary_traffic != self.seen.canary_traffic;
        absolute.push((Absolute::Errors, since(counted.canary_heard, self.seen.canary_heard)));
        let traffic = since(counted.canary_traffic, self.seen.canary_traffic);
        let ([stable, canary], [stable_before, canary_before]) = (counted.arms, self.seen.arms);
        let arms = [since(stable, stable_before), since(canary, canary_before)];
        self.heard = Heard { samples, absolute, traffic, arms };
        self.seen = counted;
        ledger.next_block();
    }

    /// What is on trial, as gateways tell each other.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// What is to be told to the other gateways.
    pub(crate) fn pack(&mut self, numbers: &mut i64, generation: u64, ledger: &Ledger) -> Vec<Parcel> {
        self.merged.as_mut().map(|merged| merged.pack(numbers, generation, ledger)).unwrap_or_default()
    }

    /// These parcels are in the store.
    pub(crate) fn sent(&mut self, sent: &[Outgoing]) {
        if let Some(merged) = self.merged.as_mut().filter(|_| sent.iter().any(|parcel| parcel.trial == self.hash)) {
            merged.sent(sent);
        }
    }

    /// Whether it was looked where the other gateways stand.
    pub(crate) fn has_joined(&self) -> bool {
        self.merged.as_ref().is_none_or(|merged| merged.joined)
    }

    /// Goes on from where another gateway has `kept` the trial, if that is further.
    pub(crate) fn join(&mut self, kept: Option<StoredTrial>) {
        let Some(merged) = &mut self.merged else { return };
        merged.joined = true;
        let further =
            |kept: &StoredTrial| kept.basis == self.basis && (kept.since, kept.through) > (self.since, merged.through);
        let Some(kept) = kept.filter(further) else { return };
        if let Some(state) = TrialState::from_numbers(&kept.numbers) {
            self.trial = Trial::resume(&self.settings, state);
            (self.since, merged.through) = (kept.since, kept.through);
            self.span = kept.span;
        }
    }

    /// From which generation on, and after which parcel, it is to be read on.
    pub(crate) fn position(&self) -> Option<(Generation, i64)> {
        self.merged.as_ref().map(|merged| (self.since, merged.known))
    }

    /// Goes on by itself, if the other gateways cannot be reached.
    pub(crate) fn go_alone(&mut self) {
        if let Some(merged) = &mut self.merged {
            merged.go_alone(&self.trial);
        }
    }

    /// Adds a parcel of some gateway's; `own` is this one.
    pub(crate) fn fold(&mut self, parcel: &Parcel, own: &str) {
        let Some(merged) = &mut self.merged else { return };
        merged.fold(&mut self.trial, parcel, own);
        if let Ok(at) = Timestamp::from_second(parcel.at) {
            note(&mut self.span, parcel.told.share, at);
        }
        self.changed = true;
    }

    /// Says by which check the canary is worse after what was added, if it is.
    pub(crate) fn conclude(&mut self) -> Option<Check> {
        let merged = self.merged.as_mut()?;
        merged.alone = None;
        let report = self.trial.report();
        let worse = report.worse();
        self.report = Some(report);
        worse.filter(|check| merged.enough_users(*check))
    }

    /// The canary's requests to other gateways in `generation`, and their failures, as far as they were told.
    pub(crate) fn others(&self, generation: Generation) -> Counts {
        self.merged.as_ref().map(|merged| merged.others(generation.get())).unwrap_or_default()
    }

    /// The evidence for the canary at this percentage, and what it must reach.
    pub(crate) fn assurance(&self) -> Option<(f64, f64)> {
        self.trial.assurance().map(|(value, limit)| (value.exp().min(f64::MAX), limit.exp()))
    }

    /// What was heard at the last look.
    pub(crate) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Where the evidence comes from; `ledger` is the one that is looked at.
    pub(crate) fn span(&self, ledger: &Ledger) -> Span {
        let failed = latest(&self.span.failed, ledger.samples());
        Span { failed, slow: latest(&self.span.slow, ledger.slow_samples()), ..self.span.clone() }
    }

    /// What the judge last found.
    pub(crate) fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }
}

/// Whether other gateways may have the same store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// They may.
    Yes,
    /// This gateway has it for itself.
    No,
}

/// Whether so many users were hit that what `check` found is more than one or two users' own.
fn hits_enough_users(check: Check, ledger: &Ledger) -> bool {
    let Affected { users, failing } = match check {
        // How much harm is enough was said by a person, whoever it is done to.
        Check::HarmBudget => return true,
        Check::MaxErrorRate | Check::WorseThanStable(Stream::Errors) => ledger.canary_users(),
        Check::MaxLatency => ledger.slowed_users(ABSOLUTE_LINE),
        Check::WorseThanStable(slow) => {
            ledger.slowed_users(QUANTILES.iter().position(|(stream, _)| *stream == slow).unwrap_or(0))
        }
    };
    failing >= users.min(MIN_FAILING_USERS)
}

/// What a trial under `guard` judges by.
#[must_use]
pub fn settings(guard: &Guard) -> Settings {
    let errors = StreamSettings { stream: Stream::Errors, tolerance: guard.tolerance, history: Counts::default() };
    let latency =
        QUANTILES.map(|(stream, q)| StreamSettings { stream, tolerance: Tolerance::STRICT, history: beyond(q) });
    Settings {
        false_rollback: guard.false_rollback,
        streams: std::iter::once(errors).chain(latency).collect(),
        max_error_rate: Some(guard.max_error_rate),
        max_slow_rate: guard.max_latency.map(|_| MAX_SLOW_RATE),
        harm_budget: guard.harm_budget,
        min_requests: guard.min_requests,
        aside: Aside::ONE_USER,
    }
}

/// What is known beforehand of a stream of slow answers: its line is drawn where the rest of stable's are.
fn beyond(quantile: f64) -> Counts {
    const KNOWN: u64 = 1000;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to what is known")]
    let failures = (KNOWN as f64 * (1.0 - quantile)).round() as u64;
    Counts { requests: KNOWN, failures }
}

fn counts((requests, failures): (u64, u64)) -> Counts {
    Counts { requests, failures }
}

fn since(now: Counts, before: Counts) -> Counts {
    Counts {
        requests: now.requests.saturating_sub(before.requests),
        failures: now.failures.saturating_sub(before.failures),
    }
}
