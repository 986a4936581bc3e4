//! What people may ask of a rollout, and the answers they get.

use crate::api::{BetaEdit, Change};
use crate::flag::{FlagKey, Generation, Onward, Percentage, RampAction, Refusal, TooManyChanges};
use crate::rollout::ROLLBACK;
use crate::rollout::approvals::Needed;
use crate::store::{Once, StoreError};

/// What a person, or its ramp, may ask of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Move the canary to a percentage.
    Set(Percentage),
    /// Change the beta list, and move the canary too if a percentage is named.
    Beta {
        /// Where to move the canary.
        percentage: Option<Percentage>,
        /// Who is to be on the list.
        add: Vec<String>,
        /// Who is not.
        remove: Vec<String>,
    },
    /// Hold it where it is.
    Pause,
    /// Lift a pause or a latch, at the percentage before or a lower one.
    Resume(Option<Percentage>),
    /// Put everyone on canary.
    Promote,
    /// Go on to the ramp's next step without waiting.
    Skip,
    /// Open the gate that the ramp waits at.
    Approve,
    /// Take the canary out.
    RollBack,
    /// Do what the ramp says.
    Follow(RampAction),
}

impl Command {
    /// Whether a person gives it, to whom it may be said that another has to want it, too.
    pub(crate) fn is_a_persons(&self) -> bool {
        !matches!(self, Self::RollBack | Self::Follow(_))
    }

    /// The action and what belongs to it, as they are kept.
    pub(crate) fn parts(&self, reason: Option<String>) -> (&'static str, Change) {
        let (percentage, beta) = match self {
            Self::Set(percentage) => (Some(*percentage), None),
            Self::Resume(percentage) => (*percentage, None),
            Self::Beta { percentage, add, remove } => {
                (*percentage, Some(BetaEdit { add: add.clone(), remove: remove.clone() }))
            }
            Self::Pause | Self::Promote | Self::Skip | Self::Approve | Self::RollBack | Self::Follow(_) => (None, None),
        };
        (self.action(), Change { percentage: percentage.map(Percentage::as_percent), beta, reason })
    }

    /// The command that [`Command::parts`] gave these of, if one that waits can be so.
    pub(crate) fn from_parts(action: &str, change: &Change) -> Option<Self> {
        let percentage = change.percentage.map(Percentage::from_percent).transpose().ok()?;
        match (action, percentage, &change.beta) {
            ("set", Some(percentage), None) => Some(Self::Set(percentage)),
            ("set, beta", percentage, Some(BetaEdit { add, remove })) => {
                Some(Self::Beta { percentage, add: add.clone(), remove: remove.clone() })
            }
            ("resume", percentage, None) => Some(Self::Resume(percentage)),
            ("promote", None, None) => Some(Self::Promote),
            ("skip", None, None) => Some(Self::Skip),
            ("approve", None, None) => Some(Self::Approve),
            _ => None,
        }
    }

    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Beta { percentage: None, .. } => "beta",
            Self::Beta { percentage: Some(_), .. } => "set, beta",
            Self::Pause => "pause",
            Self::Resume(_) => "resume",
            Self::Promote => "promote",
            Self::Skip => "skip",
            Self::Approve => "approve",
            Self::RollBack => ROLLBACK,
            Self::Follow(RampAction::Go(Onward::Climb(_))) => "step",
            Self::Follow(RampAction::Go(Onward::Promote)) => "promote",
            Self::Follow(RampAction::GiveUp | RampAction::Wait(_)) => "pause",
        }
    }
}

/// A command with who gives it and why.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Who asks.
    pub actor: String,
    /// Why, for the audit trail.
    pub reason: Option<String>,
    /// The generation that the asker looked at, if the change is only meant for that one.
    pub expected: Option<Generation>,
    /// The key that it is asked for with, if it was claimed: the change is marked as made with it.
    pub once: Option<Once>,
    /// Who approved it, if it waited for that.
    pub second: Option<String>,
}

/// Whether a change that is in force is on disk too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is.
    Yes,
    /// It will be written as soon as the store takes it. Only a rollback may be in this state.
    Later,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such flag.
    #[error("there is no flag `{0}`")]
    UnknownFlag(FlagKey),
    /// The rollout is not in a state for it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The flag holds no more changes of its beta list.
    #[error(transparent)]
    TooManyChanges(#[from] TooManyChanges),
    /// Another operator has to want it, too.
    #[error("this takes a second operator")]
    NeedsSecond(Needed),
    /// Too many changes wait already.
    #[error("{0} changes of this flag wait for a second operator already; have some approved or withdrawn first")]
    TooManyWait(usize),
    /// Nothing waits under this name.
    #[error(
        "nothing waits as `{0}`: it was approved or withdrawn, has waited too long, or the rollout has changed since"
    )]
    NoApproval(String),
    /// Whoever asked cannot be the second one.
    #[error("`{0}` asked for this, so another operator has to approve it")]
    SameOperator(String),
    /// The rollout has changed since the asker looked.
    #[error("the rollout is at generation {actual} by now, not at {expected}; look again, then decide")]
    Stale {
        /// The generation that the asker looked at.
        expected: Generation,
        /// The one in force.
        actual: Generation,
    },
    /// The rollout changed while this change was being stored; that other change holds.
    #[error("the rollout changed at the same moment, and that change holds; look again, then decide")]
    Overtaken,
    /// The gateway stopped in the middle of it.
    #[error("the gateway stopped before the change was made; look again once it is back")]
    Interrupted,
    /// Another process is taking over.
    #[error("the change is not made, since another process is taking over from this gateway; ask again in a moment")]
    HandedOver,
    /// The store did not say whether it kept it.
    #[error("it is not known whether the change was made; look again in a moment")]
    Uncertain(#[source] StoreError),
    /// It could not be stored.
    #[error("the change is not made, since it cannot be stored")]
    Store(#[from] StoreError),
}
