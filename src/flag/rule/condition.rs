//! Conditions: what a rule asks of a request.

use std::fmt;

use ipnet::IpNet;

use crate::flag::rule::text::TextTest;
use crate::flag::rule::value::Attribute;
use crate::flag::{Bucketer, EvaluationContext, Moment, Percentage};

/// One condition of a rule.
///
/// What is missing makes a condition false, and never an error. [`Test::Not`] of a condition that is false is true, also
/// if it is false because something is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is asked.
    pub test: Test,
    /// The line of the flag file that asks it, from 1; 0 if it is from no file.
    pub line: usize,
}

/// What a condition asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// All of these hold.
    All(Box<[Condition]>),
    /// One of these holds.
    Any(Box<[Condition]>),
    /// This does not hold.
    Not(Box<Condition>),
    /// An attribute's text is like this.
    Text(Attribute, TextTest),
    /// The client's address is in one of these networks.
    Client(Box<[IpNet]>),
    /// The targeting key's bucket is in this share.
    Percentage(Percentage, Bucketer),
    /// The request came at this moment or later.
    After(Moment),
    /// The request came before this moment.
    Before(Moment),
}

/// How one condition was found.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionTrace {
    /// The condition in words.
    pub condition: String,
    /// The line of the flag file that asks it.
    pub line: usize,
    /// What it was held against; `None` if it is missing, or if there is no single value.
    pub value: Option<String>,
    /// Whether it holds.
    pub held: bool,
    /// The conditions that it is made of.
    pub parts: Vec<ConditionTrace>,
}

impl Condition {
    /// Whether the condition holds for this request.
    #[must_use]
    pub fn holds(&self, context: &EvaluationContext<'_>) -> bool {
        match &self.test {
            Test::All(parts) => parts.iter().all(|part| part.holds(context)),
            Test::Any(parts) => parts.iter().any(|part| part.holds(context)),
            Test::Not(part) => !part.holds(context),
            Test::Text(attribute, test) => attribute.with_value(context, |value| test.holds(value)),
            Test::Client(networks) => {
                let client = context.attributes.client();
                client.is_some_and(|client| networks.iter().any(|network| network.contains(&client)))
            }
            Test::Percentage(percentage, bucketer) => {
                context.targeting_key.is_some_and(|key| percentage.owns(bucketer.bucket(key)))
            }
            Test::After(moment) => context.now >= *moment,
            Test::Before(moment) => context.now < *moment,
        }
    }

    /// How the condition, and each that it is made of, was found.
    #[must_use]
    pub fn trace(&self, context: &EvaluationContext<'_>) -> ConditionTrace {
        let parts = match &self.test {
            Test::All(parts) | Test::Any(parts) => parts.iter().map(|part| part.trace(context)).collect(),
            Test::Not(part) => vec![part.trace(context)],
            Test::Text(..) | Test::Client(_) | Test::Percentage(..) | Test::After(_) | Test::Before(_) => Vec::new(),
        };
        let held = self.holds(context);
        ConditionTrace {
            condition: self.test.to_string(),
            line: self.line,
            value: self.test.value(context),
            held,
            parts,
        }
    }
}

impl Test {
    /// What this was held against, if that is one thing and it is there. A moment is in milliseconds of Unix time.
    fn value(&self, context: &EvaluationContext<'_>) -> Option<String> {
        match self {
            Self::All(_) | Self::Any(_) | Self::Not(_) => None,
            Self::Text(attribute, _) => attribute.with_value(context, |value| value.map(str::to_owned)),
            Self::Client(_) => context.attributes.client().map(|client| client.to_string()),
            Self::Percentage(_, bucketer) => {
                context.targeting_key.map(|key| format!("bucket {}", bucketer.bucket(key).get()))
            }
            Self::After(_) | Self::Before(_) => Some(context.now.to_string()),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) => f.write_str("all of"),
            Self::Any(_) => f.write_str("one of"),
            Self::Not(_) => f.write_str("not"),
            Self::Text(attribute, test) => write!(f, "{attribute} {test}"),
            Self::Client(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                write!(f, "client in {}", networks.join(", "))
            }
            Self::Percentage(percentage, _) => write!(f, "in the first {percentage} of users"),
            Self::After(moment) => write!(f, "not before {moment}"),
            Self::Before(moment) => write!(f, "before {moment}"),
        }
    }
}
