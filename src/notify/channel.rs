//! A channel: where notifications go, how they are written there, and which.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where notifications go.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Where they are posted: `http://` or `https://`.
    pub url: String,
    /// How they are written.
    pub format: Format,
    /// Which are sent.
    pub events: Vec<Kind>,
    /// A notice that could not be sent for so long is given up.
    pub max_age: Duration,
}

/// Without the URL, which may hold a secret.
impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.name).field("events", &self.events).finish_non_exhaustive()
    }
}

impl Channel {
    /// Whether it is to be told of events of this kind.
    pub(crate) fn wants(&self, event: &str) -> bool {
        self.events.iter().any(|kind| kind.as_str() == event)
    }
}

/// How notifications are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// As Tidegate has them, signed.
    Tidegate(Secret),
    /// As Slack's incoming webhooks read them, and what imitates those.
    Slack,
    /// As Alertmanager's `/api/v2/alerts` reads them.
    Alertmanager,
}

/// What notifications are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The fewest bytes of a secret that nobody guesses.
    pub const MIN_BYTES: usize = 16;

    /// The secret that `text` is, without white space around it; nothing if it is too short.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() >= Self::MIN_BYTES).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A canary was taken out.
    Rollback,
    /// A pause or a rollback was lifted.
    Resume,
    /// A ramp went on to its next step.
    Step,
    /// A ramp waits for a person.
    Gate,
    /// A change waits for a second operator.
    Approval,
    /// A rollout was paused, also by a ramp that cannot tell.
    Pause,
    /// Everyone is on canary.
    Promote,
    /// Flag files cannot be used.
    BadFlags,
    /// Nothing: somebody tries whether notifications arrive.
    Test,
}

impl Kind {
    /// What can happen.
    pub const ALL: [Self; 8] = [
        Self::Rollback,
        Self::Resume,
        Self::Step,
        Self::Gate,
        Self::Approval,
        Self::Pause,
        Self::Promote,
        Self::BadFlags,
    ];

    /// As written in the configuration and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Resume => "resume",
            Self::Step => "step",
            Self::Gate => "gate",
            Self::Approval => "approval",
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::BadFlags => "bad_flags",
            Self::Test => "test",
        }
    }
}

/// Why a text names nothing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are `rollback`, `resume`, `step`, `gate`, `approval`, `pause`, `promote` and `bad_flags`")]
pub struct KindError;

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(KindError)
    }
}
