//! A decision and how it came about, here and as flagd would have it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A decision and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The flag's key.
    pub flag: String,
    /// The targeting key that was asked about.
    pub user: Option<String>,
    /// The backend that serves this user.
    pub variant: String,
    /// `stable` or `canary`.
    pub arm: String,
    /// Why: `BETA`, `RULE`, `PERCENTAGE`, `DISABLED`, `ROLLED_BACK` or `NO_KEY`.
    pub reason: String,
    /// The user's place in [0, 100 000).
    pub bucket: Option<u32>,
    /// The percentage in force.
    pub percentage: f64,
    /// The rollout's phase.
    pub phase: String,
    /// What is being rolled out.
    pub release: String,
    /// The generation that this holds for.
    pub generation: u64,
    /// Whether no server of the canary can be used, so that stable serves whoever is on it.
    #[serde(default)]
    pub canary_unavailable: bool,
    /// Each layer that was asked, in order, up to the one that decided.
    pub steps: Vec<ExplanationStep>,
    /// Each rule that was asked, up to the first that matches.
    pub rules: Vec<RuleFinding>,
    /// The moment that it was decided for, in RFC 3339.
    pub at: String,
}

/// What one layer of a decision said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplanationStep {
    /// `enabled`, `rollback`, `beta`, `rules` or `percentage`.
    pub layer: String,
    /// Whether this layer decided.
    pub decided: bool,
    /// What it found, in words.
    pub detail: String,
    /// The file that says so, if one does.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<usize>,
}

/// What was found of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleFinding {
    /// Its place among the flag's rules, from 1.
    pub rule: usize,
    /// The line of the flag file that it begins on.
    pub line: usize,
    /// The arm that serves if it matches.
    pub serve: String,
    /// Whether it matches: all of its conditions hold.
    pub matched: bool,
    /// Each of its conditions.
    pub conditions: Vec<ConditionFinding>,
}

/// What was found of one condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConditionFinding {
    /// The condition in words.
    pub condition: String,
    /// The line of the flag file that asks it.
    pub line: usize,
    /// What it was held against; `null` if that is missing, or if it is made of other conditions.
    pub value: Option<String>,
    /// Whether it holds.
    pub held: bool,
    /// The conditions that it is made of.
    #[schema(no_recursion)]
    pub parts: Vec<ConditionFinding>,
}

/// Flags as flagd has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlagdExport {
    /// The document that flagd reads.
    #[schema(value_type = Object)]
    pub flagd: serde_json::Value,
    /// What could not be said in it.
    pub not_exported: Vec<NotExported>,
}

/// What flagd cannot be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotExported {
    /// The flag.
    pub flag: String,
    /// The rule that is left out, from 1; without it, the whole flag is.
    pub rule: Option<usize>,
    /// The line of the flag file that the rule begins on.
    pub line: Option<usize>,
    /// Why.
    pub why: String,
}
