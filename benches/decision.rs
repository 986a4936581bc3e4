//! What a decision costs on the request path: the snapshot, the evaluation, and the charge of its outcome.
//!
//! Before anything is timed, a counting allocator shows that none of it allocates.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::flag::{
    Arm, Attribute, Attributes, Bucketer, Condition, EvaluationContext, Flag, FlagKey, FlagSet, Generation,
    HashVersion, Moment, Percentage, Rollout, Rule, Rules, Test, TextTest, evaluate,
};
use tidegate::flag_store::FlagStore;
use tidegate::outcome::{Failure, FailureClasses, Outcome};
use tidegate::recorder::{Answer, Ending, Met, Party, RecordedFlag, RecordedFlagStore, Recorder, Unit};

fn store(recorder: &Recorder) -> (RecordedFlagStore, FlagKey) {
    let flag = Arc::new(Flag {
        key: "async-database".parse().unwrap(),
        description: String::new(),
        owner: String::new(),
        enabled: true,
        release: "1".to_owned(),
        stable: "sync".parse().unwrap(),
        canary: "async".parse().unwrap(),
        percentage: Percentage::from_percent(25.0).unwrap(),
        bucketer: Bucketer::new(HashVersion::FlagdV2, "async-database"),
        beta: (0..1000).map(|number| format!("beta-{number}")).collect(),
        rules: Rules::default(),
        ramp: None,
        shadow: None,
    });
    let rollout = Rollout::begin(&flag, Generation::FIRST);
    let attached = recorder.open(&flag, FailureClasses::default());
    let key = flag.key.clone();
    let entry = Arc::new(RecordedFlag { flag, rollout, attached });
    (FlagStore::new(FlagSet::from_iter([entry])), key)
}

/// A request whose text is decoded, put in lower case, searched and compared: whatever a rule can ask of it.
#[derive(Debug)]
struct Asked;

impl Attributes for Asked {
    fn header(&self, name: &str) -> Option<&str> {
        (name == "x-app-version").then_some("v2.4.1+build.7")
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        (name == "plan").then_some("gold")
    }

    fn query(&self) -> Option<&str> {
        Some("page=2&country=s%C3%A3o+tom%C3%A9")
    }

    fn path(&self) -> Option<&str> {
        Some("/api/v1/parse-jd")
    }

    fn method(&self) -> Option<&str> {
        Some("POST")
    }

    fn host(&self) -> Option<&str> {
        Some("API.Example.com:8080")
    }

    fn client(&self) -> Option<IpAddr> {
        Some([192, 0, 2, 7].into())
    }
}

fn asked(user: &str) -> EvaluationContext<'_> {
    EvaluationContext {
        targeting_key: Some(user),
        now: Moment::from_unix_millis(1_795_254_000_000),
        attributes: &Asked,
        chosen: None,
    }
}

/// Rules of every kind of condition, of which only the last condition of the last rule fails.
fn rules(bucketer: &Bucketer) -> Rules {
    let text = |attribute, test| Condition { test: Test::Text(attribute, test), line: 0 };
    let plain = |test| Condition { test, line: 0 };
    let holding = || {
        vec![
            text(Attribute::Path, TextTest::Prefix("/api/".into())),
            text(Attribute::Method, TextTest::In(["POST".into(), "PUT".into()].into())),
            text(Attribute::Host, TextTest::Suffix(".example.com".into())),
            text(Attribute::Header("x-app-version".into()), TextTest::Semver(">=2.3.0".parse().unwrap())),
            text(Attribute::Cookie("plan".into()), TextTest::Equals("gold".into())),
            text(Attribute::Query("country".into()), TextTest::Contains("são".into())),
            text(Attribute::User, TextTest::Regex(r"^user-\d+$".parse().unwrap())),
            plain(Test::Client(["10.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap()].into())),
            plain(Test::Percentage(Percentage::FULL, bucketer.clone())),
            plain(Test::After(Moment::from_unix_millis(0))),
            plain(Test::Before(Moment::from_unix_millis(i64::MAX))),
        ]
    };
    let failing = text(Attribute::Header("x-missing".into()), TextTest::Exists(true));
    let any = plain(Test::Any(holding().into()));
    let not = plain(Test::Not(Box::new(plain(Test::All(holding().into())))));
    let all = holding().into_iter().chain([any, failing]).collect();
    let rule = |when: Vec<Condition>| Rule { when: when.into(), serve: Arm::Canary, line: 0 };
    Rules::from_iter([rule(vec![not]), rule(all)])
}

/// What the request path does between identity and upstream.
fn decide(store: &RecordedFlagStore, key: &FlagKey, user: &str) -> Arc<RecordedFlag> {
    let flags = store.load();
    let entry = flags.get(key).expect("the flag is there");
    black_box(evaluate(&entry.flag, &entry.rollout, &asked(user)));
    Arc::clone(entry)
}

fn decision(criterion: &mut Criterion) {
    let recorder = Recorder::new();
    let (store, key) = store(&recorder);
    let entry = decide(&store, &key, "user-1");
    let party = |hash| Party { unit: Some(Unit::from_hash(hash)), drawn: true };
    let charge = |entry: &RecordedFlag| {
        let ending = |outcome, duration| Ending { outcome, duration, met: Met::User, request_id: "a request" };
        let failure = Outcome::Failure(Failure::Status);
        if let Some(wait) = entry.attached.begin_wait(Arm::Canary, party(7)) {
            entry.attached.end_wait(Arm::Canary, wait, Duration::from_micros(1200), Answer::Good, "request");
        }
        entry.attached.charge(Arm::Stable, party(7), ending(Outcome::Success, Duration::from_micros(1234)));
        entry.attached.charge(Arm::Canary, party(8), ending(failure, Duration::from_secs(3)));
    };
    let ruled = Flag { rules: rules(&entry.flag.bucketer), ..Flag::clone(&entry.flag) };
    let allocations = measure(|| {
        black_box(evaluate(&ruled, &entry.rollout, &asked("user-42")));
        drop(decide(&store, &key, "user-42"));
        drop(decide(&store, &key, "beta-7"));
        charge(&entry);
    });
    assert_eq!(allocations.count_total, 0, "the request path allocates for its decision");

    criterion.bench_function("evaluate", |bencher| {
        bencher.iter(|| evaluate(&entry.flag, &entry.rollout, &asked(black_box("user-42"))));
    });
    criterion.bench_function("evaluate, after two rules of 25 conditions", |bencher| {
        bencher.iter(|| evaluate(&ruled, &entry.rollout, &asked(black_box("user-42"))));
    });
    criterion.bench_function("load, look up and evaluate", |bencher| {
        bencher.iter(|| decide(&store, &key, black_box("user-42")));
    });
    criterion.bench_function("charge two outcomes", |bencher| bencher.iter(|| charge(black_box(&entry))));
}

criterion_group!(benches, decision);
criterion_main!(benches);
