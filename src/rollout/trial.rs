//! A flag's canary on trial: what the recorder counts becomes what the judge sees.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::clock;
use crate::flag::{Arm, FlagKey, Percentage};
use crate::judge::{
    Absolute, Aside, Check, Counts, Guard, MAX_SLOW_RATE, MAX_STRATA, Report, Sample, Settings, Stream, StreamSettings,
    Tolerance, Trial, TrialState,
};
use crate::recorder::{ABSOLUTE_LINE, Affected, Ledger};
use crate::rollout::latency::{Crossed, Latency, QUANTILES};
use crate::store::StoredTrial;

/// So many users must have had a failure before anything is rolled back, if the canary has that many: what only one or two
/// see is more likely theirs.
const MIN_FAILING_USERS: usize = 3;

/// The trial of one release, over all of its generations.
#[derive(Debug)]
pub(crate) struct OnTrial {
    trial: Trial,
    basis: String,
    /// How long it had lasted when this process took it up, and when that was.
    before: Duration,
    began: Option<Instant>,
    /// What was counted at the last look, of the ledger that is looked at.
    seen: Seen,
    latency: Latency,
    /// What was heard at the last look.
    heard: Heard,
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

/// Where the evidence comes from, as far as this process has seen it.
#[derive(Debug, Default)]
pub(crate) struct Span {
    /// The canary's shares in percent, each once.
    pub(crate) shares: Vec<f64>,
    /// When the first outcomes came in.
    pub(crate) first: Option<Timestamp>,
    /// When the last did.
    pub(crate) last: Option<Timestamp>,
}

impl Span {
    /// Notes that outcomes came in, the canary's share being `percent`.
    fn note(&mut self, percent: f64, at: Timestamp) {
        if self.shares.len() < MAX_STRATA && !self.shares.iter().any(|share| share.to_bits() == percent.to_bits()) {
            self.shares.push(percent);
        }
        self.first.get_or_insert(at);
        self.last = Some(at);
    }
}

#[derive(Debug, Default)]
struct Seen {
    stable: Counts,
    canary: Counts,
    /// All of its requests that the judge hears.
    canary_heard: Counts,
    /// All of its requests, and those of their failures that users met.
    canary_traffic: Counts,
}

impl OnTrial {
    /// A trial of a release by `guard`.
    ///
    /// `basis` says what is on trial; the evidence that is `kept` is taken up if it is of the same.
    pub(crate) fn new(guard: &Guard, basis: String, kept: Option<StoredTrial>) -> Self {
        let settings = settings(guard);
        let kept = kept.filter(|kept| kept.basis == basis).and_then(|kept| TrialState::from_numbers(&kept.numbers));
        let before = kept.as_ref().map_or(Duration::ZERO, |kept| kept.at);
        let trial = kept.map_or_else(|| Trial::new(&settings), |kept| Trial::resume(&settings, kept));
        let latency = Latency::new(guard);
        Self {
            trial,
            basis,
            before,
            began: None,
            seen: Seen::default(),
            latency,
            heard: Heard::default(),
            span: Span::default(),
            report: None,
            changed: true,
        }
    }

    /// What is to be kept, if it is not what was asked for last.
    pub(crate) fn take_changes(&mut self, flag: &FlagKey) -> Option<StoredTrial> {
        let numbers = std::mem::take(&mut self.changed).then(|| self.trial.state().to_numbers())?;
        Some(StoredTrial { flag: flag.clone(), basis: self.basis.clone(), numbers })
    }

    /// Gathers the evidence for the canary anew, since the percentage is another. The evidence against it stays.
    pub(crate) fn ask_for_assurance(&mut self) {
        self.trial.ask_for_assurance();
    }

    /// Goes on with another generation of the same release. The evidence stays; what is counted starts from nothing.
    pub(crate) fn next_generation(&mut self) {
        self.latency.next_generation();
        self.seen = Seen::default();
    }

    /// Takes in what `ledger` has counted up to `now`, with the canary's share being `percentage`, and says by which check
    /// the canary is worse, if it is.
    pub(crate) fn observe(&mut self, now: Instant, percentage: Percentage, ledger: &Ledger) -> Option<Check> {
        let counted = Seen {
            stable: counts(ledger.compared(Arm::Stable)),
            canary: counts(ledger.compared(Arm::Canary)),
            canary_heard: counts(ledger.admitted(Arm::Canary)),
            canary_traffic: Counts { requests: ledger.counts(Arm::Canary).0, failures: ledger.harm() },
        };
        let share = percentage.as_percent();
        let (stable, canary) = (since(counted.stable, self.seen.stable), since(counted.canary, self.seen.canary));
        let mut absolute = Vec::new();
        let mut samples = vec![Sample { stream: Stream::Errors, share, stable, canary }];
        for Crossed { line, stable, canary } in self.latency.look(now, ledger) {
            match QUANTILES.get(line) {
                Some((stream, _)) => samples.push(Sample { stream: *stream, share, stable, canary }),
                None => absolute.push((Absolute::Latency, canary)),
            }
        }
        let began = *self.began.get_or_insert(now);
        if stable != Counts::default() || canary != Counts::default() {
            self.span.note(share, clock::wall());
        }
        self.changed |= stable != Counts::default() || counted.canary_traffic != self.seen.canary_traffic;
        self.trial.observe(self.before + now.duration_since(began), &samples);
        absolute.push((Absolute::Errors, since(counted.canary_heard, self.seen.canary_heard)));
        for (limit, canary) in &absolute {
            self.trial.observe_canary(*limit, *canary);
        }
        let traffic = since(counted.canary_traffic, self.seen.canary_traffic);
        self.trial.observe_traffic(traffic.requests, traffic.failures);
        self.heard = Heard { samples, absolute, traffic };
        self.seen = counted;
        ledger.next_block();

        let report = self.trial.report();
        let worse = report.worse();
        self.report = Some(report);
        worse.filter(|check| {
            let Affected { users, failing } = match check {
                // How much harm is enough was said by a person, whoever it is done to.
                Check::HarmBudget => return true,
                Check::MaxErrorRate | Check::WorseThanStable(Stream::Errors) => ledger.canary_users(),
                Check::MaxLatency => ledger.slowed_users(ABSOLUTE_LINE),
                Check::WorseThanStable(slow) => {
                    ledger.slowed_users(QUANTILES.iter().position(|(stream, _)| stream == slow).unwrap_or(0))
                }
            };
            failing >= users.min(MIN_FAILING_USERS)
        })
    }

    /// The evidence for the canary at this percentage, and what it must reach.
    pub(crate) fn assurance(&self) -> Option<(f64, f64)> {
        self.trial.assurance().map(|(value, limit)| (value.exp().min(f64::MAX), limit.exp()))
    }

    /// What was heard at the last look.
    pub(crate) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Where the evidence comes from.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// What the judge last found.
    pub(crate) fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }
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
