//! A flag, the rollout it is in, and the decision that follows from both.
//!
//! Everything here is pure: no I/O, no clock, no serde. The file is read elsewhere and becomes a [`Flag`] once, at load;
//! [`evaluate()`] then decides without allocating.
#![warn(clippy::wildcard_enum_match_arm)]

mod beta;
mod bucket;
mod context;
mod evaluate;
mod name;
mod percentage;
mod ramp;
mod rollout;
mod rule;
mod set;
mod shadow;
mod version;

pub use beta::{
    BetaChange, BetaChangeKind, BetaChanged, BetaChanges, BetaList, KeyLines, Listing, TooLarge, TooManyChanges,
};
pub use bucket::{BUCKETS, Bucket, Bucketer, HashVersion, UnknownHash};
pub use context::{Attributes, EvaluationContext, MAX_TARGETING_KEY_BYTES, Moment, NoRequest, cookie_in};
pub use evaluate::{Arm, Derivation, Evaluation, Layer, Reason, Step, evaluate, explain};
pub use name::{BackendName, FlagKey, NameError};
pub use percentage::{Percentage, PercentageError};
pub use ramp::{Onward, Ramp, RampAction, RampError, RampStep, Stay, Wait};
pub use rollout::{Adoption, Generation, Phase, RampState, Refusal, Rollout, SecondOperator};
pub use rule::{
    Attribute, Comparison, Condition, ConditionTrace, Pattern, PatternError, Rule, RuleTrace, Rules, Test, TextTest,
    VersionRange, VersionRangeError, VersionTest, parameter_in, without_port,
};
pub use set::{Entry, FlagSet};
pub use shadow::{JsonPath, JsonPathError, Shadow};
pub use version::SetVersion;

/// One canary decision as its file describes it.
///
/// What the file says is the same for every gateway and every moment; what is in force right now is the [`Rollout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// The flag's name, which is also its file's name.
    pub key: FlagKey,
    /// What the flag is for, in a sentence.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// The kill switch: `false` sends everyone to stable.
    pub enabled: bool,
    /// What is being rolled out; a new value starts a new rollout and lifts a latch.
    pub release: String,
    /// The backend that serves the stable arm.
    pub stable: BackendName,
    /// The backend that serves the canary arm.
    pub canary: BackendName,
    /// The share of targeting keys that the file asks for; the rollout's own percentage is the one in force.
    pub percentage: Percentage,
    /// Where each targeting key falls under this flag.
    pub bucketer: Bucketer,
    /// Targeting keys that are on canary whatever the percentage.
    pub beta: BetaList,
    /// What serves an arm by other marks of the request, before the percentage is asked.
    pub rules: Rules,
    /// The steps by which a rollout goes up by itself.
    pub ramp: Option<Ramp>,
    /// What the canary gets copies of.
    pub shadow: Option<Shadow>,
}

impl Flag {
    /// The backend that serves `arm`; its name is the variant.
    #[must_use]
    pub fn backend(&self, arm: Arm) -> &BackendName {
        match arm {
            Arm::Stable => &self.stable,
            Arm::Canary => &self.canary,
        }
    }
}
