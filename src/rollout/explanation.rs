//! Decisions with all that led to them, for people.

use crate::api::{ConditionFinding, Explanation, ExplanationStep, RuleFinding};
use crate::flag::{
    Arm, BetaChange, BetaChangeKind, Bucket, ConditionTrace, Derivation, EvaluationContext, Flag, Layer, Listing,
    Percentage, Phase, Rollout, RuleTrace, Step, explain,
};
use crate::flag_file::{Definition, Lines};

/// How the decision of `flag` in the state `rollout` comes about; `definition` is the file that the flag is from.
#[must_use]
pub fn explanation(
    flag: &Flag,
    rollout: &Rollout,
    definition: &Definition,
    context: &EvaluationContext<'_>,
) -> Explanation {
    let derivation = explain(flag, rollout, context);
    let asked = Asked { flag, rollout, definition, derivation: &derivation, key: context.targeting_key };
    Explanation {
        flag: flag.key.to_string(),
        user: context.targeting_key.map(str::to_owned),
        variant: flag.backend(derivation.evaluation.arm).to_string(),
        arm: derivation.evaluation.arm.as_str().to_owned(),
        reason: derivation.evaluation.reason.as_str().to_owned(),
        bucket: derivation.bucket.map(Bucket::get),
        percentage: rollout.in_force().as_percent(),
        phase: rollout.phase_name().to_owned(),
        release: rollout.release.clone(),
        generation: rollout.generation.get(),
        canary_unavailable: false,
        steps: derivation.steps.iter().map(|step| asked.step(step)).collect(),
        rules: derivation.rules.iter().map(rule).collect(),
        at: context.now.to_string(),
    }
}

fn rule(trace: &RuleTrace) -> RuleFinding {
    RuleFinding {
        rule: trace.number,
        line: trace.line,
        serve: trace.serve.as_str().to_owned(),
        matched: trace.matched,
        conditions: trace.conditions.iter().map(condition).collect(),
    }
}

fn condition(trace: &ConditionTrace) -> ConditionFinding {
    ConditionFinding {
        condition: trace.condition.clone(),
        line: trace.line,
        value: trace.value.clone(),
        held: trace.held,
        parts: trace.parts.iter().map(condition).collect(),
    }
}

/// What was asked, and what came of it.
struct Asked<'d> {
    flag: &'d Flag,
    rollout: &'d Rollout,
    definition: &'d Definition,
    derivation: &'d Derivation,
    key: Option<&'d str>,
}

impl Asked<'_> {
    fn step(&self, step: &Step) -> ExplanationStep {
        let decided = step.answer.is_some();
        let Lines { enabled, percentage, .. } = self.definition.lines;
        let (detail, line) = match step.layer {
            Layer::Enabled if decided => {
                ("`enabled = false` in the flag file: everyone is on stable".to_owned(), enabled)
            }
            Layer::Enabled => ("the flag is switched on".to_owned(), enabled),
            Layer::Latch => (latch(decided), None),
            Layer::Override => ("a tester asked for this arm".to_owned(), None),
            Layer::Beta => self.beta(),
            Layer::Rules => self.rules(),
            // Where the rollout has moved away from the file, no line of it decides.
            Layer::Percentage => (self.percentage(), percentage.filter(|_| self.follows_the_file())),
        };
        ExplanationStep {
            layer: step.layer.as_str().to_owned(),
            decided,
            detail,
            file: line.map(|_| self.definition.path.display().to_string()),
            line,
        }
    }

    fn beta(&self) -> (String, Option<usize>) {
        let Lines { users, users_file, .. } = self.definition.lines;
        let Some(key) = self.key else { return ("nobody to look for on the beta list".to_owned(), None) };
        if let Some(BetaChange { kind, by, at }) = self.rollout.beta.get(key) {
            let done = match kind {
                BetaChangeKind::Added => "is on the beta list: added",
                BetaChangeKind::Removed => "is not on the beta list: removed",
            };
            return (format!("`{key}` {done} by {by} at {at}"), None);
        }
        match self.flag.beta.find(key) {
            Some(Listing::FlagFile) => (format!("`{key}` is on the beta list"), users),
            Some(Listing::UsersFile(line)) => {
                (format!("`{key}` is on the beta list, on line {line} of its users_file"), users_file)
            }
            None => (format!("`{key}` is not on the beta list"), None),
        }
    }

    fn rules(&self) -> (String, Option<usize>) {
        let rules = &self.derivation.rules;
        match rules.last() {
            None => ("there are none".to_owned(), None),
            Some(RuleTrace { number, line, serve, matched: true, .. }) => {
                (format!("rule {number} matches, which serves {}", serve.as_str()), Some(*line))
            }
            Some(_) if rules.len() == 1 => ("the one rule does not match".to_owned(), None),
            Some(_) => (format!("none of the {} rules matches", rules.len()), None),
        }
    }

    fn percentage(&self) -> String {
        let percentage = self.rollout.percentage;
        let owned = percentage.thousandths();
        let moved = if self.follows_the_file() {
            String::new()
        } else if self.rollout.phase == Phase::Ramping {
            "; its ramp has come that far".to_owned()
        } else {
            format!("; the rollout was moved there, the file says {}", self.flag.percentage)
        };
        match self.derivation.bucket {
            Some(bucket) if percentage.owns(bucket) => {
                format!("bucket {} is in [0, {owned}), which canary has at {percentage}{moved}", bucket.get())
            }
            Some(bucket) => {
                format!("bucket {} is not in [0, {owned}), which canary has at {percentage}{moved}", bucket.get())
            }
            None if self.key.is_some() => format!(
                "the targeting key is empty or too long, so it counts as none: {}",
                without_key(percentage, &moved)
            ),
            None => format!("no targeting key: {}", without_key(percentage, &moved)),
        }
    }

    fn follows_the_file(&self) -> bool {
        let moved = matches!(self.rollout.phase, Phase::Promoted | Phase::Ramping);
        self.rollout.percentage == self.flag.percentage && !moved
    }
}

fn latch(decided: bool) -> String {
    if decided {
        "a rollback is latched: everyone is on stable until it is resumed or the file names a new release".to_owned()
    } else {
        "no rollback is latched".to_owned()
    }
}

fn without_key(percentage: Percentage, moved: &str) -> String {
    format!("{} below 100 %, and canary is at {percentage}{moved}", Arm::Stable.as_str())
}
