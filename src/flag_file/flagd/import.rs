//! From a file of flagd's flags to [`Definition`]s.

use std::collections::BTreeMap;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Place};
use crate::document::{Data, Document, Placed, Problems, Section, Table, Value, parsed, string};
use crate::flag::{
    Arm, Attribute, BackendName, BetaList, Flag, FlagKey, NameError, Rule, Rules, SetVersion, Test, TextTest,
};
use crate::flag_file::flagd::targeting::{Decided, Variants, decided};
use crate::flag_file::{Definition, Expectations, Lines};
use crate::judge::Guard;
use crate::outcome::FailureClasses;

/// What is rolled out, where the file does not say.
const UNNAMED_RELEASE: &str = "flagd";

/// The flags that a file of flagd's holds.
pub(crate) fn parse(path: &Path, text: String, expected: &Expectations) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    let version = SetVersion::EMPTY.and(text.as_bytes());
    let document = Document::parse_json(path, text)?;
    let problems = Problems::new();
    let mut root = document.root(&problems);
    let _ = root.optional("$schema", string);
    // What describes the set as a whole is for flagd's clients.
    let _ = root.section("metadata");
    let evaluators = match root.value("$evaluators").map(|value| &value.data) {
        Some(Data::Table(table)) => Some(table),
        _ => None,
    };
    if root.value("flags").is_none() {
        problems.report(root.place(), "`flags` is missing; write `{\"flags\": { … }}`");
    }
    let flags = root.named_sections("flags");
    let definitions: Vec<_> = flags
        .into_iter()
        .filter_map(|(key, section)| flag(&key, section, evaluators, expected))
        .map(|(flag, lines)| {
            let (guard, failures) = (Guard::default(), FailureClasses::default());
            Definition { flag, guard, failures, path: path.to_owned(), lines, version }
        })
        .collect();
    root.finish();
    if problems.is_empty() { Ok(definitions) } else { Err(problems.into_vec()) }
}

fn flag(
    key: &Placed<String>,
    mut section: Section<'_>,
    evaluators: Option<&Table>,
    expected: &Expectations,
) -> Option<(Flag, Lines)> {
    let problems = section.problems();
    let name = key.value.parse::<FlagKey>().map_err(|error: NameError| {
        problems.report(&key.place, format!("`{}` is no key of a flag: {error}", key.value));
    });
    let state = section.required("state", "\"ENABLED\"", |value| match string(value)?.as_str() {
        "ENABLED" => Ok(true),
        "DISABLED" => Ok(false),
        other => Err(format!("\"{other}\" is no state; there are \"ENABLED\" and \"DISABLED\"")),
    });
    let metadata = Metadata::read(section.section("metadata"));
    let default = section.optional("defaultVariant", |value| match &value.data {
        Data::Null => Ok(None),
        _ => string(value).map(Some),
    });
    let place = default.as_ref().map_or_else(|| section.place().clone(), |default| default.place.clone());
    let default = default.and_then(|default| default.value);
    let variants = variants(&mut section, default.as_deref(), &place, &metadata);
    let targeting = section.value("targeting");
    let enabled_at = section.value_place("state").map(Place::line);
    let percentage_at = section.value_place("targeting").or(section.value_place("defaultVariant")).map(Place::line);
    section.finish();
    let (name, variants) = (name.ok()?, variants?);
    for backend in [&variants.stable, &variants.canary] {
        if !expected.backends.contains(backend) {
            let known: Vec<_> = expected.backends.iter().map(BackendName::as_str).collect();
            let message = format!(
                "a variant's value names the backend that serves it, but no backend is named `{backend}`; there are: {}",
                known.join(", ")
            );
            problems.report(&place, message);
        }
    }
    let is_there = |value: &&Value| !matches!(&value.data, Data::Table(table) if table.entries().is_empty());
    let Decided { mut rules, percentage, bucketer } =
        decided(targeting.filter(is_there), &name, &variants, evaluators, problems)?;
    let (beta, users) = listed(&mut rules);
    let flag = Flag {
        key: name,
        description: metadata.description,
        owner: metadata.owner,
        enabled: state?.value,
        release: metadata.release,
        stable: variants.stable,
        canary: variants.canary,
        percentage,
        bucketer,
        beta,
        rules: rules.into_iter().collect::<Rules>(),
        ramp: None,
        shadow: None,
    };
    Some((flag, Lines { enabled: enabled_at, percentage: percentage_at, users, ..Lines::default() }))
}

/// Takes the beta list out of `rules`: the first, if all that it asks is who the user is, and it serves canary.
fn listed(rules: &mut Vec<Rule>) -> (BetaList, Option<usize>) {
    let is_list = rules.first().is_some_and(|rule| {
        let test = rule.when.first().map(|condition| &condition.test);
        rule.serve == Arm::Canary
            && rule.when.len() == 1
            && matches!(test, Some(Test::Text(Attribute::User, TextTest::In(_) | TextTest::Equals(_))))
    });
    if !is_list {
        return (BetaList::default(), None);
    }
    let rule = rules.remove(0);
    let users: Vec<Box<str>> = match rule.when.into_iter().next().map(|condition| condition.test) {
        Some(Test::Text(_, TextTest::In(users))) => users.into_iter().collect(),
        Some(Test::Text(_, TextTest::Equals(user))) => vec![user],
        _ => Vec::new(),
    };
    (users.into_iter().collect(), Some(rule.line))
}

/// What is known about a flag beside what decides.
struct Metadata {
    release: String,
    owner: String,
    description: String,
    stable: Option<Placed<BackendName>>,
    canary: Option<Placed<BackendName>>,
}

impl Metadata {
    /// What else stands there is for flagd's clients.
    fn read(section: Option<Section<'_>>) -> Self {
        let Some(mut section) = section else {
            let (owner, description) = (String::new(), String::new());
            return Self { release: UNNAMED_RELEASE.to_owned(), owner, description, stable: None, canary: None };
        };
        Self {
            release: section.or("release", string, UNNAMED_RELEASE.to_owned()),
            owner: section.or("owner", string, String::new()),
            description: section.or("description", string, String::new()),
            stable: section.optional("stable", parsed),
            canary: section.optional("canary", parsed),
        }
    }
}

fn variants(
    section: &mut Section<'_>,
    default: Option<&str>,
    default_place: &Place,
    metadata: &Metadata,
) -> Option<Variants> {
    let problems = section.problems();
    let Some(Value { data: Data::Table(table), place }) = section.value("variants") else {
        problems.report(
            section.place(),
            "`variants` is missing; add `\"variants\": {\"sync\": \"sync\", \"async\": \"async\"}`",
        );
        return None;
    };
    let mut names = BTreeMap::new();
    for (key, value) in table.entries() {
        match &value.data {
            Data::String(text) => names.insert(key.text.clone(), Ok(text.clone())),
            Data::Boolean(truth) => names.insert(key.text.clone(), Err(*truth)),
            other => {
                let kind = other.kind();
                let message = format!("a variant is a text that names a backend, or true or false, not {kind}");
                problems.report(&value.place, message);
                return None;
            }
        };
    }
    let missing = |message: String| {
        problems.report(default_place, message);
        None
    };
    let default_value = match default {
        None => None,
        Some(name) => match names.get(name) {
            Some(value) => Some(value.clone()),
            None => return missing(format!("`defaultVariant`: there is no variant \"{name}\"")),
        },
    };
    let (stable, canary) = match (&metadata.stable, &metadata.canary) {
        (Some(stable), Some(canary)) => (stable.value.clone(), canary.value.clone()),
        _ if names.values().any(Result::is_err) => {
            problems.report(
                place,
                "true and false name no backends; add `\"metadata\": {\"stable\": \"sync\", \"canary\": \"async\"}`: false \
                 is stable then, and true canary",
            );
            return None;
        }
        _ => {
            let Some(Ok(stable)) = &default_value else {
                return missing(
                    "`defaultVariant` names the stable variant; add it, or `stable` and `canary` as `metadata`"
                        .to_owned(),
                );
            };
            let mut others: Vec<_> = names.values().flatten().filter(|value| *value != stable).collect();
            others.dedup();
            let [canary] = others.as_slice() else {
                problems.report(
                    place,
                    "a flag has two arms, so the variants name two backends: the default's is stable, the other canary",
                );
                return None;
            };
            let named = |text: &str| {
                let parsed = text.parse::<BackendName>();
                parsed.map_err(|error| problems.report(place, format!("`{text}` names no backend: {error}"))).ok()
            };
            (named(stable)?, named(canary)?)
        }
    };
    if stable == canary {
        problems.report(place, "stable and canary are the same backend; to try Tidegate on one service, name it twice");
        return None;
    }
    let arm = |value: &Result<String, bool>| match value {
        Ok(text) if *text == stable.as_str() => Some(Arm::Stable),
        Ok(text) if *text == canary.as_str() => Some(Arm::Canary),
        Ok(_) => None,
        Err(truth) => Some(if *truth { Arm::Canary } else { Arm::Stable }),
    };
    let mut arms = BTreeMap::new();
    for (name, value) in &names {
        let Some(arm) = arm(value) else {
            problems.report(
                place,
                format!("the variant \"{name}\" names neither `{stable}` nor `{canary}`: a flag has two arms"),
            );
            return None;
        };
        arms.insert(name.clone(), arm);
    }
    let default = default_value.as_ref().and_then(arm).unwrap_or(Arm::Stable);
    Some(Variants { stable, canary, arms, default })
}
