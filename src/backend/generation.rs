//! Makes up questions without any outside service.
//!
//! A question is a pattern about a skill. The skills are those that the job description names, then those that the bank's
//! questions for the role probe most; the patterns are taken in turn, so that kinds and difficulties mix. The same input
//! always gives the same questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::bank::{self, Category, Difficulty};
use crate::backend::role::Role;
use crate::backend::skill::skills_in;

/// Patterns, with the place of the skill as `{}`.
const PATTERNS: [(&str, Category, Difficulty); 8] = [
    ("What is {} for, and when would you not use it?", Category::Technical, Difficulty::Easy),
    (
        "Tell me about something you built with {}. What would you do otherwise today?",
        Category::Behavioral,
        Difficulty::Easy,
    ),
    (
        "A change to a system that relies on {} made it slower. How do you find out why?",
        Category::ProblemSolving,
        Difficulty::Medium,
    ),
    (
        "Which mistake with {} have you seen most often, and how do you keep a team from making it?",
        Category::Behavioral,
        Difficulty::Medium,
    ),
    ("How do you test a part of a system that depends on {}?", Category::Technical, Difficulty::Medium),
    (
        "Design a service around {} that has to go on working while one of its parts fails.",
        Category::SystemDesign,
        Difficulty::Hard,
    ),
    (
        "How does {} behave at ten times the load that it was planned for, and what gives way first?",
        Category::SystemDesign,
        Difficulty::Hard,
    ),
    (
        "Two parts of a system disagree about data that came through {}. How do you find which one is right?",
        Category::ProblemSolving,
        Difficulty::Hard,
    ),
];

/// A question that was made up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generated {
    text: String,
    category: String,
    difficulty: String,
    skills: Vec<String>,
}

/// Makes up `count` questions, all different, or as many as there are.
pub(crate) fn generate(role: Role, job_description: &str, count: u32) -> Vec<Generated> {
    let skills = skills(role, job_description);
    let mut questions = Vec::new();
    for round in 0..PATTERNS.len() {
        for (number, skill) in skills.iter().enumerate() {
            let Some((pattern, category, difficulty)) = PATTERNS.get((round + number) % PATTERNS.len()) else {
                continue;
            };
            questions.push(Generated {
                text: pattern.replace("{}", skill),
                category: category.name().to_owned(),
                difficulty: difficulty.name().to_owned(),
                skills: vec![skill.clone()],
            });
        }
    }
    questions.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    questions
}

/// The skills that the description names, then those that the role's questions probe most.
fn skills(role: Role, job_description: &str) -> Vec<String> {
    let mut skills: Vec<String> = skills_in(job_description).into_iter().map(str::to_owned).collect();
    let mut probed: BTreeMap<String, u32> = BTreeMap::new();
    // The bank is part of the program, and a test reads it.
    for question in bank::questions().unwrap_or_default().into_iter().filter(|question| question.roles.contains(&role))
    {
        for skill in question.skills {
            *probed.entry(skill).or_default() += 1;
        }
    }
    let mut probed: Vec<(String, u32)> = probed.into_iter().collect();
    probed.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    for (skill, _) in probed {
        if !skills.contains(&skill) {
            skills.push(skill);
        }
    }
    skills
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn questions_are_about_what_the_job_names_first() {
        let made = generate(Role::Backend, "Rust and Kafka", 5);
        let skills: Vec<&str> = made.iter().flat_map(|question| &question.skills).map(String::as_str).collect();
        assert_eq!((made.len(), skills.first(), skills.get(1)), (5, Some(&"Rust"), Some(&"Kafka")));
        assert_eq!(made, generate(Role::Backend, "Rust and Kafka", 5));
    }

    #[test]
    fn every_role_gets_twenty_different_ones() {
        for role in Role::ALL {
            let made = generate(role, "", 20);
            let texts: BTreeSet<&str> = made.iter().map(|question| question.text.as_str()).collect();
            assert_eq!(texts.len(), 20, "{role:?}");
            assert!(made.iter().map(|question| &question.category).collect::<BTreeSet<_>>().len() >= 3, "{role:?}");
        }
    }
}
