//! The rollouts as people see them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::{
    ArmStatus, Arms, BetaPage, ChainReport, Event, Evidence, Explanation, FlagStatus, FlagdExport, NotExported, Second,
    ServerStatus, Why,
};
use crate::availability::Availability;
use crate::clock;
use crate::flag::{Arm, BetaChangeKind, Flag, FlagKey, Moment, Phase, Rollout, SetVersion};
use crate::flag_file::{Exported, Unsaid, export};
use crate::judge::{Check, Counts, Verdict};
use crate::recorder::RecordedFlag;
use crate::rollout::approvals::shown;
use crate::rollout::asked::AskedRequest;
use crate::rollout::beta::{CursorError, page};
use crate::rollout::book::{Book, Live};
use crate::rollout::counts::{gateways, of_all};
use crate::rollout::explanation::explanation;
use crate::rollout::ramp::ramp_status;
use crate::rollout::why::why;
use crate::rollout::{Counters, Rollouts};
use crate::store::{ArmCounts, Page, StoreError};

impl Rollouts {
    /// Every flag in force, by key.
    #[must_use]
    pub fn flags(&self) -> Vec<FlagStatus> {
        let book = self.book();
        let set = self.flags.load();
        set.entries().into_iter().map(|entry| flag_status(&book, entry, &self.availability)).collect()
    }

    /// The version of the flag files in force.
    #[must_use]
    pub fn set_version(&self) -> SetVersion {
        self.flags.load().version()
    }

    /// One flag as decisions see it.
    #[must_use]
    pub fn entry(&self, key: &FlagKey) -> Option<Arc<RecordedFlag>> {
        self.flags.load().get(key).cloned()
    }

    /// One flag in force.
    #[must_use]
    pub fn flag(&self, key: &FlagKey) -> Option<FlagStatus> {
        let book = self.book();
        self.flags.load().get(key).map(|entry| flag_status(&book, entry, &self.availability))
    }

    /// What the judge's verdict on a flag's canary rests on: of the rollback, while its latch holds. The first is nothing if
    /// there is no such flag, the second if the judge has not looked at it yet.
    #[must_use]
    pub fn why(&self, key: &FlagKey) -> Option<Option<Why>> {
        let book = self.book();
        let set = self.flags.load();
        let (entry, live) = (set.get(key)?, book.live.get(key)?);
        let of_rollback = live.rollback.as_ref().and_then(|rollback| rollback.why.as_deref().cloned());
        Some(of_rollback.or_else(|| why(live, entry)))
    }

    /// How the decision about a request comes about at this moment, if there is such a flag.
    #[must_use]
    pub fn explain(&self, key: &FlagKey, asked: &AskedRequest) -> Option<Explanation> {
        let book = self.book();
        let set = self.flags.load();
        let (entry, live) = (set.get(key)?, book.live.get(key)?);
        let now = Moment::from_unix_millis(clock::wall().as_millisecond());
        let found = explanation(&entry.flag, &entry.rollout, &live.definition, &asked.context(now));
        let away = self.availability.unavailable_since(entry.flag.backend(Arm::Canary)).is_some();
        Some(Explanation { canary_unavailable: away, ..found })
    }

    /// A page of a flag's beta list, of at most `limit` users, if there is such a flag.
    ///
    /// # Errors
    ///
    /// If `cursor` leads nowhere.
    pub fn beta_page(
        &self,
        key: &FlagKey,
        cursor: Option<&str>,
        limit: usize,
    ) -> Option<Result<BetaPage, CursorError>> {
        let set = self.flags.load();
        let entry = set.get(key)?;
        Some(page(&entry.flag, &entry.rollout, cursor, limit))
    }

    /// The flags `keys`, or all if it names none, as flagd has them.
    ///
    /// # Errors
    ///
    /// The first key that is no flag's.
    pub fn export(&self, keys: &[FlagKey]) -> Result<FlagdExport, FlagKey> {
        let set = self.flags.load();
        if let Some(missing) = keys.iter().find(|key| set.get(key).is_none()) {
            return Err(missing.clone());
        }
        let wanted = set.entries().into_iter().filter(|entry| keys.is_empty() || keys.contains(&entry.flag.key));
        Ok(flagd_export(wanted.map(|entry| (&*entry.flag, &entry.rollout))))
    }

    /// At most `limit` events, of one flag or of all.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn events(&self, flag: Option<&FlagKey>, page: Page, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.store.events(flag, page, limit).await
    }

    /// Whether the audit trail is whole, and holds an event with the hash `noted`.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn verify(&self, noted: Option<String>) -> Result<ChainReport, StoreError> {
        self.store.verify(noted).await
    }

    /// Changes when the audit trail may have got longer.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// What was counted of a flag's release second by second, or of the last one that anything was counted of; from `since`, in
    /// seconds since 1970, if that is given.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn seconds(
        &self,
        flag: &FlagKey,
        release: Option<&str>,
        since: Option<i64>,
    ) -> Result<Vec<Second>, StoreError> {
        self.store.seconds(flag, release, since).await
    }

    /// What was counted of a flag second by second, whatever its release, from `from` to before `until`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn seconds_between(&self, flag: &FlagKey, from: i64, until: i64) -> Result<Vec<Second>, StoreError> {
        self.store.seconds_between(flag, from, until).await
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.book().counters.clone()
    }

    /// What is wrong with the flag files, if they cannot be used.
    #[must_use]
    pub fn bad_files(&self) -> Vec<String> {
        self.book().bad_files.clone()
    }

    /// What an operator should look at: bad flag files, a failing store, changes that are not on disk yet.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let book = self.book();
        let in_force = if book.live.is_empty() { "no flags are in force" } else { "the last good set is in force" };
        let mut problems: Vec<_> =
            book.bad_files.iter().map(|problem| format!("bad flag file, so {in_force}: {problem}")).collect();
        if book.unread {
            let error = book.store_error.as_deref().unwrap_or("it was not reached");
            problems.push(format!(
                "the store could not be read since the start, so every flag serves stable until it can: {error}"
            ));
        } else if let Some(error) = &book.store_error {
            problems.push(format!("the store fails, so changes other than rollbacks are refused: {error}"));
            // With a store that works, what waits is written within moments.
            if !book.unsaved.is_empty() {
                problems.push(format!("{} changes are in force but not in the store yet", book.unsaved.len()));
            }
        }
        problems.extend(Self::fleet_problem(&book.instances, &self.instance()));
        problems
    }
}

/// Flags in the state of their rollouts, as flagd has them.
pub fn flagd_export<'f>(flags: impl IntoIterator<Item = (&'f Flag, &'f Rollout)>) -> FlagdExport {
    let Exported { document, unsaid } = export(flags);
    let not_exported = |Unsaid { flag, rule, why }| NotExported {
        flag: flag.to_string(),
        rule: rule.map(|(number, _)| number),
        line: rule.map(|(_, line)| line),
        why,
    };
    FlagdExport { flagd: document, not_exported: unsaid.into_iter().map(not_exported).collect() }
}

fn flag_status(book: &Book, entry: &RecordedFlag, availability: &Availability) -> FlagStatus {
    let live = book.live.get(&entry.flag.key);
    let (flag, rollout) = (&entry.flag, &entry.rollout);
    // What is not read yet cannot be resumed.
    let held = matches!(rollout.phase, Phase::Paused | Phase::RolledBack) && !book.unread;
    FlagStatus {
        key: flag.key.to_string(),
        enabled: flag.enabled,
        release: rollout.release.clone(),
        generation: rollout.generation.get(),
        phase: rollout.phase_name().to_owned(),
        percentage: rollout.in_force().as_percent(),
        file_percentage: flag.percentage.as_percent(),
        resume_percentage: held.then(|| rollout.percentage.as_percent()),
        beta_users: rollout.beta.len_over(&flag.beta),
        beta_added: rollout.beta.count(BetaChangeKind::Added),
        beta_removed: rollout.beta.count(BetaChangeKind::Removed),
        owner: flag.owner.clone(),
        description: flag.description.clone(),
        arms: Arms {
            stable: arm_status(&book.others, entry, Arm::Stable, availability),
            canary: arm_status(&book.others, entry, Arm::Canary, availability),
        },
        gateways: gateways(entry, &book.others),
        evidence: live.map(evidence).unwrap_or_default(),
        rollback: live.and_then(|live| live.rollback.clone()),
        ramp: flag.ramp.as_ref().zip(live).map(|(ramp, live)| ramp_status(ramp, rollout, live)),
        approvals: shown(book, &flag.key, rollout.generation),
    }
}

fn arm_status(others: &[ArmCounts], entry: &RecordedFlag, arm: Arm, availability: &Availability) -> ArmStatus {
    let condition = availability.condition(entry.flag.backend(arm));
    let tally = of_all(entry, arm, others);
    let requests = tally.requests();
    let quantile_ms = |q| tally.latency.quantile(q).map(|latency| latency.as_secs_f64() * 1000.0);
    ArmStatus {
        backend: entry.flag.backend(arm).to_string(),
        requests,
        failures: tally.failures,
        error_rate: if requests == 0 { 0.0 } else { tally.failures as f64 / requests as f64 },
        p50_ms: quantile_ms(0.5),
        p99_ms: quantile_ms(0.99),
        available: condition.unavailable_since.is_none(),
        servers: condition
            .servers
            .into_iter()
            .map(|server| ServerStatus { name: server.name, healthy: server.healthy, ejected: server.ejected })
            .collect(),
    }
}

/// What the judge last found, check by check: the evidence as odds, which start at 1 and roll back at the limit. The
/// harm budget counts failures instead.
pub(crate) fn evidence(live: &Live) -> Vec<Evidence> {
    let Some(report) = live.on_trial.report() else { return Vec::new() };
    let row = |check: Check, counts: Counts, (value, limit): (f64, f64), canary_requests: Option<u64>| {
        let worse = report.worse() == Some(check) || (value >= limit && report.requests >= report.min_requests);
        let verdict = match canary_requests {
            _ if worse => Verdict::Worse,
            Some(0) => Verdict::Healthy,
            _ => Verdict::Inconclusive,
        };
        Evidence {
            check: check.as_str().to_owned(),
            value: odds(value),
            limit: odds(limit),
            requests: counts.requests,
            failures: counts.failures,
            verdict: verdict.as_str().to_owned(),
            canary_requests_to_go: canary_requests.filter(|requests| *requests > 0),
        }
    };
    // Each stream's own evidence, and what it would have to reach by itself: its weight is its part of the mean.
    let mut streams = report.streams.iter().map(|stream| {
        let value = (stream.log_evidence, report.log_limit - stream.weight.ln());
        row(Check::WorseThanStable(stream.stream), stream.canary, value, stream.canary_requests)
    });
    let limits = report
        .limits
        .iter()
        .map(|limit| row(limit.of.check(), limit.canary, (limit.log_evidence, limit.log_limit), limit.canary_requests));
    let harm = report.harm_budget.map(|budget| Evidence {
        check: Check::HarmBudget.as_str().to_owned(),
        value: report.harm as f64,
        limit: budget as f64,
        requests: report.requests,
        failures: report.harm,
        verdict: if report.harm >= budget { Verdict::Worse } else { Verdict::Healthy }.as_str().to_owned(),
        canary_requests_to_go: None,
    });
    // Failures first, then how quick it is.
    let errors = streams.next();
    let (mut limits, slow): (Vec<_>, Vec<_>) =
        limits.partition(|row: &Evidence| row.check != Check::MaxLatency.as_str());
    limits.splice(0..0, errors);
    limits.into_iter().chain(streams).chain(slow).chain(harm).collect()
}

/// The number whose logarithm this is, as far as JSON can hold it.
fn odds(logarithm: f64) -> f64 {
    brief(logarithm.exp())
}

/// To the millionth, which is more than anybody reads, and as far as JSON can hold it.
pub(crate) fn brief(number: f64) -> f64 {
    let number = number.min(f64::MAX);
    if number.abs() < 1e9 { (number * 1e6).round() / 1e6 } else { number }
}
