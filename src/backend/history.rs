//! The sessions of a user, the newest first, page by page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::backend::problem::FieldError;
use crate::backend::session::view::Summary;
use crate::backend::session::{ABANDONED, ACTIVE, COMPLETED, Session};

/// The most sessions of a page.
const MAX_LIMIT: u32 = 100;

/// Sessions of a page that names no number.
const DEFAULT_LIMIT: u32 = 20;

/// A checked query of `GET /api/v1/sessions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) user: String,
    pub(crate) status: Option<String>,
    pub(crate) limit: u32,
    /// Only sessions that began before this one: its start and id.
    pub(crate) before: Option<(i64, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cursor(i64, String);

impl History {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    ///
    /// Every parameter that is wrong.
    pub(crate) fn read(user: String, parameters: &[(String, String)]) -> Result<Self, Vec<FieldError>> {
        let mut history = Self { user, status: None, limit: DEFAULT_LIMIT, before: None };
        let mut errors = Vec::new();
        for (name, value) in parameters {
            let refused = match name.as_str() {
                "status" if [ACTIVE, COMPLETED, ABANDONED].contains(&value.as_str()) => {
                    history.status = Some(value.clone());
                    Ok(())
                }
                "status" => Err(format!("must be one of {ACTIVE}, {COMPLETED}, {ABANDONED}")),
                "limit" => match value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)) {
                    Some(limit) => {
                        history.limit = limit;
                        Ok(())
                    }
                    None => Err(format!("must be an integer from 1 to {MAX_LIMIT}")),
                },
                "cursor" => match place(value) {
                    Some(place) => {
                        history.before = Some(place);
                        Ok(())
                    }
                    None => Err("is not one that a page ended with".to_owned()),
                },
                _ => Err("is not a known parameter".to_owned()),
            };
            if let Err(message) = refused {
                errors.push(FieldError { field: name.clone(), message });
            }
        }
        if errors.is_empty() { Ok(history) } else { Err(errors) }
    }
}

fn place(cursor: &str) -> Option<(i64, String)> {
    let Cursor(started, id) = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    (!id.contains('\0')).then_some((started, id))
}

/// A page of the history.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryPage {
    sessions: Vec<Summary>,
    /// Goes on after this page, with the same `status`; `null` at the end.
    next: Option<String>,
}

impl HistoryPage {
    /// Of sessions one more of which was asked for than there is room.
    pub(crate) fn new(history: &History, mut sessions: Vec<Session>) -> Self {
        let limit = usize::try_from(history.limit).unwrap_or(usize::MAX);
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        let next = sessions.last().filter(|_| more).map(|last| {
            let cursor = Cursor(last.started_at, last.id.clone());
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
        });
        Self { sessions: sessions.iter().map(Summary::from).collect(), next }
    }
}
