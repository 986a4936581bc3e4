//! Flags and their rollouts, as flagd has them.

use serde_json::{Map, Value, json};

use crate::flag::{
    Arm, Attribute, BUCKETS, BetaChangeKind, Bucketer, Condition, Flag, FlagKey, HashVersion, Moment, Percentage,
    Phase, Rollout, Test, TextTest,
};
use crate::flag_file::flagd::{TARGETING_KEY, TIMESTAMP, variable};

/// The schema of what is written.
const SCHEMA: &str = "https://flagd.dev/schema/v0/flags.json";

/// Flags as flagd has them, and what of them it cannot have.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The document.
    pub document: Value,
    /// What is not in it.
    pub unsaid: Vec<Unsaid>,
}

/// Something that flagd cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaid {
    /// The flag.
    pub flag: FlagKey,
    /// The rule that is left out, from 1, and its line in the flag file; `None` if the whole flag is left out.
    pub rule: Option<(usize, usize)>,
    /// Why.
    pub why: String,
}

/// Writes `flags` so that flagd decides each as Tidegate does in the state of its rollout.
///
/// A rule that cannot be said is left out, and the flag decides without it; a percentage that cannot be said leaves the
/// whole flag out, since it would decide wrongly about everyone.
pub fn export<'f>(flags: impl IntoIterator<Item = (&'f Flag, &'f Rollout)>) -> Exported {
    let mut written = Map::new();
    let mut unsaid = Vec::new();
    for (flag, rollout) in flags {
        match one(flag, rollout, &mut unsaid) {
            Ok(value) => drop(written.insert(flag.key.to_string(), value)),
            Err(why) => unsaid.push(Unsaid { flag: flag.key.clone(), rule: None, why }),
        }
    }
    Exported { document: json!({"$schema": SCHEMA, "flags": written}), unsaid }
}

fn one(flag: &Flag, rollout: &Rollout, unsaid: &mut Vec<Unsaid>) -> Result<Value, String> {
    let name = |arm| flag.backend(arm).as_str();
    let (stable, canary) = (name(Arm::Stable), name(Arm::Canary));
    let texts = [("release", &flag.release), ("owner", &flag.owner), ("description", &flag.description)];
    let metadata: Map<_, _> = texts
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (key.to_owned(), json!(text)))
        .collect();
    // Not flagd's own `DISABLED`, which hands the decision to a default in the application's code.
    let mut written = json!({
        "state": "ENABLED",
        "variants": {stable: stable, canary: canary},
        "defaultVariant": stable,
        "metadata": metadata,
    });
    if !flag.enabled || rollout.phase == Phase::RolledBack {
        return Ok(written);
    }
    let mut decision = share(flag, rollout.percentage)?;
    let rules: Vec<_> = flag.rules.iter().enumerate().collect();
    for (index, rule) in rules.into_iter().rev() {
        match all(&rule.when) {
            Ok(condition) => decision = json!({"if": [condition, name(rule.serve), decision]}),
            Err(why) => unsaid.push(Unsaid { flag: flag.key.clone(), rule: Some((index + 1, rule.line)), why }),
        }
    }
    let added =
        rollout.beta.iter().filter(|(user, change)| change.kind == BetaChangeKind::Added && !flag.beta.contains(user));
    let mut added: Vec<_> = added.map(|(user, _)| user).collect();
    added.sort_unstable();
    let kept = flag.beta.users().filter(|user| rollout.beta.contains(&flag.beta, user));
    let users: Vec<_> = kept.chain(added).map(|user| json!(user)).collect();
    if !users.is_empty() {
        decision = json!({"if": [{"in": [{"var": TARGETING_KEY}, users]}, canary, decision]});
    }
    let targeting = match decision {
        Value::String(variant) if variant == stable => return Ok(written),
        // What decides is an operation, so that a plain variant has to be dressed up as one.
        Value::String(variant) => json!({"if": [true, variant, stable]}),
        decision => decision,
    };
    if let Some(written) = written.as_object_mut() {
        written.insert("targeting".to_owned(), targeting);
    }
    Ok(written)
}

/// What decides where nothing else does: the percentage in force.
fn share(flag: &Flag, percentage: Percentage) -> Result<Value, String> {
    let (stable, canary) = (flag.stable.as_str(), flag.canary.as_str());
    if percentage == Percentage::ZERO {
        return Ok(json!(stable));
    }
    if percentage == Percentage::FULL {
        return Ok(json!(canary));
    }
    let key = bucketed_by(flag.bucketer.salt(), Some(&flag.key), &flag.bucketer)?;
    let arms = weighted(canary, stable, percentage);
    Ok(match key {
        // flagd's own default: the key of the flag and then that of the user, and without the latter no variant.
        None => json!({"fractional": arms}),
        Some(key) => json!({"if": [has_key(), {"fractional": [key, arms[0], arms[1]]}, stable]}),
    })
}

fn weighted(first: &str, rest: &str, percentage: Percentage) -> [Value; 2] {
    [json!([first, percentage.thousandths()]), json!([rest, BUCKETS - percentage.thousandths()])]
}

/// What a `fractional` hashes; `None` if it is what flagd hashes without being told.
fn bucketed_by(salt: &str, flag: Option<&FlagKey>, bucketer: &Bucketer) -> Result<Option<Value>, String> {
    if bucketer.hash_version() != HashVersion::FlagdV2 {
        let hash = bucketer.hash_version().as_str();
        return Err(format!("`hash = \"{hash}\"`: no flagd that is out yet draws users so, only as `flagd-v2` does"));
    }
    let known = flag.is_some_and(|flag| flag.as_str() == salt);
    Ok((!known).then(|| json!({"cat": [salt, {"var": TARGETING_KEY}]})))
}

/// Whether there is a user: the empty text is none.
fn has_key() -> Value {
    json!({"!==": [{"var": [TARGETING_KEY, ""]}, ""]})
}

fn all(conditions: &[Condition]) -> Result<Value, String> {
    match conditions {
        [one] => said(one),
        _ => Ok(json!({"and": conditions.iter().map(said).collect::<Result<Vec<_>, _>>()?})),
    }
}

fn said(condition: &Condition) -> Result<Value, String> {
    match &condition.test {
        Test::All(parts) => all(parts),
        Test::Any(parts) => Ok(json!({"or": parts.iter().map(said).collect::<Result<Vec<_>, _>>()?})),
        Test::Not(part) => Ok(json!({"!": [said(part)?]})),
        Test::Text(attribute, test) => text(attribute, test),
        Test::Client(_) => Err("flagd knows nothing of networks, so `client` cannot be said".to_owned()),
        Test::Percentage(percentage, bucketer) => drawn(*percentage, bucketer),
        Test::After(moment) => Ok(json!({">=": [{"var": TIMESTAMP}, seconds(*moment)?]})),
        Test::Before(moment) => Ok(json!({"<": [{"var": TIMESTAMP}, seconds(*moment)?]})),
    }
}

fn drawn(percentage: Percentage, bucketer: &Bucketer) -> Result<Value, String> {
    if percentage == Percentage::ZERO {
        return Ok(json!(false));
    }
    if percentage == Percentage::FULL {
        return Ok(has_key());
    }
    let key = bucketed_by(bucketer.salt(), None, bucketer)?;
    let [inside, outside] = weighted("in", "out", percentage);
    Ok(json!({"and": [has_key(), {"===": [{"fractional": [key, inside, outside]}, "in"]}]}))
}

/// flagd's clock shows whole seconds, so that only they can be compared with it.
fn seconds(moment: Moment) -> Result<i64, String> {
    let millis = moment.as_unix_millis();
    if millis.rem_euclid(1000) != 0 {
        return Err(format!("{moment} is no whole second, and flagd's clock shows nothing finer"));
    }
    Ok(millis.div_euclid(1000))
}

fn text(attribute: &Attribute, test: &TextTest) -> Result<Value, String> {
    let variable = variable(attribute)
        .ok_or_else(|| format!("flagd would take the name of {attribute} for a path into its context"))?;
    let value = json!({"var": variable});
    // Operators on texts want one; the empty text passes none of those below, like one that is missing.
    let present = json!({"var": [variable, ""]});
    Ok(match test {
        TextTest::Equals(text) => json!({"===": [value, text]}),
        TextTest::In(texts) => {
            let mut texts: Vec<_> = texts.iter().collect();
            texts.sort_unstable();
            json!({"in": [value, texts]})
        }
        TextTest::Prefix(text) => json!({"starts_with": [present, text]}),
        TextTest::Suffix(text) => json!({"ends_with": [present, text]}),
        TextTest::Contains(text) => json!({"in": [text, present]}),
        TextTest::Regex(_) => return Err("flagd has no regular expressions".to_owned()),
        TextTest::Semver(range) => {
            let tests = range.comparisons().ok_or("flagd orders pre-releases otherwise than a range that names one")?;
            let compared =
                tests.iter().map(|test| json!({"sem_ver": [value, test.comparison().as_str(), test.version()]}));
            // A range leaves pre-releases out, which flagd puts in order with the others.
            let released = json!({"!": [{"in": ["-", present]}]});
            json!({"and": compared.chain([released]).collect::<Vec<_>>()})
        }
        TextTest::Version(test) => json!({"sem_ver": [value, test.comparison().as_str(), test.version()]}),
        TextTest::Exists(true) => json!({"!==": [value, null]}),
        TextTest::Exists(false) => json!({"===": [value, null]}),
    })
}
