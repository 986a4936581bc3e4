//! Rules: conditions on the request that serve an arm whatever the percentage.
//!
//! They are compiled once, when the file is read: patterns into finite automata, ranges of versions and addresses into
//! numbers. A decision then only looks at borrowed text; it takes no lock and, but for very long pre-release tags of
//! versions, allocates nothing.

mod condition;
mod pattern;
mod text;
mod value;
mod version;

use std::sync::Arc;

use crate::flag::{Arm, EvaluationContext};

pub use crate::flag::rule::condition::{Condition, ConditionTrace, Test};
pub use crate::flag::rule::pattern::{Pattern, PatternError};
pub use crate::flag::rule::text::TextTest;
pub use crate::flag::rule::value::{Attribute, parameter_in, without_port};
pub use crate::flag::rule::version::{Comparison, VersionRange, VersionRangeError, VersionTest};

/// One rule: all of its conditions must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What must hold, all of it.
    pub when: Box<[Condition]>,
    /// Who serves then.
    pub serve: Arm,
    /// The line of the flag file that it begins on, from 1; 0 if it is from no file.
    pub line: usize,
}

impl Rule {
    fn matches(&self, context: &EvaluationContext<'_>) -> bool {
        self.when.iter().all(|condition| condition.holds(context))
    }
}

/// A flag's rules in their order. Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    rules: Arc<[Rule]>,
}

impl Rules {
    /// The first rule that matches.
    #[must_use]
    pub fn first_match(&self, context: &EvaluationContext<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(context))
    }

    /// How each rule was found, up to the first that matches.
    #[must_use]
    pub fn trace(&self, context: &EvaluationContext<'_>) -> Vec<RuleTrace> {
        let mut traces = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let matched = rule.matches(context);
            let conditions = rule.when.iter().map(|condition| condition.trace(context)).collect();
            traces.push(RuleTrace { number: index + 1, line: rule.line, serve: rule.serve, matched, conditions });
            if matched {
                break;
            }
        }
        traces
    }

    /// Every rule, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self { rules: rules.into_iter().collect() }
    }
}

/// How one rule was found.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleTrace {
    /// Its place among the flag's rules, from 1.
    pub number: usize,
    /// The line of the flag file that it begins on.
    pub line: usize,
    /// Who serves if it matches.
    pub serve: Arm,
    /// Whether it does.
    pub matched: bool,
    /// Each of its conditions.
    pub conditions: Vec<ConditionTrace>,
}
