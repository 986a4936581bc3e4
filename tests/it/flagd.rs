//! flagd's flags and ours: another evaluator decides what we write as we do, and so do we what we read.

use std::net::IpAddr;

use datalogic_rs::Engine;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate::diagnostic::Diagnostic;
use tidegate::flag::{Attributes, EvaluationContext, Flag, Generation, Moment, Percentage, Phase, Rollout, evaluate};
use tidegate::flag_file::{Definition, Expectations, Exported, export, load_file};

use crate::harness::{Site, eventually, flag_text, stderr, stdout};

const BACKENDS: [&str; 2] = ["sync", "async"];

fn read(name: &str, text: &str) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let backends = BACKENDS.map(|name| name.parse().unwrap()).to_vec();
    load_file(&path, &Expectations { backends, flags: vec![] })
}

fn flag(text: &str) -> Flag {
    read("checkout.toml", text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}")).remove(0).flag
}

fn imported(document: &Value) -> Flag {
    let read = read("exported.flagd.json", &document.to_string());
    read.unwrap_or_else(|problems| panic!("{document}\n{problems:?}")).remove(0).flag
}

/// A request, and the evaluation context that an application would make of it.
#[derive(Debug, Clone, Default)]
struct Asked {
    user: Option<String>,
    version: Option<String>,
    plan: Option<String>,
    lang: Option<String>,
    path: String,
    method: String,
    host: String,
    seconds: i64,
}

impl Asked {
    fn context(&self) -> EvaluationContext<'_> {
        let now = Moment::from_unix_millis(self.seconds * 1000);
        EvaluationContext { targeting_key: self.user.as_deref(), now, attributes: self, chosen: None }
    }

    fn as_flagd_has_it(&self, flag: &str) -> Value {
        let mut context = json!({
            "$flagd": {"flagKey": flag, "timestamp": self.seconds},
            "path": self.path, "method": self.method, "host": self.host, "headers": {}, "cookies": {}, "query": {},
        });
        let texts = [
            ("", "targetingKey", &self.user),
            ("headers", "x-app-version", &self.version),
            ("cookies", "plan", &self.plan),
            ("query", "lang", &self.lang),
        ];
        for (part, name, text) in texts {
            if let Some(text) = text {
                let holder = if part.is_empty() { &mut context } else { &mut context[part] };
                holder[name] = json!(text);
            }
        }
        context
    }
}

impl Attributes for Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.version.as_deref().filter(|_| name == "x-app-version")
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        self.plan.as_deref().filter(|_| name == "plan")
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn method(&self) -> Option<&str> {
        Some(&self.method)
    }

    fn host(&self) -> Option<&str> {
        Some(&self.host)
    }

    fn client(&self) -> Option<IpAddr> {
        None
    }
}

/// The variant that a flagd evaluator gives: that of `targeting`, or the default if it has none or gives nothing.
fn flagd(engine: &Engine, document: &Value, key: &str, asked: &Asked) -> String {
    let flag = &document["flags"][key];
    assert_eq!(flag["state"], "ENABLED");
    let default = flag["defaultVariant"].as_str().unwrap();
    let Some(targeting) = flag.get("targeting") else { return default.to_owned() };
    let decided = engine.eval_str(targeting.to_string().as_str(), asked.as_flagd_has_it(key).to_string().as_str());
    let decided = decided.unwrap_or_else(|error| panic!("{targeting}\n{asked:?}: {error}"));
    let variant: Value = serde_json::from_str(&decided).unwrap();
    variant.as_str().unwrap_or(default).to_owned()
}

/// Holds ours, theirs, and ours of what was read back against each other.
#[track_caller]
fn check(engine: &Engine, flag: &Flag, rollout: &Rollout, requests: &[Asked]) {
    let Exported { document, unsaid } = export([(flag, rollout)]);
    assert_eq!(unsaid, [], "{flag:?}");
    let back = imported(&document);
    let began = Rollout::begin(&back, Generation::FIRST);
    for asked in requests {
        let ours = flag.backend(evaluate(flag, rollout, &asked.context()).arm).as_str();
        assert_eq!(flagd(engine, &document, flag.key.as_str(), asked), ours, "{document}\n{asked:?}");
        let read_back = back.backend(evaluate(&back, &began, &asked.context()).arm).as_str();
        assert_eq!(read_back, ours, "read back\n{document}\n{asked:?}\n{:?}", back.rules);
    }
}

/// A condition of those that flagd can say.
fn conditions() -> impl Strategy<Value = String> {
    let texts = || prop::sample::select(vec!["gold", "silver", "g", "ö\\\"", "10"]);
    let operators = || {
        prop_oneof![
            texts().prop_map(|text| format!("equals = \"{text}\"")),
            texts().prop_map(|text| format!("prefix = \"{text}\"")),
            texts().prop_map(|text| format!("suffix = \"{text}\"")),
            texts().prop_map(|text| format!("contains = \"{text}\"")),
            (texts(), texts()).prop_map(|(a, b)| format!("in = [\"{a}\", \"{b}\"]")),
            any::<bool>().prop_map(|wanted| format!("exists = {wanted}")),
        ]
    };
    let ranges =
        prop::sample::select(vec![">=2.3.0", ">=2, <3", "~1.4", "^0.3", "^1.2.3", "=2.3", "2.*", "*", "<1.4.2"]);
    let leaf = prop_oneof![
        (prop::sample::select(vec!["cookie = \"plan\"", "header = \"x-app-version\""]), operators())
            .prop_map(|(of, asks)| format!("{{ {of}, {asks} }}")),
        operators().prop_map(|asks| format!("{{ user = {{ {asks} }} }}")),
        ranges.prop_map(|range| format!("{{ header = \"x-app-version\", semver = \"{range}\" }}")),
        Just("{ path = [\"/api/\", \"/v2/\"], method = \"POST\" }".to_owned()),
        Just("{ host = { suffix = \".example.com\" } }".to_owned()),
        (0_u32..=1000, any::<bool>()).prop_map(|(permille, salted)| {
            let salt = if salted { ", salt = \"pepper\"" } else { "" };
            format!("{{ percentage = {}{salt} }}", f64::from(permille) / 10.0)
        }),
        Just("{ after = 2026-11-21T09:40:00Z }".to_owned()),
        Just("{ before = 2026-11-21T09:40:01Z }".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{ any = [{a}, {b}] }}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{ all = [{a}, {b}] }}")),
            inner.prop_map(|part| format!("{{ not = {part} }}")),
        ]
    })
}

fn flags() -> impl Strategy<Value = String> {
    let rule = (conditions(), any::<bool>()).prop_map(|(when, canary)| {
        format!("[[rules]]\nserve = \"{}\"\nwhen = [{when}]\n", if canary { "canary" } else { "stable" })
    });
    let percentage = prop_oneof![Just(0), Just(100_000), 0_u32..=100_000];
    let salt = prop::option::of(prop::sample::select(vec!["checkout", "pepper", "", "ö"]));
    let beta = prop::option::of(prop::collection::vec("[a-c]{1,2}", 0..4));
    (percentage, salt, any::<u8>(), beta, prop::collection::vec(rule, 0..4)).prop_map(
        |(thousandths, salt, on, beta, rules)| {
            let salt = salt.map_or_else(String::new, |salt| format!("salt = \"{salt}\"\n"));
            let beta = beta.map_or_else(String::new, |users| format!("[beta]\nusers = {users:?}\n"));
            format!(
                "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\nenabled = {}\npercentage = {}\n{salt}{beta}{}",
                on > 20,
                f64::from(thousandths) / 1000.0,
                rules.concat()
            )
        },
    )
}

fn requests() -> impl Strategy<Value = Asked> {
    let user = prop::option::weighted(0.9, prop_oneof!["[a-c]{1,2}", "user-[0-9]{1,4}", "\\PC{1,8}", "(gold|g10)"]);
    let versions = ["2.3.0", "v2.10", "1.4.1", "1.4.2", "0.3.9", "3", "2.4.0-rc.1", "none", "", "gold", "1.2.3.4"];
    let version = prop::option::of(prop::sample::select(versions.to_vec()));
    let plan = prop::option::of(prop::sample::select(vec!["gold", "silver", "g", "ö\"", "", "10"]));
    let path = prop::sample::select(vec!["/", "/api/v1", "/v2/x", "/api"]);
    let method = prop::sample::select(vec!["GET", "POST"]);
    let host = prop::sample::select(vec!["a.example.com", "example.com", ""]);
    let around = 1_795_254_000_i64 - 2..1_795_254_000 + 3;
    (user, version, plan, path, method, host, around).prop_map(|(user, version, plan, path, method, host, seconds)| {
        Asked {
            user,
            version: version.map(str::to_owned),
            plan: plan.map(str::to_owned),
            lang: None,
            path: path.to_owned(),
            method: method.to_owned(),
            host: host.to_owned(),
            seconds,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn another_evaluator_decides_what_is_exported_as_we_do(
        text in flags(),
        phase in prop::sample::select(vec![Phase::Manual, Phase::Manual, Phase::Paused, Phase::RolledBack]),
        moved in prop::option::of(0_u32..=100_000),
        requests in prop::collection::vec(requests(), 1..40),
    ) {
        let flag = flag(&text);
        let mut rollout = Rollout::begin(&flag, Generation::FIRST);
        rollout.phase = phase;
        rollout.percentage = moved.and_then(Percentage::from_thousandths).unwrap_or(rollout.percentage);
        check(&Engine::new(), &flag, &rollout, &requests);
    }
}

#[test]
fn every_user_gets_the_same_variant_at_every_percentage() {
    let engine = Engine::new();
    for (percentage, salt) in [("0.001", ""), ("1", ""), ("25", "salt = \"pepper\"\n"), ("50", ""), ("99.999", "")] {
        let text = format!(
            "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = {percentage}\n{salt}[beta]\nusers = [\"user-7\"]\n"
        );
        let flag = flag(&text);
        let users = (0..1500).map(|number| Asked { user: Some(format!("user-{number}")), ..Asked::default() });
        let requests: Vec<_> = users.chain([Asked::default()]).collect();
        check(&engine, &flag, &Rollout::begin(&flag, Generation::FIRST), &requests);
    }
}

const BOOLEAN: &str = r#"{
  "flags": {
    "checkout": {
      "state": "ENABLED",
      "variants": {"on": true, "off": false},
      "defaultVariant": "off",
      "metadata": {"stable": "sync", "canary": "async", "owner": "shop"},
      "targeting": {"if": [
        {"in": [{"var": "targetingKey"}, ["alice", "bob"]]}, "on",
        {"if": [{"$ref": "testers"}, "on",
          {"if": [{"and": [{"!": [{"starts_with": [{"var": "path"}, "/api/"]}]}, {"==": [{"var": "method"}, "GET"]}]}, null,
            {"fractional": [["on", 25], ["off", 75]]}]}]}
      ]}
    }
  },
  "$evaluators": {
    "testers": {"or": [{"ends_with": [{"var": ["targetingKey", ""]}, "@example.com"]},
                       {"sem_ver": [{"var": "headers.x-app-version"}, ">=", "2.3"]}]}
  }
}
"#;

#[test]
fn a_boolean_flag_decides_as_flagd_has_it_decide() {
    let flag = imported(&serde_json::from_str(BOOLEAN).unwrap());
    assert_eq!((flag.percentage.as_percent(), flag.beta.len(), flag.owner.as_str()), (25.0, 2, "shop"));
    let document: Value = serde_json::from_str(BOOLEAN).unwrap();
    let testers = document["$evaluators"]["testers"].to_string();
    let plain: Value = serde_json::from_str(&BOOLEAN.replace("{\"$ref\": \"testers\"}", &testers)).unwrap();
    let (engine, rollout) = (Engine::new(), Rollout::begin(&flag, Generation::FIRST));
    for number in 0..2000 {
        let user = match number % 4 {
            0 => Some("alice".to_owned()),
            1 => Some(format!("user-{number}@example.com")),
            2 if number < 20 => None,
            _ => Some(format!("user-{number}")),
        };
        let asked = Asked {
            user,
            version: (number % 3 == 0).then(|| "2.3.1".to_owned()),
            path: if number % 5 == 0 { "/api/x" } else { "/" }.to_owned(),
            method: if number % 7 == 0 { "GET" } else { "POST" }.to_owned(),
            ..Asked::default()
        };
        let arm = evaluate(&flag, &rollout, &asked.context()).arm;
        let variant = if flag.backend(arm).as_str() == "async" { "on" } else { "off" };
        assert_eq!(flagd(&engine, &plain, "checkout", &asked), variant, "{asked:?}");
    }
}

/// The problems of a flagd file whose `targeting` is this, but for where the file is.
#[track_caller]
fn refused(targeting: &str, problem: &str) {
    let text = format!(
        "{{\"flags\": {{\"checkout\": {{\"state\": \"ENABLED\", \"defaultVariant\": \"sync\",\n\
         \"variants\": {{\"sync\": \"sync\", \"async\": \"async\"}},\n\"targeting\":\n{targeting}\n}}}}}}\n"
    );
    let problems = read("f.flagd.json", &text).map(|read| format!("{:?}", read[0].flag)).unwrap_err();
    let told = problems[0].to_string();
    assert_eq!(told.split_once("f.flagd.json:").unwrap().1, problem, "{targeting}");
}

#[test]
fn what_cannot_be_exactly_the_same_is_refused_with_its_place() {
    refused(r#"{"if": [true, "asink", null]}"#, "4:15: there is no variant \"asink\"");
    refused(
        r#"{"if": [{"==": [{"var": "email"}, "a@b"]}, "async", null]}"#,
        "4:17: `email` is nothing that Tidegate knows of a request; there are targetingKey, path, method, host, \
         headers.NAME, cookies.NAME and query.NAME",
    );
    refused(
        r#"{"fractional": [["sync", 75], ["async", 25]]}"#,
        "4:31: the canary has the first buckets, so that raising its share only adds users; write it before the other \
         (which draws other users than now)",
    );
    refused(
        r#"{"fractional": [["async", 1], ["sync", 2]]}"#,
        "4:1: 1 of 3 is no percentage in steps of 0.001; let the weights add up to 100 or 100000",
    );
    refused(
        r#"{"fractional": [{"var": "headers.x"}, ["async", 1], ["sync", 1]]}"#,
        "4:17: a `fractional` draws by the user: write `{\"cat\": [{\"var\": \"$flagd.flagKey\"}, {\"var\": \
         \"targetingKey\"}]}`, or nothing, which means the same",
    );
    refused(
        r#"{"if": [{"substr": [{"var": "path"}, 1]}, "async", null]}"#,
        "4:9: `substr` is no condition that Tidegate understands; there are and, or, !, !!, ==, ===, !=, !==, in, \
         starts_with, ends_with, sem_ver, and <, <=, >, >= of the time. A TOML flag file can ask more",
    );
    refused(
        r#"{"if": [{"==": [{"var": "headers.x"}, 1]}, "async", null]}"#,
        "4:39: what a request holds is text: write one in quotes, not an integer",
    );
    refused(r#"{"if": [{"$ref": "testers"}, "async", null]}"#, "4:18: `$evaluators` has no \"testers\"");
    refused(
        r#"{"==": [{"var": "path"}, "/"]}"#,
        "4:1: `==` decides nothing by itself; write `{\"if\": [{\"==\": …}, VARIANT, VARIANT]}`",
    );
    refused(
        r#"{"if": [{"in": [{"var": "method"}, ["post"]]}, "async", null]}"#,
        "4:37: \"post\" is no method: methods are in capitals, like \"POST\"",
    );
    let told = |text: &str| read("f.flagd.json", text).unwrap_err()[0].message.clone();
    assert_eq!(told("{}"), "`flags` is missing; write `{\"flags\": { … }}`");
    assert_eq!(told("{\"flags\": {}, \"flag\": {}}"), "unknown key `flag`; did you mean `flags`?");
    let circle = r#"{"flags": {"a": {"state": "ENABLED", "defaultVariant": "s", "variants": {"s": "sync", "c": "async"},
        "targeting": {"if": [{"$ref": "x"}, "c", "s"]}}}, "$evaluators": {"x": {"$ref": "y"}, "y": {"$ref": "x"}}}"#;
    assert_eq!(told(circle), "this reference leads on to others, and perhaps in a circle");
    let growing = r#"{"flags": {"a": {"state": "ENABLED", "defaultVariant": "s", "variants": {"s": "sync", "c": "async"},
        "targeting": {"if": [{"$ref": "x"}, "c", "s"]}}}, "$evaluators": {"x": {"and": [{"$ref": "x"}, {"$ref": "x"}]}}}"#;
    assert!(told(growing).contains("without end"), "{}", told(growing));
    let shared: String = (0..40)
        .map(|n| format!("\"x{n}\": {{\"or\": [{{\"$ref\": \"x{}\"}}, {{\"$ref\": \"x{}\"}}]}}, ", n + 1, n + 1))
        .collect();
    let doubling = circle
        .replace("\"$ref\": \"x\"", "\"$ref\": \"x0\"")
        .replace("\"x\":", &format!("{shared} \"x40\":"))
        .replace("\"x40\": {\"$ref\": \"y\"}", "\"x40\": true");
    assert!(told(&doubling).starts_with("this comes to too much"), "{}", told(&doubling));
    let boolean = BOOLEAN.replace("\"stable\": \"sync\", ", "");
    assert!(told(&boolean).starts_with("true and false name no backends; add `\"metadata\""), "{}", told(&boolean));
    let unknown = BOOLEAN.replace("\"async\"", "\"asynk\"");
    assert!(told(&unknown).contains("no backend is named `asynk`"), "{}", told(&unknown));
}

#[tokio::test]
async fn a_gateway_serves_and_exports_flagd_files() {
    let site = Site::builtin();
    site.write("flags/shop.flagd.json", BOOLEAN);
    let checked = site.run(&["check"]).await;
    assert!(stdout(&checked).contains("flags/shop.flagd.json: sync, and async for 25 %"), "{}", stdout(&checked));
    let gateway = site.start().await;
    let run = async |arguments: &[&str]| gateway.cli(&site, arguments).await;
    let explained = stdout(&run(&["explain", "checkout", "--user", "alice"]).await);
    assert!(explained.contains("BETA") && explained.contains("flags/shop.flagd.json:9"), "{explained}");
    let offline = stdout(&site.run(&["explain", "checkout", "--user", "x@example.com", "--offline"]).await);
    assert!(offline.contains("RULE"), "{offline}");

    stdout(&run(&["set", "checkout", "60"]).await);
    let exported = run(&["export", "--flagd", "checkout"]).await;
    let document: Value = serde_json::from_str(&stdout(&exported)).unwrap();
    assert_eq!(document["flags"].as_object().unwrap().keys().collect::<Vec<_>>(), ["checkout"]);
    assert_eq!(imported(&document).percentage.as_percent(), 60.0, "the rollout in force, not the file");
    stdout(&run(&["rollback", "checkout"]).await);
    let document: Value = serde_json::from_str(&stdout(&run(&["export", "--flagd", "checkout"]).await)).unwrap();
    assert_eq!(document["flags"]["checkout"].get("targeting"), None, "everyone is on stable");

    site.write("flags/shop.flagd.json", &BOOLEAN.replace("\"on\", 25", "\"on\", 2.5"));
    eventually("the bad file is told", || async {
        let problems = gateway.admin_json("/ready").await["problems"].to_string();
        problems.contains("flags/shop.flagd.json:12:29")
    })
    .await;
    assert!(stderr(&site.run(&["check"]).await, 1).contains("a bucket is `[\"VARIANT\", WEIGHT]`"));
}

#[tokio::test]
async fn what_flagd_cannot_be_told_is_named_and_the_exit_code_says_so() {
    let site = Site::builtin();
    let flag = flag_text(10.0);
    let rules = "[[rules]]\nserve = \"canary\"\nwhen = [{ path = \"/a\" }]\n\
                 [[rules]]\nserve = \"stable\"\nwhen = [{ client = \"10.0.0.0/8\" }]\n";
    site.write("flags/async-database.toml", &format!("{flag}{rules}"));
    site.write("flags/other.toml", &flag.replace("percentage = 10", "percentage = 10\nhash = \"flagd-v3\""));
    let exported = site.run(&["export", "--flagd", "--offline"]).await;
    let told = stderr(&exported, 1);
    assert!(told.contains("async-database: rule 2 on line 11 is left out: flagd knows nothing of networks"), "{told}");
    assert!(told.contains("other is left out: `hash = \"flagd-v3\"`"), "{told}");
    let document: Value = serde_json::from_str(&String::from_utf8(exported.stdout).unwrap()).unwrap();
    assert_eq!(document["flags"].as_object().unwrap().len(), 1);
    assert!(document["flags"]["async-database"]["targeting"].to_string().contains("starts_with"));
    assert!(stderr(&site.run(&["export"]).await, 2).contains("--flagd"), "a format has to be named");
    let unknown = site.run(&["export", "--flagd", "--offline", "nothing"]).await;
    assert!(stderr(&unknown, 1).contains("there is no flag `nothing`"));
}
