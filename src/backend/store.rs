//! What both implementations offer, and the figures that are kept of it.

mod meter;

use std::collections::HashMap;

use serde::Serialize;

use crate::backend::bank::Difficulty;
use crate::backend::config::{Mode, PoolConfig};
use crate::backend::database_url::DatabaseUrl;
use crate::backend::diesel::SyncStore;
use crate::backend::error::Error;
use crate::backend::role::Role;
use crate::backend::sqlx::AsyncStore;
use crate::clock;

pub(crate) use crate::backend::store::meter::{Meter, Queries};

/// How long a connection waits for `SQLite`'s write lock, which only another process or backend can hold for long.
pub(crate) const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// The question bank in its database, by one of the two implementations.
#[derive(Debug)]
pub(crate) struct Store {
    driver: Driver,
    meter: Meter,
}

#[derive(Debug)]
enum Driver {
    Sync(SyncStore),
    Async(AsyncStore),
}

impl Store {
    /// Opens the pool and sees that a query works.
    pub(crate) async fn open(mode: Mode, url: DatabaseUrl, pool: PoolConfig) -> Result<Self, Error> {
        let driver = match mode {
            Mode::Sync => Driver::Sync(SyncStore::new(&url, pool)),
            Mode::Async => Driver::Async(AsyncStore::new(&url, pool)),
        };
        let store = Self { driver, meter: Meter::default() };
        store.ping().await.map_err(|error| Error::Open { path: url.path().to_owned(), source: Box::new(error) })?;
        Ok(store)
    }

    /// Which implementation this is.
    pub(crate) fn mode(&self) -> Mode {
        match self.driver {
            Driver::Sync(_) => Mode::Sync,
            Driver::Async(_) => Mode::Async,
        }
    }

    /// Picks the questions that suit `wanted` best and raises their usage counts by one, all in one transaction.
    pub(crate) async fn take_questions(&self, wanted: Selection) -> Result<Vec<Question>, StoreError> {
        let begun = clock::now();
        let result = match &self.driver {
            Driver::Sync(store) => store.take_questions(wanted).await,
            Driver::Async(store) => store.take_questions(&wanted).await,
        };
        self.meter.record(clock::now().duration_since(begun), result.is_err());
        result
    }

    /// A trivial query.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let begun = clock::now();
        let result = match &self.driver {
            Driver::Sync(store) => store.ping().await,
            Driver::Async(store) => store.ping().await,
        };
        self.meter.record(clock::now().duration_since(begun), result.is_err());
        result
    }

    /// The pool as it is now.
    pub(crate) fn pool(&self) -> PoolState {
        match &self.driver {
            Driver::Sync(store) => store.pool(),
            Driver::Async(store) => store.pool(),
        }
    }

    /// What was asked of the database so far.
    pub(crate) fn queries(&self) -> Queries {
        self.meter.read()
    }

    /// Waits for the work in flight; afterwards nothing more is accepted.
    pub(crate) async fn close(&self) {
        match &self.driver {
            Driver::Sync(store) => store.close().await,
            Driver::Async(store) => store.close().await,
        }
    }
}

/// Which questions are wanted.
///
/// The role's own questions come first, then general ones fill up. Among each, those that probe the most of `skills`
/// lead, then the least used, then by id, so that the same state always gives the same questions.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) role: Role,
    pub(crate) skills: Vec<&'static str>,
    pub(crate) difficulty: Option<Difficulty>,
    pub(crate) count: u32,
}

impl Selection {
    /// The difficulties that are welcome.
    pub(crate) fn difficulties(&self) -> Vec<&'static str> {
        match self.difficulty {
            Some(one) => vec![one.name()],
            None => Difficulty::ALL.map(Difficulty::name).to_vec(),
        }
    }

    /// The roles whose questions to take, in turn, until there are enough.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        let fill = (self.role != Role::General).then_some(Role::General);
        std::iter::once(self.role).chain(fill)
    }

    /// How many are wanted when `chosen` are there.
    pub(crate) fn missing(&self, chosen: &[String]) -> i64 {
        i64::from(self.count).saturating_sub(i64::try_from(chosen.len()).unwrap_or(i64::MAX))
    }
}

/// A question as it is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Question {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) category: String,
    pub(crate) difficulty: String,
    /// What the question probes, in alphabetical order.
    pub(crate) skills: Vec<String>,
    /// How often it was handed out, this time included.
    pub(crate) usage_count: i64,
}

/// Puts `questions`, which a database returns in any order, into the order of `chosen`, and gives each its skills.
pub(crate) fn assemble(chosen: &[String], questions: Vec<Question>, skills: Vec<(String, String)>) -> Vec<Question> {
    let mut by_id: HashMap<String, Question> =
        questions.into_iter().map(|question| (question.id.clone(), question)).collect();
    for (id, skill) in skills {
        if let Some(question) = by_id.get_mut(&id) {
            question.skills.push(skill);
        }
    }
    let mut ordered: Vec<Question> = chosen.iter().filter_map(|id| by_id.remove(id)).collect();
    for question in &mut ordered {
        // Sorted here rather than by the database, whose collation may be a locale's.
        question.skills.sort_unstable();
    }
    ordered
}

/// A pool's connections at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolState {
    /// Connections that are kept.
    pub(crate) size: u32,
    /// Connections that may be open beyond those.
    pub(crate) max_overflow: u32,
    /// Connections at work.
    pub(crate) checked_out: u32,
    /// Connections that are open and free.
    pub(crate) idle: u32,
    /// Connections open beyond `size`.
    pub(crate) overflow: u32,
}

impl PoolState {
    pub(crate) fn new(config: PoolConfig, open: u32, idle: u32) -> Self {
        Self {
            size: config.size,
            max_overflow: config.max_overflow,
            checked_out: open.saturating_sub(idle),
            idle: idle.min(open),
            overflow: open.saturating_sub(config.size),
        }
    }
}

/// What a driver or a pool said.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No connection became free, or none could be opened, in time.
    #[error("no database connection within the pool's timeout")]
    Unavailable(#[source] Cause),
    /// Somebody else kept the write lock.
    #[error("the database is locked by another writer")]
    Busy(#[source] Cause),
    /// Anything else.
    #[error("the database refused the operation")]
    Database(#[source] Cause),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: &str) -> Question {
        Question {
            id: id.to_owned(),
            text: String::new(),
            category: String::new(),
            difficulty: String::new(),
            skills: Vec::new(),
            usage_count: 1,
        }
    }

    #[test]
    fn questions_come_in_the_chosen_order_with_sorted_skills() {
        let pair = |id: &str, skill: &str| (id.to_owned(), skill.to_owned());
        let found = assemble(
            &["b".to_owned(), "a".to_owned(), "gone".to_owned()],
            vec![question("a"), question("b")],
            vec![pair("a", "Rust"), pair("a", "Go"), pair("b", "SQL"), pair("x", "Go")],
        );
        let found: Vec<(&str, &[String])> = found.iter().map(|q| (q.id.as_str(), q.skills.as_slice())).collect();
        assert_eq!(
            found,
            [("b", ["SQL".to_owned()].as_slice()), ("a", ["Go".to_owned(), "Rust".to_owned()].as_slice()),]
        );
    }

    #[track_caller]
    fn check(open: u32, idle: u32, expected: (u32, u32, u32)) {
        let config = PoolConfig { size: 2, max_overflow: 3, ..PoolConfig::default() };
        let state = PoolState::new(config, open, idle);
        assert_eq!((state.checked_out, state.idle, state.overflow), expected);
    }

    #[test]
    fn a_pools_figures_add_up() {
        check(0, 0, (0, 0, 0));
        check(2, 2, (0, 2, 0));
        check(5, 1, (4, 1, 3));
        // The two figures are read one after the other and may disagree for a moment.
        check(1, 2, (0, 1, 0));
    }
}
