//! Regular expressions, compiled whole when the file is read.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use regex_automata::dfa::Automaton as _;
use regex_automata::dfa::dense::{BuildError, Config, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

/// The longest pattern, in bytes. One that is longer is a list, which `in` says better.
const MAX_PATTERN_BYTES: usize = 1000;

/// What one compiled pattern takes at most, in bytes: room for several Unicode classes, not for a pattern that grows
/// exponentially (`(a|b)*a(a|b){20}`).
const MAX_COMPILED_BYTES: usize = 2 * 1024 * 1024;

/// A regular expression in the syntax of the `regex` crate.
///
/// It is that crate's own engine, as a complete finite automaton instead of one that is built while it searches: a search
/// is one table look-up for each byte, with no cache to lock or to fill, so it takes linear time and never allocates.
/// The price is that it is compiled at load, and refused there if it grows too large.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    automaton: Arc<DFA<Vec<u32>>>,
}

/// Why a text is no [`Pattern`].
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// It is too long.
    #[error("a pattern has at most {MAX_PATTERN_BYTES} bytes; for a list of texts write `in`")]
    TooLong,
    /// It is none, or compiles to too much.
    #[error("{0}")]
    Refused(String),
}

impl Pattern {
    /// Whether the pattern is found anywhere in `text`.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        let automaton = &*self.automaton;
        let Ok(mut state) = automaton.start_state(&start::Config::new().anchored(Anchored::No)) else { return false };
        for byte in text.bytes() {
            state = automaton.next_state(state, byte);
            if automaton.is_special_state(state) {
                if automaton.is_match_state(state) {
                    return true;
                }
                if automaton.is_dead_state(state) || automaton.is_quit_state(state) {
                    return false;
                }
            }
        }
        // Matches are told one step late, so that the end of the text can be part of one.
        automaton.is_match_state(automaton.next_eoi_state(state))
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        let config = Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .dfa_size_limit(Some(MAX_COMPILED_BYTES))
            .determinize_size_limit(Some(4 * MAX_COMPILED_BYTES));
        let automaton = DFA::builder()
            .configure(config)
            .thompson(thompson::Config::new().nfa_size_limit(Some(MAX_COMPILED_BYTES)))
            .build(text)
            .map_err(|error| PatternError::Refused(refusal(&error)))?;
        Ok(Self { text: text.into(), automaton: Arc::new(automaton) })
    }
}

/// The innermost message says what is wrong; the outer ones only say that something is. Over several lines it draws the
/// pattern, which the place in the file shows already.
fn refusal(error: &BuildError) -> String {
    if error.is_size_limit_exceeded() {
        return "it compiles to too much; make it simpler, or write `prefix`, `suffix` or `contains`".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    if text.contains("Unicode word boundaries") {
        return "it asks where a word of any script ends, which takes too much; for words of ASCII write `(?-u:\\b)`"
            .to_owned();
    }
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, found: bool) {
        assert_eq!(pattern.parse::<Pattern>().unwrap().is_match(text), found, "{pattern:?} in {text:?}");
    }

    #[test]
    fn patterns_are_found_anywhere_unless_they_say_where() {
        check("b+", "abbc", true);
        check("^b+", "abbc", false);
        check("^ab+c$", "abbc", true);
        check("^ab+$", "abbc", false);
        check("", "", true);
        check("^$", "", true);
        check("^$", "a", false);
        check("(?i)ÄB", "xäbx", true);
        check(r"^\w+@example\.com$", "jörg@example.com", true);
        check(r"(?-u:\b)beta(?-u:\b)", "a beta b", true);
        check(r"(?-u:\b)beta(?-u:\b)", "alphabeta", false);
        check("a|ab", "ab", true);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let refused = |pattern: &str| pattern.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(refused("a(b"), "unclosed group");
        assert_eq!(refused(r"(a)\1"), "backreferences are not supported");
        assert!(refused(r"\bbeta\b").ends_with(r"for words of ASCII write `(?-u:\b)`"));
        assert!(refused("(a|b)*a(a|b){20}").starts_with("it compiles to too much"));
        assert!(refused(&"a".repeat(1001)).starts_with("a pattern has at most 1000 bytes"));
    }
}
