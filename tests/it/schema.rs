//! The flag file's schema, its example and its reader, held to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use crate::harness::{Site, stderr, stdout};

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&file("flags/flag.schema.json")).unwrap()
}

/// A flag file as JSON, its dates as texts.
fn json(text: &str) -> Value {
    fn convert(value: toml::Value) -> Value {
        match value {
            toml::Value::Datetime(moment) => Value::String(moment.to_string()),
            toml::Value::Array(values) => values.into_iter().map(convert).collect(),
            toml::Value::Table(table) => {
                Value::Object(table.into_iter().map(|(key, value)| (key, convert(value))).collect())
            }
            other => serde_json::to_value(other).unwrap(),
        }
    }
    convert(toml::Value::Table(toml::from_str(text).unwrap()))
}

/// Whether `value` is what `schema` describes: as much of JSON Schema as ours uses, which is checked.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let all = |schemas: &Value, value: &Value| schemas.as_array().unwrap().iter().all(|part| valid(root, part, value));
    let number = |limit: &Value| limit.as_f64().unwrap();
    schema.as_object().unwrap().iter().all(|(keyword, wanted)| match keyword.as_str() {
        "$schema" | "$id" | "title" | "description" | "default" | "definitions" => true,
        "$ref" => valid(root, root.pointer(wanted.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(), value),
        "allOf" => all(wanted, value),
        "anyOf" => wanted.as_array().unwrap().iter().any(|part| valid(root, part, value)),
        "enum" => wanted.as_array().unwrap().contains(value),
        "type" => match wanted.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_i64(),
            "boolean" => value.is_boolean(),
            other => panic!("unknown type {other}"),
        },
        "required" => wanted.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(key, value)| wanted.get(key).is_none_or(|schema| valid(root, schema, value)))
        }),
        "additionalProperties" => {
            assert_eq!(wanted, &Value::Bool(false));
            value.as_object().is_none_or(|object| object.keys().all(|key| schema["properties"].get(key).is_some()))
        }
        "minProperties" => value.as_object().is_none_or(|object| object.len() as f64 >= number(wanted)),
        "items" => value.as_array().is_none_or(|values| values.iter().all(|value| valid(root, wanted, value))),
        "minItems" => value.as_array().is_none_or(|values| values.len() as f64 >= number(wanted)),
        "minimum" => value.as_f64().is_none_or(|value| value >= number(wanted)),
        "maximum" => value.as_f64().is_none_or(|value| value <= number(wanted)),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 >= number(wanted)),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as f64 <= number(wanted)),
        // What patterns say, the reader says better; nothing here depends on them.
        "pattern" => true,
        other => panic!("the schema uses `{other}`, which this test does not know"),
    })
}

/// The tables of the schema, by the name that the reader gives them.
fn tables(schema: &Value) -> BTreeMap<&'static str, &Map<String, Value>> {
    let properties = |pointer: &str| schema.pointer(pointer).unwrap()["properties"].as_object().unwrap();
    BTreeMap::from([
        ("", properties("")),
        ("beta.", properties("/properties/beta")),
        ("guard.", properties("/properties/guard")),
        ("guard.tolerance.", properties("/properties/guard/properties/tolerance")),
        ("ramp.", properties("/properties/ramp")),
        ("shadow.", properties("/properties/shadow")),
        ("rules.", properties("/definitions/rule")),
        ("rules.when.", properties("/definitions/condition")),
        ("rules.when.path.", properties("/definitions/operators")),
    ])
}

async fn problems(site: &Site, text: &str) -> Vec<String> {
    site.write("flags/probe.toml", text);
    let output = site.run(&["check", "--json", "flags/probe.toml"]).await;
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    told["problems"].as_array().unwrap().iter().map(|problem| problem.as_str().unwrap().to_owned()).collect()
}

const WHOLE: &str = "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 10\n";

#[tokio::test]
async fn the_reader_knows_the_keys_of_the_schema_and_no_others() {
    let (site, schema) = (Site::builtin(), schema());
    let probe = format!(
        "{WHOLE}zzzz = 1\n[beta]\nzzzz = 1\n[ramp]\nzzzz = 1\n[shadow]\nzzzz = 1\n[guard]\nzzzz = 1\ntolerance = {{ zzzz = 1 }}\n[[rules]]\nserve = \"canary\"\nzzzz = 1\n\
         when = [{{ zzzz = 1, header = \"x\", exists = true, path = {{ zzzz = 1, exists = true }} }}]\n"
    );
    let told = problems(&site, &probe).await;
    for (table, properties) in tables(&schema) {
        let begins = format!("unknown key `{table}zzzz`; known here: ");
        let known = told.iter().find_map(|problem| Some(problem.split_once(&begins)?.1));
        let known: BTreeSet<_> = known.unwrap_or_else(|| panic!("{begins}: {told:?}")).split(", ").collect();
        let described: BTreeSet<_> = properties.keys().map(String::as_str).collect();
        assert!(known.is_superset(&described), "`{table}`: {described:?} are described, {known:?} are read");
        for key in known.difference(&described) {
            let header = if table.is_empty() { String::new() } else { format!("[{}]\n", table.trim_end_matches('.')) };
            let told = problems(&site, &format!("{WHOLE}{header}{key} = 1\n")).await;
            let refused = format!("`{table}{key}` is not supported yet in this version");
            assert!(told.iter().any(|problem| problem.contains(&refused)), "`{table}{key}` is read but not described");
        }
    }
}

#[tokio::test]
async fn the_example_shows_every_key_and_is_one() {
    let (site, schema) = (Site::builtin(), schema());
    let text = file("docs/flag-file.toml");
    let example = json(&text);
    assert!(valid(&schema, &schema, &example));
    assert!(valid(&schema, &schema, &json(&file("flags/async-database.toml"))), "the flag that comes along");

    fn collect<'v>(value: &'v Value, seen: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                seen.insert(key);
                collect(value, seen);
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, seen)),
            _ => {}
        }
    }
    let mut shown = BTreeSet::new();
    collect(&example, &mut shown);
    let described: BTreeSet<_> = tables(&schema).into_values().flat_map(Map::keys).map(String::as_str).collect();
    assert_eq!(shown, described);

    site.write("docs/flag-file.toml", &text);
    site.write("docs/flag-file.beta.txt", "carol\n");
    stdout(&site.run(&["check", "docs/flag-file.toml"]).await);
    // It is commented: each key but those in rules has a comment of its own, or is one that speaks for itself.
    assert!(text.lines().filter(|line| line.contains('#')).count() > 25);
}

#[tokio::test]
async fn what_the_schema_refuses_the_reader_refuses() {
    let (site, schema) = (Site::builtin(), schema());
    for wrong in [
        "owner = 1",
        "description = []",
        "enabled = \"yes\"",
        "salt = 1",
        "hash = \"md5\"",
        "unknown = 1",
        "beta = 1",
        "rules = {}",
        "guard = []",
        "[beta]\nusers = \"alice\"",
        "[beta]\nusers = [\"\"]",
        "[beta]\nusers_file = 1",
        "[guard]\nmax_error_rate = 5",
        "[ramp]\nmax_hold = \"1h\"",
        "[ramp]\nsteps = \"100%\"",
        "[ramp]\nsteps = []",
        "[ramp]\nsteps = [100]",
        "[ramp]\nsteps = [\"100%\"]\nmax_hold = 3600",
        "[ramp]\nsteps = [\"100%\"]\nmin_requests = 0",
        "shadow = 5",
        "[shadow]\ncompare = [\"json\"]",
        "[shadow]\npercentage = 101",
        "[shadow]\npercentage = 5\nnoise = -1",
        "[shadow]\npercentage = 5\nmethods = []",
        "[shadow]\npercentage = 5\nmethods = [\"get\"]",
        "[shadow]\npercentage = 5\ncompare = [\"body\"]",
        "[shadow]\npercentage = 5\nheaders = [\"\"]",
        "[shadow]\npercentage = 5\nignore = \"/at\"",
        "[shadow]\npercentage = 5\nmax_in_flight = 0",
        "[shadow]\npercentage = 5\nmax_body = true",
        "[[rules]]\nserve = \"canary\"",
        "[[rules]]\nserve = \"async\"\nwhen = [{ path = \"/\" }]",
        "[[rules]]\nwhen = [{ path = \"/\" }]",
        "[[rules]]\nserve = \"canary\"\nwhen = []",
        "[[rules]]\nserve = \"canary\"\nwhen = [{}]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ path = 1 }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ path = {} }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ method = [] }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ client = true }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ header = \"\", exists = true }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ header = \"x\", exists = \"yes\" }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ header = \"x\", prefix = \"\" }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ percentage = 101 }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ after = 1 }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ any = [] }]",
        "[[rules]]\nserve = \"canary\"\nwhen = [{ not = [] }]",
    ] {
        let text = format!("{WHOLE}{wrong}\n");
        assert!(!valid(&schema, &schema, &json(&text)), "the schema takes {wrong}");
        assert!(!problems(&site, &text).await.is_empty(), "the reader takes {wrong}");
    }
    for key in ["release", "stable", "canary", "percentage"] {
        let text: String =
            WHOLE.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        assert!(!valid(&schema, &schema, &json(&text)) && !problems(&site, &text).await.is_empty(), "without {key}");
    }
    assert!(valid(&schema, &schema, &json(WHOLE)) && problems(&site, WHOLE).await.is_empty());
}

#[tokio::test]
async fn the_command_prints_the_schema() {
    let site = Site::builtin();
    assert_eq!(stdout(&site.run(&["schema"]).await), file("flags/flag.schema.json"));
    stderr(&site.run(&["schema", "flag"]).await, 2);
}
