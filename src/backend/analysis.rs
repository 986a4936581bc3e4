//! Scores an answer without any outside service.
//!
//! The score is the sum of three parts, each a pure function of the texts:
//!
//! - **coverage**, up to 50 points: how many of the keywords the answer takes up. Keywords are the words that carry
//!   the question and the skills that the question and the job description name. Nobody names them all in a good
//!   answer, so two thirds of them earn every point.
//! - **structure**, up to 25 points: enough sentences, a length that one can listen to, and words that lead from a
//!   situation through reasons to a result.
//! - **specificity**, up to 25 points: figures, an example, what the speaker did, and technologies by name.
//!
//! An answer that takes up none of the keywords is about something else, and what its form earns is halved.

mod keywords;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::backend::analysis::keywords::{Keyword, keywords, stem, words};
use crate::backend::skill::skills_in;

/// Points for keywords.
const COVERAGE_POINTS: usize = 50;

/// An answer of fewer words leaves the listener with questions.
const SHORT_WORDS: usize = 40;

/// An answer of more words loses the listener: about three minutes of speech.
const LONG_WORDS: usize = 450;

/// Words that lead a listener on, by stem or phrase, in lower case.
const SIGNPOSTS: [&str; 18] = [
    "first",
    "second",
    "then",
    "next",
    "finally",
    "because",
    "therefore",
    "so that",
    "as a result",
    "the result",
    "in the end",
    "trade-off",
    "tradeoff",
    "however",
    "instead",
    "alternative",
    "situation",
    "afterwards",
];

/// Phrases that open an example.
const EXAMPLES: [&str; 9] = [
    "for example",
    "for instance",
    "e.g.",
    "such as",
    "in one case",
    "in my last",
    "at my previous",
    "on one project",
    "once we",
];

/// Phrases in which a speaker says what they themselves did.
const ACTIONS: [&str; 16] = [
    "i built",
    "i chose",
    "i designed",
    "i decided",
    "i led",
    "i measured",
    "i wrote",
    "i fixed",
    "i found",
    "i proposed",
    "i implemented",
    "i moved",
    "i added",
    "i asked",
    "i would",
    "we measured",
];

/// What the analysis of an answer says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Analysis {
    /// From 0 to 100.
    pub(crate) score: usize,
    pub(crate) missing_keywords: Vec<String>,
    pub(crate) matched_keywords: Vec<String>,
    /// What would raise the score, the most valuable first.
    pub(crate) improvements: Vec<String>,
}

impl Analysis {
    /// The analysis as it is stored and shown.
    pub(crate) fn to_json(&self) -> String {
        // Numbers and texts can always be written.
        serde_json::to_string(self).unwrap_or_else(|_| "null".to_owned())
    }
}

/// Analyses `answer` to `question` in view of `job_description`.
pub(crate) fn analyze(job_description: &str, question: &str, answer: &str) -> Analysis {
    let (matched, missing): (Vec<Keyword>, Vec<Keyword>) = {
        let taken_up: HashSet<String> = words(answer).map(|word| stem(&word)).collect();
        let skills = skills_in(answer);
        keywords(job_description, question).into_iter().partition(|keyword| keyword.is_in(&taken_up, &skills))
    };
    let mut improvements = Vec::new();
    let coverage = coverage(matched.len(), &missing, &mut improvements);
    let form = structure(answer, &mut improvements) + specificity(answer, &mut improvements);
    let off_topic = matched.is_empty() && !missing.is_empty();
    Analysis {
        score: coverage + if off_topic { form / 2 } else { form },
        missing_keywords: missing.into_iter().map(Keyword::into_text).collect(),
        matched_keywords: matched.into_iter().map(Keyword::into_text).collect(),
        improvements,
    }
}

fn coverage(matched: usize, missing: &[Keyword], improvements: &mut Vec<String>) -> usize {
    let total = matched.saturating_add(missing.len());
    // Two thirds, rounded up, so that one keyword of one is wanted in full.
    let wanted = total.saturating_mul(2).div_ceil(3);
    if matched < wanted {
        let open: Vec<&str> = missing.iter().take(4).map(Keyword::text).collect();
        improvements.push(format!("Take up what was asked for: {}.", open.join(", ")));
    }
    COVERAGE_POINTS
        .saturating_mul(matched)
        .checked_div(wanted)
        .map_or(COVERAGE_POINTS, |points| points.min(COVERAGE_POINTS))
}

fn structure(answer: &str, improvements: &mut Vec<String>) -> usize {
    let mut points = 0;
    let length = words(answer).count();
    if length < SHORT_WORDS {
        improvements.push(format!("Say more: {length} words leave the listener with questions; aim for 80 to 250."));
        points += length.saturating_mul(8) / SHORT_WORDS;
    } else if length > LONG_WORDS {
        improvements
            .push(format!("Be briefer: {length} words are more than three minutes of speech; aim for 80 to 250."));
        points += 4;
    } else {
        points += 8;
    }

    let sentences = answer.split(['.', '!', '?', '\n']).filter(|sentence| words(sentence).nth(2).is_some()).count();
    if sentences < 3 {
        improvements
            .push("Divide the answer into steps: the situation, what you did and why, and what came of it.".to_owned());
    }
    points += sentences.min(3).saturating_mul(3);

    let signposts = occurring(answer, &SIGNPOSTS);
    if signposts < 2 {
        improvements.push("Lead the listener with words such as first, because, instead and as a result.".to_owned());
    }
    points + signposts.min(2).saturating_mul(4)
}

fn specificity(answer: &str, improvements: &mut Vec<String>) -> usize {
    let mut points = 0;
    if answer.contains(|c: char| c.is_ascii_digit()) {
        points += 8;
    } else {
        improvements.push("Give a figure: how many, how long, how much better it became.".to_owned());
    }
    if occurring(answer, &EXAMPLES) > 0 {
        points += 6;
    } else {
        improvements.push("Give an example from your own work.".to_owned());
    }
    if occurring(answer, &ACTIONS) > 0 {
        points += 5;
    } else {
        improvements.push("Say what you yourself did or would do, and decided.".to_owned());
    }
    let named = skills_in(answer).len();
    if named == 0 {
        improvements.push("Name the tools, techniques and methods that you used.".to_owned());
    }
    points + named.min(2).saturating_mul(3)
}

/// How many of `phrases` occur in `text` as whole words.
fn occurring(text: &str, phrases: &[&str]) -> usize {
    let folded = text.to_lowercase();
    phrases
        .iter()
        .filter(|phrase| {
            folded.match_indices(**phrase).any(|(at, found)| {
                let before = folded.get(..at).and_then(|text| text.chars().next_back());
                let after = folded.get(at.saturating_add(found.len())..).and_then(|text| text.chars().next());
                !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
            })
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "We need Rust and PostgreSQL.";
    const QUESTION: &str = "How would you find a slow database query in production?";
    const GOOD: &str = "First, to find it, I would look at the slow query log in production, because it shows what users \
        really feel. For example, in my last team a dashboard took 12 seconds. I measured it with EXPLAIN ANALYZE in \
        PostgreSQL and found a sequential scan over 40 million rows. Then I added a partial index, and as a result the \
        database answered that query in 30 ms. Our Rust service also got a timeout, so that one slow query cannot hold \
        every connection.";

    #[track_caller]
    fn check(answer: &str, scores: std::ops::RangeInclusive<usize>, missing: &[&str]) {
        let found = analyze(JOB, QUESTION, answer);
        assert!(scores.contains(&found.score), "{} for {answer}: {found:?}", found.score);
        assert_eq!(found.missing_keywords, missing, "{answer}");
    }

    #[test]
    fn better_answers_score_higher() {
        check(GOOD, 95..=100, &[]);
        check(
            "I would use EXPLAIN on the query in the database.",
            20..=55,
            &["Rust", "PostgreSQL", "find", "slow", "production"],
        );
        check("I like turtles.", 0..=10, &["Rust", "PostgreSQL", "find", "slow", "database", "query", "production"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let found = analyze(JOB, QUESTION, "I like turtles.");
        assert_eq!(
            found.improvements.first().map(String::as_str),
            Some("Take up what was asked for: Rust, PostgreSQL, find, slow.")
        );
        assert_eq!(analyze(JOB, QUESTION, GOOD).improvements, [""; 0]);
    }

    #[test]
    fn length_alone_does_not_pay() {
        let chatter = "word ".repeat(2_000);
        check(&chatter, 0..=10, &["Rust", "PostgreSQL", "find", "slow", "database", "query", "production"]);
    }

    #[test]
    fn the_score_stays_within_bounds() {
        for (job, question, answer) in
            [("x", "x", "x"), ("?", "?", "?"), ("—", "日本語", "日本語。İ"), (JOB, GOOD, GOOD)]
        {
            let found = analyze(job, question, answer);
            assert!(found.score <= 100, "{found:?}");
        }
    }

    #[test]
    fn phrases_count_as_whole_words() {
        assert_eq!(occurring("thirst", &["first"]), 0);
        assert_eq!(occurring("First, then", &["first", "then", "next"]), 2);
    }
}
