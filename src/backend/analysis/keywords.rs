//! The keywords that an answer is expected to take up.

use std::collections::HashSet;

use crate::backend::skill::{skills_in, spellings};

/// The most words that are taken from one question, so that a long question does not bury its subject.
const MAX_WORDS: usize = 10;

/// The most skills that are taken from a job description: one answer is about some of them.
const MAX_SKILLS: usize = 8;

/// Words of questions that carry no subject.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "about", "after", "also", "and", "any", "are", "ask", "asked", "before", "between", "both", "can", "could",
    "describe", "did", "different", "does", "each", "ever", "every", "example", "explain", "for", "from", "give",
    "given", "had", "has", "have", "how", "into", "its", "just", "like", "made", "make", "many", "might", "more",
    "most", "much", "must", "need", "not", "now", "one", "only", "other", "our", "out", "over", "own", "same",
    "say", "see", "should", "some", "such", "take", "talk", "tell", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "those", "through", "time", "two", "under", "use", "used", "using", "walk",
    "want", "was", "way", "well", "were", "what", "when", "where", "which", "while", "who", "why", "will", "with",
    "would", "you", "your", "yourself",
];

/// Something that an answer is expected to take up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// A skill of the catalogue, in any of its spellings.
    Skill(&'static str),
    /// A word of the question, in any of its forms.
    Word { text: String, stem: String },
}

impl Keyword {
    /// The keyword as it is shown.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Skill(name) => name,
            Self::Word { text, .. } => text,
        }
    }

    /// The keyword as it is shown.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Skill(name) => name.to_owned(),
            Self::Word { text, .. } => text,
        }
    }

    /// Whether an answer with these stems and skills takes the keyword up.
    pub(crate) fn is_in(&self, stems: &HashSet<String>, skills: &[&str]) -> bool {
        match self {
            Self::Skill(name) => skills.contains(name),
            Self::Word { stem, .. } => stems.contains(stem),
        }
    }
}

/// The skills that the question and the job description name, then the words that carry the question.
pub(crate) fn keywords(job_description: &str, question: &str) -> Vec<Keyword> {
    let mut skills = skills_in(question);
    for skill in skills_in(job_description).into_iter().take(MAX_SKILLS) {
        if !skills.contains(&skill) {
            skills.push(skill);
        }
    }
    // A word that belongs to a skill's name is expected as that skill, in whatever spelling.
    let covered: HashSet<String> = skills.iter().flat_map(|skill| spellings(skill)).flat_map(words).collect();
    let mut seen = HashSet::new();
    let carrying: Vec<Keyword> = words(question)
        .filter(|word| word.chars().nth(2).is_some() && !STOP_WORDS.contains(&word.as_str()))
        .filter(|word| !covered.contains(word))
        .map(|text| Keyword::Word { stem: stem(&text), text })
        .filter(|keyword| match keyword {
            Keyword::Word { stem, .. } => seen.insert(stem.clone()),
            Keyword::Skill(_) => true,
        })
        .take(MAX_WORDS)
        .collect();
    skills.into_iter().map(Keyword::Skill).chain(carrying).collect()
}

/// The words of a text in lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !(c.is_alphanumeric() || c == '\''))
        .map(|word| word.trim_matches('\'').to_lowercase())
        .filter(|word| !word.is_empty())
}

/// The part of an English word that its common forms share: `indexes`, `indexed` and `indexing` all give `index`.
///
/// It is cruder than Porter's algorithm and need only treat both sides alike.
pub(crate) fn stem(word: &str) -> String {
    let mut stem = word;
    for ending in ["ing", "ies", "ed", "es", "s", "y", "e"] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.chars().nth(2).is_some()
            && !(ending == "s" && rest.ends_with('s'))
        {
            stem = rest;
            break;
        }
    }
    // `queries` and `query` both give `quer`; `planning` and `plan` both give `plan`.
    let mut back = stem.chars().rev();
    match (back.next(), back.next(), back.next(), back.next()) {
        (Some(last), Some(other), Some(_), Some(_)) if last == other && last.is_ascii_alphabetic() => {
            stem.strip_suffix(last).unwrap_or(stem).to_owned()
        }
        _ => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(forms: &[&str]) {
        let stems: HashSet<String> = forms.iter().map(|form| stem(form)).collect();
        assert_eq!(stems.len(), 1, "{forms:?}: {stems:?}");
    }

    #[test]
    fn forms_of_a_word_share_a_stem() {
        check(&["index", "indexes", "indexed", "indexing"]);
        check(&["query", "queries"]);
        check(&["cache", "caches", "cached", "caching"]);
        check(&["plan", "plans", "planned", "planning"]);
        check(&["process", "processes"]);
        assert_ne!(stem("stress"), stem("string"));
        assert_eq!(stem("bus"), "bus");
    }

    #[test]
    fn keywords_are_skills_and_carrying_words() {
        let found = keywords("Postgres and Kafka", "How would you index a PostgreSQL table, and why index it?");
        let found: Vec<&str> = found.iter().map(Keyword::text).collect();
        assert_eq!(found, ["PostgreSQL", "Kafka", "index", "table"]);
    }

    #[test]
    fn a_question_may_carry_nothing() {
        assert_eq!(keywords("x", "Why?"), []);
    }
}
