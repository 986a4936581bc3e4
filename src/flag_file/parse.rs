//! From a flag file's text to its [`Definition`].

use std::path::Path;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Place};
use crate::document::{
    Document, Placed, Problems, Section, Value, boolean, duration, integer, number, one_or_more, parsed, string,
    strings,
};
use crate::flag::{
    BackendName, BetaList, Bucketer, Flag, FlagKey, HashVersion, MAX_TARGETING_KEY_BYTES, NameError, Percentage,
    SetVersion,
};
use crate::flag_file::ramp::ramp;
use crate::flag_file::rules::{Drawing, percent, rules};
use crate::flag_file::shadow::shadow;
use crate::flag_file::users::UserLists;
use crate::flag_file::{Definition, Expectations, Lines};
use crate::judge::{Guard, LatencyTolerance, Rate, Tolerance};
use crate::outcome::{FailureClass, FailureClasses};

pub(crate) fn parse(
    path: &Path,
    text: String,
    expected: &Expectations,
    lists: &mut UserLists,
) -> Result<Definition, Vec<Diagnostic>> {
    let version = SetVersion::EMPTY.and(text.as_bytes());
    let document = Document::parse(path, text)?;
    let problems = Problems::new();
    let definition = read(path, document.root(&problems), expected, lists);
    if let Some(end) = document.unfinished_line().filter(|_| problems.is_empty()) {
        // What is left of a file that was cut off can be a whole one that lacks its beta list or its guard.
        problems.report(&end, "the file ends in the middle of a line, so it may be cut off; end it with a newline");
    }
    match definition {
        Some(definition) if problems.is_empty() => {
            let version = definition.flag.beta.file_version().map_or(version, |list| version.and_part(list));
            Ok(Definition { version, ..definition })
        }
        _ => Err(problems.into_vec()),
    }
}

fn read(path: &Path, mut file: Section<'_>, expected: &Expectations, lists: &mut UserLists) -> Option<Definition> {
    let key = key_of(path, &file);
    let line = |section: &Section<'_>, key| section.value_place(key).map(Place::line);
    let mut lines =
        Lines { enabled: line(&file, "enabled"), percentage: line(&file, "percentage"), ..Lines::default() };
    let description = file.or("description", string, String::new());
    let owner = file.or("owner", string, String::new());
    let enabled = file.or("enabled", boolean, true);
    let release = file.required("release", "\"2026-11-21.1\"", string);
    if let Some(Placed { value, place }) = release.as_ref().filter(|release| release.value.trim().is_empty()) {
        file.problems().report(place, format!("`release`: \"{value}\" names nothing"));
    }
    let stable = arm(&mut file, "stable", "\"sync\"", expected);
    let canary = arm(&mut file, "canary", "\"async\"", expected);
    if let (Some(stable), Some(canary)) = (&stable, &canary)
        && stable == canary
    {
        let message = "`stable` and `canary` are the same backend; to try Tidegate on one service, name it twice";
        file.problems().report(file.place(), message);
    }
    let percentage = percentage(&mut file);
    let salt = file.optional("salt", string);
    let hash = file.or("hash", parsed, HashVersion::default());
    let beta = file.section("beta").and_then(|section| {
        (lines.users, lines.users_file) = (line(&section, "users"), line(&section, "users_file"));
        beta(path, section, lists)
    });
    let (guard, failures) = file.section("guard").map_or_else(Default::default, guard);
    let salt = salt.map(|salt| salt.value).or_else(|| key.as_ref().map(FlagKey::to_string)).unwrap_or_default();
    let rules = rules(&mut file, Drawing { hash, salt: &salt });
    let ramp = file.section("ramp").map(ramp);
    let shadow = file.section("shadow").map(shadow);
    file.finish();

    let flag = Flag {
        bucketer: Bucketer::new(hash, &salt),
        key: key?,
        description,
        owner,
        enabled,
        release: release?.value,
        stable: stable?,
        canary: canary?,
        percentage: percentage?,
        beta: beta.unwrap_or_default(),
        rules,
        ramp: match ramp {
            Some(ramp) => Some(ramp?),
            None => None,
        },
        shadow: match shadow {
            Some(shadow) => Some(shadow?),
            None => None,
        },
    };
    Some(Definition { flag, guard, failures, path: path.to_owned(), lines, version: SetVersion::EMPTY })
}

fn key_of(path: &Path, file: &Section<'_>) -> Option<FlagKey> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let key = stem.parse().map_err(|error: NameError| {
        file.problems()
            .report(file.place(), format!("the file's name is the flag's key, but `{stem}` is none: {error}"));
    });
    key.ok()
}

fn arm(file: &mut Section<'_>, key: &'static str, example: &str, expected: &Expectations) -> Option<BackendName> {
    let Placed { value, place } = file.required(key, example, parsed::<BackendName>)?;
    if !expected.backends.contains(&value) {
        let known: Vec<_> = expected.backends.iter().map(BackendName::as_str).collect();
        file.problems().report(&place, format!("no backend is named `{value}`; there are: {}", known.join(", ")));
        return None;
    }
    Some(value)
}

fn percentage(file: &mut Section<'_>) -> Option<Percentage> {
    let Placed { value, place } = file.required("percentage", "0", percent)?;
    let percentage = Percentage::from_percent(value)
        .map_err(|error| file.problems().report(&place, format!("`percentage`: {error}, not {value}")));
    percentage.ok()
}

fn beta(path: &Path, mut section: Section<'_>, lists: &mut UserLists) -> Option<BetaList> {
    let users = section.optional("users", strings);
    let users_file = section.optional("users_file", string);
    let problems = section.problems();
    section.finish();

    let mut keys = Vec::new();
    if let Some(users) = users {
        for user in users.value {
            if user.is_empty() || user.len() > MAX_TARGETING_KEY_BYTES {
                let message = format!("`beta.users`: a targeting key is 1 to {MAX_TARGETING_KEY_BYTES} bytes long");
                problems.report(&users.place, message);
            }
            keys.push(user.into());
        }
    }
    let file = match users_file {
        Some(users_file) => Some(lists.read(path, &users_file, problems)?),
        None => None,
    };
    Some(BetaList::new(keys, file))
}

fn guard(mut section: Section<'_>) -> (Guard, FailureClasses) {
    let defaults = Guard::default();
    let guard = Guard {
        max_error_rate: section.or("max_error_rate", rate, defaults.max_error_rate),
        false_rollback: section.or("false_rollback", probability, defaults.false_rollback),
        latency_tolerance: section.or("latency_tolerance", latency_tolerance, defaults.latency_tolerance),
        max_latency: section.optional("max_latency", max_latency).map(|placed| placed.value),
        harm_budget: section.optional("harm_budget", harm_budget).map(|placed| placed.value),
        max_unavailable: section.or("max_unavailable", max_unavailable, defaults.max_unavailable),
        min_requests: section.or("min_requests", min_requests, defaults.min_requests),
        tolerance: section.section("tolerance").and_then(tolerance).unwrap_or(defaults.tolerance),
    };
    let failures = failures(&mut section);
    section.finish();
    (guard, failures)
}

fn failures(section: &mut Section<'_>) -> FailureClasses {
    let Some(named) = section.optional("failure", one_or_more) else { return FailureClasses::default() };
    let classes = named.value.iter().filter_map(|Placed { value, place }| {
        let class = value.parse::<FailureClass>();
        class.map_err(|error| section.problems().report(place, format!("`guard.failure`: \"{value}\" is {error}"))).ok()
    });
    classes.collect()
}

fn tolerance(mut section: Section<'_>) -> Option<Tolerance> {
    let points = section.or("points", rate, Rate::ZERO);
    let relative = section.or("relative", rate, Rate::ZERO);
    let tolerance = Tolerance::new(points.as_share(), 1.0 + relative.as_share());
    if tolerance.is_none() {
        section.problems().report(section.place(), "`guard.tolerance`: `points` of 100% would allow anything");
    }
    section.finish();
    tolerance
}

/// A rate as people write it: `"5%"`.
fn rate(value: &Value) -> Result<Rate, String> {
    let text = string(value).map_err(|error| format!("{error}; write a percentage like \"5%\""))?;
    let percent = text.strip_suffix('%').and_then(|percent| percent.trim().parse().ok());
    percent
        .and_then(Rate::from_percent)
        .ok_or_else(|| format!("\"{text}\" is no rate; write a percentage from 0 to 100 like \"5%\""))
}

/// How much slower, as people write it: `"20%"`, and more than all is possible.
fn latency_tolerance(value: &Value) -> Result<LatencyTolerance, String> {
    let text = string(value).map_err(|error| format!("{error}; write a percentage like \"20%\""))?;
    let percent = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
    percent
        .and_then(|percent| LatencyTolerance::new(percent / 100.0))
        .ok_or_else(|| format!("\"{text}\" is no tolerance; write a percentage from 0 to 10000 like \"20%\""))
}

/// For how long a canary may be away. Less than a second is one health check that went wrong.
fn max_unavailable(value: &Value) -> Result<Duration, String> {
    let limit = duration(value)?;
    let meaningful = (Duration::from_secs(1)..=Duration::from_hours(24)).contains(&limit);
    meaningful.then_some(limit).ok_or_else(|| "a canary may be away from \"1s\" to \"24h\"".to_owned())
}

/// A limit for latencies. Less than a millisecond is not told apart from the gateway's own time, and more than ten minutes
/// is waited for by nobody.
fn max_latency(value: &Value) -> Result<Duration, String> {
    let limit = duration(value)?;
    let meaningful = (Duration::from_millis(1)..=Duration::from_mins(10)).contains(&limit);
    meaningful.then_some(limit).ok_or_else(|| "a limit for latencies is from \"1ms\" to \"10m\"".to_owned())
}

fn harm_budget(value: &Value) -> Result<u64, String> {
    let failures = integer::<u64>(value)?;
    (failures > 0)
        .then_some(failures)
        .ok_or_else(|| "a budget of 0 failures would never let the canary begin".to_owned())
}

fn min_requests(value: &Value) -> Result<u64, String> {
    integer(value)
}

/// The probability of a mistake. With less than one in a trillion, nothing would ever be enough.
fn probability(value: &Value) -> Result<Rate, String> {
    let probability = number(value)?;
    let meaningful = (1e-12..=0.5).contains(&probability);
    Rate::from_share(probability)
        .filter(|_| meaningful)
        .ok_or_else(|| format!("{probability} is no probability to be wrong by; write one like 0.001, at most 0.5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Definition, Vec<Diagnostic>> {
        let expected =
            Expectations { backends: vec!["sync".parse().unwrap(), "async".parse().unwrap()], flags: vec![] };
        parse(Path::new("flags/async-database.toml"), text.to_owned(), &expected, &mut UserLists::default())
    }

    const WHOLE: &str = "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 10\n";

    #[track_caller]
    fn check(text: &str, problems: &[&str]) {
        let found: Vec<_> = parse_text(text).expect_err(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, problems);
    }

    #[test]
    fn a_small_file_is_enough() {
        let definition = parse_text(WHOLE).unwrap();
        assert_eq!(definition.guard, Guard::default());
        assert!(definition.flag.enabled);
        assert_eq!(definition.flag.bucketer, Bucketer::new(HashVersion::FlagdV2, "async-database"));
    }

    #[test]
    fn everything_that_is_there_is_read() {
        let text = format!(
            "{WHOLE}enabled = false\nsalt = \"pepper\"\nhash = \"flagd-v2\"\nowner = \"platform\"\ndescription = \"d\"\n\
             [beta]\nusers = [\"alice\"]\n[guard]\nmax_error_rate = \"2.5%\"\n"
        );
        let Definition { flag, guard, .. } = parse_text(&text).unwrap();
        assert!(!flag.enabled && flag.beta.contains("alice") && flag.owner == "platform" && flag.description == "d");
        assert_eq!(flag.bucketer, Bucketer::new(HashVersion::FlagdV2, "pepper"));
        assert_eq!(Some(guard.max_error_rate), Rate::from_percent(2.5));
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        check(
            "enabled = 1\nrelease = \"1\"\nstabel = \"sync\"\ncanary = \"asink\"\npercentage = 101\nhash = \"md5\"\n\
             [guard]\nmax_error_rate = \"lots\"\nharm_budget = 0\n[beta]\nusers_file = \"../list\"\nuser = []\n",
            &[
                "flags/async-database.toml:1:11: `enabled`: wants true or false, not an integer",
                "flags/async-database.toml:1:1: `stable` is missing; add `stable = \"sync\"`",
                "flags/async-database.toml:4:10: no backend is named `asink`; there are: sync, async",
                "flags/async-database.toml:5:14: `percentage`: a percentage is a number from 0 to 100, not 101",
                "flags/async-database.toml:6:8: `hash`: \"md5\": unknown hash; there are `flagd-v2` and `flagd-v3`",
                "flags/async-database.toml:12:1: unknown key `beta.user`; did you mean `users`?",
                "flags/async-database.toml:11:14: `beta.users_file` is a file beside the flag file: write its name \
                 without a directory",
                "flags/async-database.toml:8:18: `guard.max_error_rate`: \"lots\" is no rate; write a percentage from 0 \
                 to 100 like \"5%\"",
                "flags/async-database.toml:9:15: `guard.harm_budget`: a budget of 0 failures would never let the canary \
                 begin",
                "flags/async-database.toml:3:1: unknown key `stabel`; did you mean `stable`?",
            ],
        );
    }

    #[test]
    fn a_guard_says_what_is_worse() {
        let text = format!(
            "{WHOLE}[guard]\nlatency_tolerance = \"150%\"\nmax_latency = \"1s\"\nharm_budget = 500\nmin_requests = 100\n\
             failure = [\"429\", \"502-504\", \"timeout\"]\n"
        );
        let Definition { guard, failures, .. } = parse_text(&text).unwrap();
        assert_eq!(Some(guard.latency_tolerance), LatencyTolerance::new(1.5));
        assert_eq!(guard.max_latency, Some(Duration::from_secs(1)));
        assert_eq!((guard.harm_budget, guard.min_requests), (Some(500), 100));
        assert!(failures.has_status(503) && failures.has_status(429) && !failures.has_status(500));
        check(
            &format!(
                "{WHOLE}[guard]\nlatency_tolerance = \"much\"\nmax_latency = \"1h\"\nmin_requests = -1\n\
                 failure = [\"5xx\", \"200\"]\n"
            ),
            &[
                "flags/async-database.toml:6:21: `guard.latency_tolerance`: \"much\" is no tolerance; write a percentage \
                 from 0 to 10000 like \"20%\"",
                "flags/async-database.toml:7:15: `guard.max_latency`: a limit for latencies is from \"1ms\" to \"10m\"",
                "flags/async-database.toml:8:16: `guard.min_requests`: -1 is out of range",
                "flags/async-database.toml:9:19: `guard.failure`: \"200\" is no kind of failure; there are \"5xx\", \"4xx\", \
                 statuses like \"429\" or \"502-504\", \"connect\" and \"timeout\"",
            ],
        );
        check(
            &format!("{WHOLE}[guard]\nmax_error_rate = 0.05\nlatency_tolerance = 20\n"),
            &[
                "flags/async-database.toml:6:18: `guard.max_error_rate`: wants a string, not a float; write a percentage \
                 like \"5%\"",
                "flags/async-database.toml:7:21: `guard.latency_tolerance`: wants a string, not an integer; write a \
                 percentage like \"20%\"",
            ],
        );
        check(
            &format!("{WHOLE}[guard]\nfailure = []\n"),
            &["flags/async-database.toml:6:11: `guard.failure`: wants at least one string"],
        );
    }

    #[test]
    fn a_file_cut_off_in_the_middle_is_no_flag() {
        let whole = format!("{WHOLE}[beta]\nusers = [\"alice\", \"bob\"]\n");
        for end in 0..whole.len() {
            // Cut off between two lines, what is left may be a complete file with less in it; never one that lacks what
            // decides.
            if let Ok(definition) = parse_text(&whole[..end]) {
                assert!(end >= WHOLE.len() && whole[..end].ends_with('\n'), "{:?}: {definition:?}", &whole[..end]);
            }
        }
        check(
            "release = \"1\"\nstable = \"sy",
            &["flags/async-database.toml:2:13: not TOML: invalid basic string, expected `\"`"],
        );
    }
}
