//! The skills that the question bank knows, and how to find them in prose.

mod catalogue;

use std::collections::HashMap;

pub(crate) use crate::backend::skill::catalogue::CATALOGUE;

/// Words after which a lower-case `go` or `react` is a technology rather than a verb.
const LEAD_INS: [&str; 6] = ["in", "with", "using", "know", "via", "of"];

/// The skills that `text` names, in the order in which it first names them.
///
/// A name counts only as whole words: `Go` is not in `going`, `Java` not in `JavaScript`, `C#` is. A name that is
/// also an English word counts where it is capitalised, stands in a list, or follows a word such as `with`.
pub(crate) fn skills_in(text: &str) -> Vec<&'static str> {
    // ASCII case folding keeps every offset, so the original spelling can be looked at where a match begins.
    let folded = text.to_ascii_lowercase();
    let by_first_byte = spellings_by_first_byte();
    let mut found: Vec<&'static str> = Vec::new();
    for (at, first) in folded.bytes().enumerate() {
        let Some(candidates) = by_first_byte.get(&first) else {
            continue;
        };
        // Spellings begin with ASCII, so a match of the first byte is at the boundary of a character.
        let (Some(before), Some(rest)) = (folded.get(..at), folded.get(at..)) else {
            continue;
        };
        if !opens(before) {
            continue;
        }
        for candidate in candidates {
            let names = rest.strip_prefix(candidate.text).is_some_and(|after| {
                closes(after) && (!candidate.is_word || is_capitalised(text, at) || is_used_as_name(before, after))
            });
            if names && !found.contains(&candidate.skill) {
                found.push(candidate.skill);
            }
        }
    }
    found
}

/// Every spelling of the skill of this name.
pub(crate) fn spellings(skill: &str) -> impl Iterator<Item = &'static str> {
    CATALOGUE
        .iter()
        .filter(move |known| known.name == skill)
        .flat_map(|known| known.aliases.iter().chain(known.words))
        .copied()
}

/// A way to write a skill.
#[derive(Debug)]
struct Spelling {
    text: &'static str,
    skill: &'static str,
    /// Whether it is an English word as well.
    is_word: bool,
}

/// Lets one pass over a text look at few spellings at each place, however long the catalogue grows.
fn spellings_by_first_byte() -> HashMap<u8, Vec<Spelling>> {
    let mut by_first_byte: HashMap<u8, Vec<Spelling>> = HashMap::new();
    for known in CATALOGUE {
        let aliases = known.aliases.iter().map(|text| (*text, false));
        let words = known.words.iter().map(|text| (*text, true));
        for (text, is_word) in aliases.chain(words) {
            if let Some(first) = text.bytes().next() {
                by_first_byte.entry(first).or_default().push(Spelling { text, skill: known.name, is_word });
            }
        }
    }
    by_first_byte
}

/// Whether a name may begin after `before`: not inside a word, nor after the dot of `Node.js`.
fn opens(before: &str) -> bool {
    let mut back = before.chars().rev();
    match back.next() {
        None => true,
        Some('.') => !back.next().is_some_and(char::is_alphanumeric),
        Some(last) => !(last.is_alphanumeric() || matches!(last, '_' | '@')),
    }
}

/// Whether a name may end before `after`: not inside a word, nor before the `+` or `#` that makes it another language.
fn closes(after: &str) -> bool {
    !after.starts_with(|next: char| next.is_alphanumeric() || matches!(next, '+' | '#' | '_'))
}

/// Whether what stands at `at` begins with a capital.
fn is_capitalised(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// Whether an English word between `before` and `after` is the name of a technology: in a list, or led in.
fn is_used_as_name(before: &str, after: &str) -> bool {
    const SEPARATORS: [char; 5] = [',', '/', ';', '&', '|'];
    let (before, after) = (before.trim_end(), after.trim_start());
    let last = before.rsplit(|c: char| !c.is_alphanumeric()).next();
    after.starts_with(SEPARATORS)
        || after.starts_with(')')
        || before.ends_with(SEPARATORS)
        || before.ends_with([':', '(', '•'])
        || last.is_some_and(|last| LEAD_INS.contains(&last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(skills_in(text), expected, "{text}");
    }

    #[test]
    fn names_count_as_whole_words_only() {
        check("Go", &["Go"]);
        check("We are going to ship", &[]);
        check("Golang and Rust", &["Go", "Rust"]);
        check("JavaScript, not Java", &["JavaScript", "Java"]);
        check("JavaScript only", &["JavaScript"]);
        check("C++ and C#.", &["C++", "C#"]);
        check(".NET or ASP.NET Core", &[".NET"]);
        check("internet", &[]);
        check("trusted robust trust", &[]);
        check("Node.js", &["Node.js"]);
        check("CI/CD", &["CI/CD"]);
        check("sqlserver NoSQL", &[]);
        check("gRPC, REST APIs", &["gRPC", "REST", "API Design"]);
    }

    #[test]
    fn other_spellings_count_once() {
        check("Postgres/PostgreSQL", &["PostgreSQL"]);
        check("k8s (Kubernetes)", &["Kubernetes"]);
        check("Rust, PostgreSQL, async services", &["Rust", "PostgreSQL", "Concurrency"]);
        check("React.js", &["React"]);
    }

    #[test]
    fn english_words_count_where_they_are_names() {
        check("go, rust and python", &["Go", "Rust", "Python"]);
        check("services written in go", &["Go"]);
        check("experience with react and redux", &["React", "State Management"]);
        check("languages: python, swift", &["Python", "Swift"]);
        check("let us go home and react quickly to the rest", &[]);
        check("spark joy", &[]);
        check("Apache Spark", &["Spark"]);
        check("go", &[]);
    }

    #[test]
    fn the_order_is_that_of_the_text() {
        check("Kafka, then Redis, then Kafka", &["Kafka", "Redis"]);
        check("Redis before Kafka", &["Redis", "Kafka"]);
    }

    #[test]
    fn any_text_is_safe() {
        check("", &[]);
        check("naïve Straße — Rust™ 日本語 Go。", &["Rust", "Go"]);
        check("İstanbul Go", &["Go"]);
    }

    #[test]
    fn the_catalogue_is_sound() {
        for (at, skill) in CATALOGUE.iter().enumerate() {
            assert!(!skill.aliases.is_empty() || !skill.words.is_empty(), "{}", skill.name);
            for name in skill.aliases.iter().chain(skill.words) {
                assert_eq!(*name, name.to_ascii_lowercase(), "{}", skill.name);
            }
            assert!(skills_in(skill.name).contains(&skill.name), "{} does not name itself", skill.name);
            assert!(!CATALOGUE[..at].iter().any(|other| other.name == skill.name), "{} twice", skill.name);
        }
    }
}
