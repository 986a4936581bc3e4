//! What a decision costs on the request path: the snapshot, the evaluation, and the charge of its outcome.
//!
//! Before anything is timed, a counting allocator shows that none of it allocates.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::flag::{Arm, Bucketer, Flag, FlagKey, FlagSet, Generation, HashVersion, Percentage, Rollout, evaluate};
use tidegate::flag_store::FlagStore;
use tidegate::outcome::{Failure, Outcome};
use tidegate::recorder::{RecordedFlag, RecordedFlagStore, Recorder, Unit};

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
    });
    let rollout = Rollout::begin(&flag, Generation::FIRST);
    let attached = recorder.open(&flag);
    let key = flag.key.clone();
    let entry = Arc::new(RecordedFlag { flag, rollout, attached });
    (FlagStore::new(FlagSet::from_iter([entry])), key)
}

/// What the request path does between identity and upstream.
fn decide(store: &RecordedFlagStore, key: &FlagKey, user: &str) -> Arc<RecordedFlag> {
    let flags = store.load();
    let entry = flags.get(key).expect("the flag is there");
    black_box(evaluate(&entry.flag, &entry.rollout, Some(user)));
    Arc::clone(entry)
}

fn decision(criterion: &mut Criterion) {
    let recorder = Recorder::new();
    let (store, key) = store(&recorder);
    let entry = decide(&store, &key, "user-1");
    let charge = |entry: &RecordedFlag| {
        entry.attached.charge(Arm::Canary, Some(Unit::from_hash(7)), Outcome::Success, Duration::from_micros(1234));
        entry.attached.charge(
            Arm::Stable,
            Some(Unit::from_hash(8)),
            Outcome::Failure(Failure::Status),
            Duration::from_secs(3),
        );
    };
    let allocations = measure(|| {
        drop(decide(&store, &key, "user-42"));
        drop(decide(&store, &key, "beta-7"));
        charge(&entry);
    });
    assert_eq!(allocations.count_total, 0, "the request path allocates for its decision");

    criterion.bench_function("evaluate", |bencher| {
        bencher.iter(|| evaluate(&entry.flag, &entry.rollout, black_box(Some("user-42"))));
    });
    criterion.bench_function("load, look up and evaluate", |bencher| {
        bencher.iter(|| decide(&store, &key, black_box("user-42")));
    });
    criterion.bench_function("charge two outcomes", |bencher| bencher.iter(|| charge(black_box(&entry))));
}

criterion_group!(benches, decision);
criterion_main!(benches);
