//! Which questions a role and a description get.

use std::collections::HashMap;

use serde::Serialize;

use crate::backend::bank::Difficulty;
use crate::backend::role::Role;

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

impl From<(String, String, String, String, i64)> for Question {
    /// From a row: id, text, category, difficulty, usage count.
    fn from((id, text, category, difficulty, usage_count): (String, String, String, String, i64)) -> Self {
        Self { id, text, category, difficulty, skills: Vec::new(), usage_count }
    }
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
}
