//! The question bank that every database is seeded with.

use serde::Deserialize;

use crate::backend::error::Error;
use crate::backend::role::Role;

/// How hard a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Difficulty {
    Easy,
    Medium,
    Hard,
}

impl Difficulty {
    /// Every difficulty, the easiest first.
    pub(crate) const ALL: [Self; 3] = [Self::Easy, Self::Medium, Self::Hard];

    /// 1 for easy to 3 for hard.
    pub(crate) const fn rank(self) -> i64 {
        match self {
            Self::Easy => 1,
            Self::Medium => 2,
            Self::Hard => 3,
        }
    }

    /// The name in the database and in answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
        }
    }
}

/// What kind of question it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Category {
    Technical,
    SystemDesign,
    ProblemSolving,
    Behavioral,
}

impl Category {
    /// Every category.
    pub(crate) const ALL: [Self; 4] = [Self::Technical, Self::SystemDesign, Self::ProblemSolving, Self::Behavioral];

    /// The name in the database and in answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Technical => "technical",
            Self::SystemDesign => "system-design",
            Self::ProblemSolving => "problem-solving",
            Self::Behavioral => "behavioral",
        }
    }
}

/// A question of the bank.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BankQuestion {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) category: Category,
    pub(crate) difficulty: Difficulty,
    pub(crate) roles: Vec<Role>,
    pub(crate) skills: Vec<String>,
}

impl BankQuestion {
    /// Discrimination and location, until answers have calibrated them.
    pub(crate) fn starting_values(&self) -> (f64, f64) {
        starting_values(self.category, self.difficulty)
    }
}

/// Discrimination and location of a question that nobody has calibrated.
///
/// Locations lie one standard deviation of ability apart. Technical questions have clearer right answers than
/// behavioural ones, so they are taken to tell abilities apart more sharply. The migration gives the same.
pub(crate) fn starting_values(category: Category, difficulty: Difficulty) -> (f64, f64) {
    let discrimination = match category {
        Category::Technical => 1.4,
        Category::ProblemSolving => 1.2,
        Category::SystemDesign => 1.0,
        Category::Behavioral => 0.8,
    };
    let location = match difficulty {
        Difficulty::Easy => -1.0,
        Difficulty::Medium => 0.0,
        Difficulty::Hard => 1.0,
    };
    (discrimination, location)
}

/// Reads the bank.
pub(crate) fn questions() -> Result<Vec<BankQuestion>, Error> {
    serde_json::from_str(include_str!("bank/questions.json")).map_err(Error::Bank)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::backend::skill::CATALOGUE;

    #[test]
    fn the_bank_is_sound() {
        let bank = questions().unwrap();
        assert!(bank.len() >= 72, "{} questions", bank.len());
        let mut ids = BTreeSet::new();
        let mut texts = BTreeSet::new();
        for question in &bank {
            let id = question.id.as_str();
            assert!(ids.insert(id), "{id} twice");
            assert!(texts.insert(question.text.to_lowercase()), "{id}: text twice");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{id}");
            assert!((40..=500).contains(&question.text.len()), "{id}");
            assert!(question.text.ends_with(['?', '.']), "{id}");
            assert!(!question.roles.is_empty(), "{id}: no role");
            assert!(!question.skills.is_empty(), "{id}: no skill");
            for skill in &question.skills {
                assert!(CATALOGUE.iter().any(|known| known.name == skill), "{id}: unknown skill {skill}");
            }
            let roles: BTreeSet<_> = question.roles.iter().collect();
            let skills: BTreeSet<_> = question.skills.iter().collect();
            assert_eq!(roles.len(), question.roles.len(), "{id}: role twice");
            assert_eq!(skills.len(), question.skills.len(), "{id}: skill twice");
        }
    }

    #[test]
    fn every_role_is_well_served() {
        let bank = questions().unwrap();
        let mut categories = BTreeMap::new();
        for question in &bank {
            *categories.entry(question.category.name()).or_insert(0) += 1;
        }
        assert!(categories.len() == 4 && categories.values().all(|n| *n >= 10), "{categories:?}");
        for role in Role::ALL {
            let own = bank.iter().filter(|q| q.roles.contains(&role)).count();
            assert!(own >= 7, "{role:?} has only {own} questions of its own");
            let suits = |q: &&BankQuestion| q.roles.contains(&role) || q.roles.contains(&Role::General);
            for difficulty in Difficulty::ALL {
                let of_it = bank.iter().filter(suits).filter(|q| q.difficulty == difficulty).count();
                assert!(of_it >= 5, "{role:?} {difficulty:?}: only {of_it}");
            }
            if role != Role::General {
                assert!(bank.iter().filter(suits).count() >= 20, "{role:?}");
            }
        }
    }
}
