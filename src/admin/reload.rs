//! Reading the configuration again, when an operator asks for it.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Bytes};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::admin::entry::Actor;
use crate::admin::{AdminError, Shared};
use crate::api::{Problem, Reloaded};
use crate::diagnostic::Diagnostic;
use crate::rollout::ChangeError;

/// How many askers may wait.
const WAITING: usize = 16;

/// Why the configuration was not put in force. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file is bad; each problem has its place.
    #[error("{}", lines(.0))]
    Bad(Vec<Diagnostic>),
    /// Something in it takes a restart.
    #[error("{} cannot be changed without a restart, so nothing was changed; restart, or take it back", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// Something that it names cannot be used.
    #[error("{0}")]
    Unusable(String),
}

fn lines(problems: &[Diagnostic]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How readings of the configuration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// Something else is in force.
    Applied,
    /// It says what is in force.
    Unchanged,
    /// It is bad.
    Rejected,
    /// It takes a restart.
    NeedsRestart,
}

impl ReloadResult {
    const ALL: [Self; 4] = [Self::Applied, Self::Unchanged, Self::Rejected, Self::NeedsRestart];

    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
            Self::NeedsRestart => "needs_restart",
        }
    }
}

/// Somebody who asks for the configuration to be read again.
#[derive(Debug)]
pub struct Asked {
    /// Who it is, for the audit trail.
    pub actor: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

/// Where readings of the configuration are asked for, and what became of them.
#[derive(Debug)]
pub struct Reloads {
    asks: mpsc::Sender<Asked>,
    results: [AtomicU64; ReloadResult::ALL.len()],
    problem: Mutex<Option<String>>,
}

impl Default for Reloads {
    /// Nobody reads anything.
    fn default() -> Self {
        Self::new().0
    }
}

impl Reloads {
    /// Hands those who ask to the receiver.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (asks, asked) = mpsc::channel(WAITING);
        (Self { asks, results: Default::default(), problem: Mutex::default() }, asked)
    }

    /// Notes how a reading ended.
    pub fn note(&self, ended: &Result<Reloaded, ReloadError>) {
        let result = match ended {
            Ok(reloaded) if reloaded.changed.is_empty() => ReloadResult::Unchanged,
            Ok(_) => ReloadResult::Applied,
            Err(ReloadError::NeedsRestart(_)) => ReloadResult::NeedsRestart,
            Err(ReloadError::Bad(_) | ReloadError::Unusable(_)) => ReloadResult::Rejected,
        };
        if let Some(count) = self.results.get(result as usize) {
            // Relaxed: a count.
            count.fetch_add(1, Ordering::Relaxed);
        }
        let problem = |error: &ReloadError| format!("the configuration was read again in vain: {error}");
        *self.problem.lock() = ended.as_ref().err().map(problem);
    }

    /// Why the configuration that was last read is not in force, if so.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// How many readings ended how.
    pub(crate) fn results(&self) -> Vec<(&'static str, u64)> {
        // Relaxed: counts.
        let count = |(result, count): (ReloadResult, &AtomicU64)| (result.as_str(), count.load(Ordering::Relaxed));
        ReloadResult::ALL.into_iter().zip(&self.results).map(count).collect()
    }
}

pub(crate) async fn reload(
    State(state): Shared,
    Extension(actor): Extension<Actor>,
    body: Bytes,
) -> Result<Response, AdminError> {
    if !body.is_empty() {
        return Err(AdminError::Invalid("a reload takes no body".to_owned()));
    }
    let (answer, answered) = oneshot::channel();
    let gone = |_| ChangeError::Interrupted;
    state.reloads.asks.send(Asked { actor: actor.name, answer }).await.map_err(|_| ChangeError::Interrupted)?;
    Ok(match answered.await.map_err(gone)? {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(error) => refused(&error),
    })
}

fn refused(error: &ReloadError) -> Response {
    let (status, kind, title) = match error {
        ReloadError::Bad(_) | ReloadError::Unusable(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "bad-configuration", "Bad configuration")
        }
        ReloadError::NeedsRestart(_) => (StatusCode::CONFLICT, "needs-restart", "Restart needed"),
    };
    let problem = Problem::new(status.as_u16(), kind, title, error.to_string());
    (status, [(CONTENT_TYPE, Problem::MEDIA_TYPE)], Json(problem)).into_response()
}
