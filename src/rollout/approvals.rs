//! Changes that two operators have to want: asked for by one, they wait until another approves them.
//!
//! One that waits is about a generation. Whatever moves the rollout makes it void, so what is approved is what was looked at.

use std::sync::Arc;

use tracing::{debug, info};
use uuid::Uuid;

use crate::api::{Approval, Notice};
use crate::clock;
use crate::flag::{FlagKey, Generation, Percentage, SecondOperator};
use crate::rollout::book::Book;
use crate::rollout::{ChangeError, Command, Request, Rollouts, Saved, now_text};
use crate::store::{Note, Once, StoreError, StoredApproval};
use crate::telemetry::chain;

/// Changes of one flag that may wait at once.
const MAX_WAITING: usize = 20;

/// A change that takes a second operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// The generation that it would be made on.
    pub generation: Generation,
    /// The percentage before, in force.
    pub from: Percentage,
    /// The percentage after.
    pub to: Percentage,
}

impl Rollouts {
    /// Has `rule` hold from now on, or none.
    pub fn require_second(&self, rule: Option<SecondOperator>) {
        self.book().second_operator = rule;
    }

    /// Has the change that `request` asks for wait for a second operator.
    ///
    /// # Errors
    ///
    /// If it cannot be kept, or too many wait.
    pub async fn ask_second(&self, key: &FlagKey, request: &Request, needed: Needed) -> Result<Approval, ChangeError> {
        let Needed { generation, from, to } = needed;
        let (action, change) = request.command.parts(request.reason.clone());
        let now = clock::wall();
        let (standing, rule) = {
            let book = self.book();
            (waiting(&book, key, generation).cloned().collect::<Vec<_>>(), book.second_operator)
        };
        let same = |other: &&StoredApproval| {
            other.change == change && other.approval.action == action && other.approval.actor == request.actor
        };
        if let Some(other) = standing.iter().find(same) {
            return Ok(other.approval.clone());
        }
        let Some(rule) = rule else { return Err(ChangeError::Overtaken) };
        if standing.len() >= MAX_WAITING {
            return Err(ChangeError::TooManyWait(MAX_WAITING));
        }
        let expires = now.checked_add(rule.expires).unwrap_or(now);
        let approval = Approval {
            id: Uuid::new_v4().simple().to_string().chars().take(8).collect(),
            flag: key.to_string(),
            generation: generation.get(),
            action: action.to_owned(),
            from_percentage: from.as_percent(),
            percentage: to.as_percent(),
            actor: request.actor.clone(),
            reason: request.reason.clone(),
            at: format!("{now:.3}"),
            expires: format!("{expires:.0}"),
        };
        let kept = StoredApproval { approval: approval.clone(), change, expires_at: expires.as_second() };
        let entry = self.entry(key).ok_or_else(|| ChangeError::UnknownFlag(key.clone()))?;
        let why = request.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("{action}, {from} → {to}, waits for a second operator as {}{why}", approval.id);
        let event = Note {
            at: &approval.at,
            about: Some((key, &entry.rollout)),
            action: "ask",
            actor: &request.actor,
            reason: &text,
        };
        {
            let _saving = self.saving.lock().await;
            self.store.keep_waiting(&kept, event, &notice(&approval), now.as_millisecond()).await?;
        }
        info!(feature_flag.key = %key, by = %request.actor, action, id = %approval.id, "a change waits for a second operator");
        self.written.send_modify(|count| *count += 1);
        self.look_who_waits().await?;
        Ok(approval)
    }

    /// The changes that wait for a second operator: of one flag, or of all.
    #[must_use]
    pub fn approvals(&self, flag: Option<&FlagKey>) -> Vec<Approval> {
        let book = self.book();
        let set = self.flags.load();
        let entries = set.entries().into_iter().filter(|entry| flag.is_none_or(|flag| *flag == entry.flag.key));
        entries.flat_map(|entry| shown(&book, &entry.flag.key, entry.rollout.generation)).collect()
    }

    /// Makes the change that waits as `id`, since `actor` wants it, too.
    ///
    /// # Errors
    ///
    /// If there is none, `actor` asked for it, or it is refused now.
    pub async fn approve(
        self: &Arc<Self>,
        key: &FlagKey,
        id: &str,
        actor: &str,
        reason: Option<String>,
        once: Option<Once>,
    ) -> Result<Saved, ChangeError> {
        let StoredApproval { approval, change, .. } = self.find_waiting(key, id).await?;
        if approval.actor == actor {
            return Err(ChangeError::SameOperator(approval.actor));
        }
        let unknown = || ChangeError::NoApproval(id.to_owned());
        let command = Command::from_parts(&approval.action, &change).ok_or_else(unknown)?;
        let reasons: Vec<_> =
            approval.reason.into_iter().chain(reason.map(|reason| format!("{actor}: {reason}"))).collect();
        let request = Request {
            command,
            actor: approval.actor,
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
            expected: Some(Generation::new(approval.generation)),
            second: Some(actor.to_owned()),
            once,
        };
        let saved = self.change(key.clone(), request).await?;
        // It is void in any case: the generation has moved.
        if let Err(error) = self.store.forget_waiting(id, None).await {
            debug!(problem = chain(&error), "an approval that is done could not be forgotten yet");
        }
        Ok(saved)
    }

    /// Takes back the change that waits as `id`; any operator may.
    ///
    /// # Errors
    ///
    /// If there is none, or the store fails.
    pub async fn withdraw(&self, key: &FlagKey, id: &str, actor: &str) -> Result<(), ChangeError> {
        let StoredApproval { approval: Approval { action, actor: asker, .. }, .. } = self.find_waiting(key, id).await?;
        let entry = self.entry(key).ok_or_else(|| ChangeError::UnknownFlag(key.clone()))?;
        let text = format!("{action}, which {asker} asked for as {id}");
        let at = now_text();
        let event = Note { at: &at, about: Some((key, &entry.rollout)), action: "withdraw", actor, reason: &text };
        {
            let _saving = self.saving.lock().await;
            self.store.forget_waiting(id, Some(event)).await?;
        }
        info!(feature_flag.key = %key, by = %actor, action, id, "a change that waited is withdrawn");
        self.written.send_modify(|count| *count += 1);
        self.look_who_waits().await?;
        Ok(())
    }

    /// The change that waits as `id`, also if another gateway was asked for it a moment ago.
    async fn find_waiting(&self, key: &FlagKey, id: &str) -> Result<StoredApproval, ChangeError> {
        self.look_who_waits().await?;
        let generation = self.entry(key).ok_or_else(|| ChangeError::UnknownFlag(key.clone()))?.rollout.generation;
        let book = self.book();
        let found = waiting(&book, key, generation).find(|waiting| waiting.approval.id == id).cloned();
        found.ok_or_else(|| ChangeError::NoApproval(id.to_owned()))
    }

    /// Reads what waits anew.
    ///
    /// # Errors
    ///
    /// If the store fails; then all is as it was.
    pub(crate) async fn look_who_waits(&self) -> Result<(), StoreError> {
        let waiting = self.store.waiting().await?;
        self.book().waiting = waiting;
        Ok(())
    }
}

/// What people are told of a change that waits.
fn notice(approval: &Approval) -> Notice {
    let Approval { id, flag, generation, action, from_percentage, percentage, actor, reason, at, expires } = approval;
    let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Notice {
        id: Uuid::now_v7().to_string(),
        event: "approval".to_owned(),
        at: at.clone(),
        summary: format!(
            "{actor} wants to {action} {flag}, {from_percentage} % → {percentage} %{why}; another operator says `tidegate approve \
             {flag} {id}`, until {expires}"
        ),
        flag: Some(flag.clone()),
        generation: Some(*generation),
        by: Some(actor.clone()),
        reason: reason.clone(),
        old: None,
        new: None,
        rollback: None,
        problems: Vec::new(),
    }
}

/// What still waits of a flag at `generation`.
fn waiting<'b>(book: &'b Book, key: &'b FlagKey, generation: Generation) -> impl Iterator<Item = &'b StoredApproval> {
    let now = clock::wall().as_second();
    book.waiting.iter().filter(move |waiting| {
        let Approval { flag, generation: on, .. } = &waiting.approval;
        flag == key.as_str() && *on == generation.get() && waiting.expires_at > now
    })
}

/// The same, as people see it.
pub(crate) fn shown(book: &Book, key: &FlagKey, generation: Generation) -> Vec<Approval> {
    waiting(book, key, generation).map(|waiting| waiting.approval.clone()).collect()
}
