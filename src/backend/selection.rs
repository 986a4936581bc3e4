//! What both implementations are asked for and give: questions, the state of a pool, and what can go wrong.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::backend::bank::Difficulty;
use crate::backend::config::PoolConfig;
use crate::backend::role::Role;

/// How long a connection waits for `SQLite`'s write lock, which only another process or backend can hold for long.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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
