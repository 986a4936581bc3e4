//! From the `[[rules]]` of a flag file to compiled rules.

mod text;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::document::{Placed, Section, Value, nearest, number, one_or_more, string, timestamp};
use crate::flag::{Arm, Attribute, Bucketer, Condition, HashVersion, Moment, Percentage, Rule, Rules, Test};
use crate::flag_file::rules::text::{direct, named};

pub(crate) use crate::flag_file::rules::text::fitting;

/// How the flag draws users: a percentage in a rule draws the same first, unless it has a salt of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawing<'s> {
    pub(crate) hash: HashVersion,
    pub(crate) salt: &'s str,
}

pub(crate) fn rules(file: &mut Section<'_>, drawing: Drawing<'_>) -> Rules {
    file.sections("rules").into_iter().filter_map(|section| rule(section, drawing)).collect()
}

fn rule(mut section: Section<'_>, drawing: Drawing<'_>) -> Option<Rule> {
    let (place, problems) = (section.place().clone(), section.problems());
    let serve = section.required("serve", "\"canary\"", |value| arm(&string(value)?));
    let is_there = section.keys().any(|key| key == "when");
    if !is_there || section.holds_empty_array("when") {
        let wrong = if is_there { "is empty, and would match every request" } else { "is missing" };
        problems.report(&place, format!("`rules.when` {wrong}; add `when = [{{ path = \"/api/\" }}]`"));
    }
    let conditions = section.sections("when");
    let when = conditions.into_iter().filter_map(|condition| one(condition, drawing)).collect();
    section.finish();
    Some(Rule { when, serve: serve?.value, line: place.line() })
}

fn arm(name: &str) -> Result<Arm, String> {
    let found = Arm::BOTH.into_iter().find(|arm| arm.as_str() == name);
    found.ok_or_else(|| match nearest(name, &Arm::BOTH.map(Arm::as_str)) {
        Some(near) => format!("\"{name}\" is no arm; did you mean \"{near}\"?"),
        None => format!("\"{name}\" is no arm; write \"canary\" or \"stable\""),
    })
}

/// The condition that a table writes: all that its keys ask. `None` if that is nothing, which is reported.
fn one(section: Section<'_>, drawing: Drawing<'_>) -> Option<Condition> {
    let (place, problems, is_empty) = (section.place().clone(), section.problems(), section.keys().next().is_none());
    let mut asked = all(section, drawing);
    if is_empty {
        problems.report(&place, "an empty condition would hold for every request; say what it asks");
    }
    match asked.len() {
        0 | 1 => asked.pop(),
        _ => Some(Condition { test: Test::All(asked.into()), line: place.line() }),
    }
}

fn all(mut section: Section<'_>, drawing: Drawing<'_>) -> Vec<Condition> {
    let mut asked = named(&mut section);
    asked.extend(direct(&mut section, "path", &Attribute::Path));
    asked.extend(direct(&mut section, "method", &Attribute::Method));
    asked.extend(direct(&mut section, "host", &Attribute::Host));
    asked.extend(direct(&mut section, "user", &Attribute::User));
    asked.extend(client(&mut section));
    asked.extend(percentage(&mut section, drawing));
    asked.extend(window(&mut section));
    asked.extend(combined(&mut section, "all", Test::All, drawing));
    asked.extend(combined(&mut section, "any", Test::Any, drawing));
    if let Some(part) = section.section("not") {
        let line = part.place().line();
        asked.extend(one(part, drawing).map(|part| Condition { test: Test::Not(Box::new(part)), line }));
    }
    section.finish();
    asked
}

fn client(section: &mut Section<'_>) -> Option<Condition> {
    let Placed { value, place } = section.optional("client", one_or_more)?;
    let network = |text: Placed<String>| {
        let parsed = text.value.parse::<IpNet>().or_else(|_| text.value.parse::<IpAddr>().map(IpNet::from));
        let told = parsed.map_err(|_| {
            let message =
                format!("\"{}\" is no network; write it like \"10.0.0.0/8\" or \"2001:db8::/32\"", text.value);
            section.problems().report(&text.place, message);
        });
        told.ok()
    };
    let networks: Box<[_]> = value.into_iter().filter_map(network).collect();
    (!networks.is_empty()).then(|| Condition { test: Test::Client(networks), line: place.line() })
}

/// A percentage is a number, where rates in a guard are texts.
pub(crate) fn percent(value: &Value) -> Result<f64, String> {
    number(value).map_err(|error| format!("{error}; write 10 for 10 %"))
}

fn percentage(section: &mut Section<'_>, drawing: Drawing<'_>) -> Option<Condition> {
    let percentage = section.optional("percentage", |value| {
        let share = percent(value)?;
        Percentage::from_percent(share).map_err(|error| format!("{error}, not {share}"))
    });
    let salt = section.optional("salt", string);
    if let (None, Some(salt)) = (&percentage, &salt) {
        section
            .problems()
            .report(&salt.place, "`salt` says who comes first in a `percentage`; there is none beside it");
    }
    let Placed { value, place } = percentage?;
    let bucketer = Bucketer::new(drawing.hash, salt.as_ref().map_or(drawing.salt, |salt| &salt.value));
    Some(Condition { test: Test::Percentage(value, bucketer), line: place.line() })
}

fn window(section: &mut Section<'_>) -> Vec<Condition> {
    let after = section.optional("after", timestamp);
    let before = section.optional("before", timestamp);
    if let (Some(after), Some(before)) = (&after, &before)
        && after.value >= before.value
    {
        section.problems().report(&before.place, "`before` is not later than `after`: no request comes in between");
    }
    let moment = |at: jiff::Timestamp| Moment::from_unix_millis(at.as_millisecond());
    let after = after.map(|at| Condition { test: Test::After(moment(at.value)), line: at.place.line() });
    let before = before.map(|at| Condition { test: Test::Before(moment(at.value)), line: at.place.line() });
    after.into_iter().chain(before).collect()
}

fn combined(
    section: &mut Section<'_>,
    key: &'static str,
    combine: fn(Box<[Condition]>) -> Test,
    drawing: Drawing<'_>,
) -> Option<Condition> {
    let place = section.place_of(key)?;
    if section.holds_empty_array(key) {
        section.problems().report(&place, format!("`{key}` wants at least one condition: `{key} = [{{ … }}, …]`"));
    }
    let parts: Box<[_]> = section.sections(key).into_iter().filter_map(|part| one(part, drawing)).collect();
    Some(Condition { test: combine(parts), line: place.line() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::document::{Document, Problems};
    use crate::flag::{Attributes, EvaluationContext, NoRequest};

    fn read(text: &str) -> Result<Rules, Vec<String>> {
        let document = Document::parse(Path::new("f.toml"), text.to_owned()).unwrap();
        let problems = Problems::new();
        let mut file = document.root(&problems);
        let rules = rules(&mut file, Drawing { hash: HashVersion::FlagdV2, salt: "salt" });
        file.finish();
        let found: Vec<_> = problems.into_vec().iter().map(ToString::to_string).collect();
        if found.is_empty() { Ok(rules) } else { Err(found) }
    }

    /// `POST https://Api.Example.com:8443/api/v1/x?plan=gold%20plus&q=` from 10.1.2.3, with a header and a cookie.
    #[derive(Debug)]
    struct Asked;

    impl Attributes for Asked {
        fn header(&self, name: &str) -> Option<&str> {
            (name == "x-app-version").then_some("2.10.0")
        }

        fn cookie(&self, name: &str) -> Option<&str> {
            (name == "plan").then_some("gold")
        }

        fn query(&self) -> Option<&str> {
            Some("plan=gold%20plus&q=")
        }

        fn path(&self) -> Option<&str> {
            Some("/api/v1/x")
        }

        fn method(&self) -> Option<&str> {
            Some("POST")
        }

        fn host(&self) -> Option<&str> {
            Some("Api.Example.com:8443")
        }

        fn client(&self) -> Option<IpAddr> {
            Some([10, 1, 2, 3].into())
        }
    }

    /// Whether the condition holds for [`Asked`], and whether for no request at all; both at 2026-11-21T09:40:00Z.
    #[track_caller]
    fn check(condition: &str, holds: bool, holds_for_nothing: bool) {
        let rules = read(&format!("[[rules]]\nserve = \"canary\"\nwhen = [{condition}]\n")).unwrap();
        let now = Moment::from_unix_millis(1_795_254_000_000);
        let asked =
            EvaluationContext { targeting_key: Some("alice@example.com"), now, attributes: &Asked, chosen: None };
        let nothing = EvaluationContext { targeting_key: None, now, attributes: &NoRequest, chosen: None };
        assert_eq!(rules.first_match(&asked).is_some(), holds, "{condition}");
        assert_eq!(rules.first_match(&nothing).is_some(), holds_for_nothing, "{condition}, of nothing");
        let [trace] = rules.trace(&asked).try_into().unwrap();
        assert_eq!(trace.matched, trace.conditions.iter().all(|condition| condition.held), "{condition}");
    }

    #[test]
    fn conditions_ask_what_they_say() {
        for (condition, holds) in [
            ("{ header = \"X-App-Version\", semver = \">=2.3.0\" }", true),
            ("{ header = \"x-app-version\", semver = \"<2.3\" }", false),
            ("{ header = \"x-app-version\", equals = \"2.10.0\" }", true),
            ("{ header = \"x-app-version\", prefix = \"2.\", suffix = \".1\" }", false),
            ("{ header = \"x-app-version\", in = [\"2.9.0\", \"2.10.0\"] }", true),
            ("{ header = \"x-app-version\", regex = '^\\d+\\.1' }", true),
            ("{ header = \"x-app-version\", exists = true }", true),
            ("{ header = \"x-missing\", exists = true }", false),
            ("{ cookie = \"plan\", contains = \"ol\" }", true),
            ("{ cookie = \"Plan\", contains = \"ol\" }", false),
            ("{ query = \"plan\", equals = \"gold plus\" }", true),
            ("{ query = \"q\", equals = \"\" }", true),
            ("{ query = \"r\", equals = \"\" }", false),
            ("{ path = \"/api/\" }", true),
            ("{ path = [\"/v2/\", \"/api/\"] }", true),
            ("{ path = { equals = \"/api/\" } }", false),
            ("{ path = \"/api/\", method = [\"POST\", \"PUT\"] }", true),
            ("{ path = \"/api/\", method = \"GET\" }", false),
            ("{ host = \"API.example.com\" }", true),
            ("{ host = { suffix = \".Example.com\" } }", true),
            ("{ client = \"10.0.0.0/8\" }", true),
            ("{ client = [\"192.0.2.1\", \"::/0\"] }", false),
            ("{ user = { suffix = \"@example.com\" } }", true),
            ("{ user = [\"alice\", \"bob\"] }", false),
            ("{ percentage = 100 }", true),
            ("{ percentage = 0, salt = \"pepper\" }", false),
            ("{ any = [{ path = \"/v2/\" }, { cookie = \"plan\", equals = \"gold\" }] }", true),
            ("{ all = [{ path = \"/v2/\" }, { cookie = \"plan\", equals = \"gold\" }] }", false),
            ("{ path = \"/api/\" }, { path = \"/v2/\" }", false),
        ] {
            check(condition, holds, false);
        }
    }

    #[test]
    fn what_is_missing_is_false_and_its_contrary_is_true() {
        check("{ not = { cookie = \"plan\", equals = \"gold\" } }", false, true);
        check("{ not = { any = [{ path = \"/api/\" }, { user = \"bob\" }] } }", false, true);
        check("{ header = \"x-app-version\", exists = false }", false, true);
        check("{ not = { percentage = 100 } }", false, true);
    }

    #[test]
    fn windows_begin_with_their_first_moment_and_end_before_their_last() {
        check("{ after = 2026-11-21T09:40:00Z }", true, true);
        check("{ after = \"2026-11-21T10:40:00.001+01:00\" }", false, false);
        check("{ before = 2026-11-21T09:40:00Z }", false, false);
        check("{ after = 2026-01-01T00:00:00Z, before = \"2026-12-01T00:00:00Z\" }", true, true);
    }

    #[test]
    fn a_percentage_draws_who_the_flag_draws_unless_it_is_salted() {
        let drawn = |condition: &str| -> Vec<bool> {
            let rules = read(&format!("[[rules]]\nserve = \"canary\"\nwhen = [{condition}]\n")).unwrap();
            let now = Moment::from_unix_millis(0);
            let matches = |user: &str| rules.first_match(&EvaluationContext::of_key(Some(user), now)).is_some();
            (0..200).map(|number| matches(&format!("user-{number}"))).collect()
        };
        let flag = Bucketer::new(HashVersion::FlagdV2, "salt");
        let share = Percentage::from_percent(30.0).unwrap();
        let by_flag: Vec<_> = (0..200).map(|number| share.owns(flag.bucket(&format!("user-{number}")))).collect();
        assert_eq!(drawn("{ percentage = 30 }"), by_flag);
        assert_eq!(drawn("{ percentage = 30, salt = \"salt\" }"), by_flag);
        assert_ne!(drawn("{ percentage = 30, salt = \"pepper\" }"), by_flag);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "[[rules]]\nserve = \"canry\"\nwhen = [\n  { headr = \"x\", equals = \"1\" },\n  { header = \"a b\", regex = \"(\" },\n  \
                    { header = \"x\" },\n  { path = \"api\", method = \"post\" },\n  { client = [\"10.0.0.0/33\"] },\n  \
                    { header = \"x\", cookie = \"y\", exists = true },\n  { percentage = 101 },\n  { salt = \"s\" },\n  \
                    { after = 2026-01-01, before = \"soon\" },\n  { any = [] },\n  {},\n  { host = \"a.test:80\" },\n  \
                    { query = \"q\", prefix = \"\" },\n  { header = \"v\", semver = \"new\" },\n  { not = [] },\n  \
                    { host = \"*.a.test\" },\n  { percentage = \"5%\" },\n]\n\
                    [[rules]]\nserve = \"stable\"\n";
        let found = read(text).unwrap_err();
        let expected = [
            "f.toml:2:9: `rules.serve`: \"canry\" is no arm; did you mean \"canary\"?",
            "f.toml:4:18: `equals` asks nothing by itself; write `header`, `cookie` or `query` beside it, or `path = { \
             equals = … }`",
            "f.toml:4:5: unknown key `rules.when.headr`; did you mean `header`?",
            "f.toml:5:14: `rules.when.header`: there can be no header of the name \"a b\"",
            "f.toml:5:29: `rules.when.regex`: \"(\": unclosed group",
            "f.toml:6:14: nothing is asked of header `x`; add `exists = true`, `equals = …` or the like",
            "f.toml:7:12: \"api\" is no path: a path begins with `/`",
            "f.toml:7:28: \"post\" is no method: methods are in capitals, like \"POST\"",
            "f.toml:8:15: \"10.0.0.0/33\" is no network; write it like \"10.0.0.0/8\" or \"2001:db8::/32\"",
            "f.toml:9:28: a condition asks for one of `header`, `cookie` and `query`; write one table for each",
            "f.toml:10:18: `rules.when.percentage`: a percentage is a number from 0 to 100, not 101",
            "f.toml:11:12: `salt` says who comes first in a `percentage`; there is none beside it",
            "f.toml:12:13: `rules.when.after`: 2026-01-01 is no moment; write date, time and offset as RFC 3339 has \
             them: 2026-12-01T08:00:00Z",
            "f.toml:12:34: `rules.when.before`: soon is no moment; write date, time and offset as RFC 3339 has them: \
             2026-12-01T08:00:00Z",
            "f.toml:13:5: `any` wants at least one condition: `any = [{ … }, …]`",
            "f.toml:14:3: an empty condition would hold for every request; say what it asks",
            "f.toml:15:12: \"a.test:80\" is no host: write its name alone, without scheme, port and path",
            "f.toml:16:27: `rules.when.prefix`: an empty text is part of every text; write `exists = true`",
            "f.toml:17:28: `rules.when.semver`: \"new\": unexpected character 'n' while parsing major version number; \
             write a range like \">=2.3.0\" or \">=2.3, <3\"",
            "f.toml:18:11: `rules.when.not` is a table, not an array",
            "f.toml:19:12: \"*.a.test\" is no host: hosts that end alike are `host = { suffix = \".a.test\" }`",
            "f.toml:20:18: `rules.when.percentage`: wants a number, not a string; write 10 for 10 %",
            "f.toml:22:1: `rules.when` is missing; add `when = [{ path = \"/api/\" }]`",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_rule_without_conditions_is_refused() {
        let problem = |text: &str| read(text).unwrap_err();
        let missing = "f.toml:1:1: `rules.when` is missing; add `when = [{ path = \"/api/\" }]`";
        assert_eq!(problem("[[rules]]\nserve = \"stable\"\n"), [missing]);
        let empty =
            "f.toml:1:1: `rules.when` is empty, and would match every request; add `when = [{ path = \"/api/\" }]`";
        assert_eq!(problem("[[rules]]\nserve = \"stable\"\nwhen = []\n"), [empty]);
        let none = "f.toml:3:12: `any` wants at least one condition: `any = [{ … }, …]`";
        assert_eq!(problem("[[rules]]\nserve = \"stable\"\nwhen = [ { any = [] } ]\n"), [none]);
    }

    #[test]
    fn nesting_has_a_bound() {
        let depth = 10_000;
        let condition = format!("{}path = \"/\"{}", "{ not = ".repeat(depth) + "{ ", " }".repeat(depth + 1));
        let text = format!("[[rules]]\nserve = \"canary\"\nwhen = [{condition}]\n");
        assert!(Document::parse(Path::new("f.toml"), text).is_err());
    }

    #[test]
    fn lines_are_kept() {
        let rules = read("\n[[rules]]\nserve = \"stable\"\nwhen = [\n  { path = \"/a\",\n    method = \"GET\" },\n]\n")
            .unwrap();
        let [rule] = rules.trace(&EvaluationContext::of_key(None, Moment::from_unix_millis(0))).try_into().unwrap();
        let lines: Vec<_> = rule.conditions[0].parts.iter().map(|part| part.line).collect();
        assert_eq!((rule.line, rule.conditions[0].line, lines), (2, 5, vec![5, 6]));
    }
}
