//! One decision of Tidegate beside one of other flag engines: the same beta list, then 25 % of users.
//!
//! Each engine is asked the way that is fastest in it: whatever it lets a caller prepare (contexts, parsed input, arenas)
//! is prepared before the clock runs. Tidegate is asked as a request asks it: the set in force is loaded, the flag looked
//! up, its entry kept, and the key hashed.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use arc_swap::ArcSwap;
use bumpalo::Bump;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use datalogic_rs::{Engine, Logic, ParsedData};
use growthbook_rust::growthbook::GrowthBook;
use growthbook_rust::model_public::{GrowthBookAttribute, GrowthBookAttributeValue};
use serde_json::{Value, json};
use tidegate::flag::{
    Arm, BetaList, Bucketer, Entry, EvaluationContext, Flag, FlagKey, FlagSet, Generation, HashVersion, KeyLines, Moment,
    Percentage, Rollout, Rules, evaluate,
};
use tidegate::flag_file::export;
use tidegate::flag_store::FlagStore;
use unleash_yggdrasil::{Context, EngineState};

/// The users who are asked about, over and over: one in eight is on the beta list.
const USERS: usize = 1024;

/// The flag that is asked, in the middle of the others.
const FLAG: &str = "flag-5";

/// With a longer list than this a thousand decisions of GrowthBook take minutes: it goes through the list for each.
const GROWTHBOOK_BEARS: usize = 100_000;

fn user(number: usize) -> String {
    if number.is_multiple_of(8) { format!("beta-{}", number / 8) } else { format!("user-{number}") }
}

fn keys(flags: usize) -> Vec<String> {
    (0..flags).map(|number| format!("flag-{number}")).collect()
}

fn ours(key: &str, beta: &BetaList) -> Flag {
    Flag {
        key: key.parse().unwrap(),
        description: String::new(),
        owner: String::new(),
        enabled: true,
        release: "1".to_owned(),
        stable: "sync".parse().unwrap(),
        canary: "async".parse().unwrap(),
        percentage: Percentage::from_percent(25.0).unwrap(),
        bucketer: Bucketer::new(HashVersion::FlagdV2, key),
        beta: beta.clone(),
        rules: Rules::default(),
        ramp: None,
        shadow: None,
    }
}

fn beta_list(users: usize) -> BetaList {
    let text: String = (0..users).map(|number| format!("beta-{number}\n")).collect();
    BetaList::new([], Some(Arc::new(KeyLines::new(text).unwrap())))
}

fn set(flags: usize, beta: &BetaList) -> FlagSet<()> {
    // Only the flag that is asked has a long list: each engine would hold as many copies as there are flags.
    let short = beta_list(10);
    let entry = |key: String| {
        let flag = Arc::new(ours(&key, if key == FLAG { beta } else { &short }));
        let rollout = Rollout::begin(&flag, Generation::FIRST);
        Arc::new(Entry { flag, rollout, attached: () })
    };
    keys(flags).into_iter().map(entry).collect()
}

struct Tidegate {
    store: Arc<FlagStore<()>>,
    key: FlagKey,
    users: Vec<String>,
}

impl Tidegate {
    fn new(flags: usize, beta: usize) -> Self {
        let store = Arc::new(FlagStore::new(set(flags, &beta_list(beta))));
        Self { store, key: FLAG.parse().unwrap(), users: (0..USERS).map(user).collect() }
    }

    fn decide(&self, number: usize) -> bool {
        let set = self.store.load();
        let Some(entry) = set.get(&self.key) else { return false };
        let user = Some(self.users[number % USERS].as_str());
        let decided = evaluate(&entry.flag, &entry.rollout, &EvaluationContext::of_key(user, Moment::from_unix_millis(0)));
        // What a request keeps, so that a reload changes nothing about it.
        black_box(Arc::clone(entry));
        decided.arm == Arm::Canary
    }
}

/// datalogic-rs on what Tidegate exports for flagd.
struct Datalogic {
    engine: Engine,
    rules: Arc<ArcSwap<HashMap<String, Logic>>>,
    contexts: Vec<ParsedData>,
}

fn compiled(engine: &Engine, flags: usize, beta: &BetaList) -> HashMap<String, Logic> {
    let set = set(flags, beta);
    let one = |entry: &Arc<Entry<()>>| {
        let exported = export([(&*entry.flag, &entry.rollout)]).document;
        let targeting = exported["flags"][entry.flag.key.as_str()]["targeting"].to_string();
        (entry.flag.key.to_string(), engine.compile(targeting.as_str()).unwrap())
    };
    set.entries().into_iter().map(one).collect()
}

impl Datalogic {
    fn new(flags: usize, beta: usize) -> Self {
        let engine = Engine::new();
        let rules = Arc::new(ArcSwap::from_pointee(compiled(&engine, flags, &beta_list(beta))));
        let context = |number| {
            let context = json!({"targetingKey": user(number), "$flagd": {"flagKey": FLAG}});
            ParsedData::from_json(&context.to_string()).unwrap()
        };
        Self { engine, rules, contexts: (0..USERS).map(context).collect() }
    }

    fn decide(&self, arena: &mut Bump, number: usize) -> bool {
        arena.reset();
        let rules = self.rules.load();
        let found = self.engine.evaluate(&rules[FLAG], &self.contexts[number % USERS], arena).unwrap();
        found.as_str() == Some("async")
    }
}

/// Unleash's engine: a strategy for the beta list, and one that draws a quarter of the users.
struct Yggdrasil {
    engine: Arc<EngineState>,
    contexts: Vec<Context>,
}

fn unleash_features(flags: usize, beta: usize) -> Value {
    let listed = |users: usize| (0..users).map(|number| format!("beta-{number}")).collect::<Vec<_>>();
    let feature = |key: String| {
        let users = listed(if key == FLAG { beta } else { 10 });
        let on_list = json!({"contextName": "userId", "operator": "IN", "values": users, "caseInsensitive": false, "inverted": false});
        let drawn = json!({"rollout": "25", "stickiness": "userId", "groupId": key});
        json!({"name": key, "enabled": true, "strategies": [
            {"name": "default", "constraints": [on_list]}, {"name": "flexibleRollout", "parameters": drawn},
        ]})
    };
    json!({"version": 2, "features": keys(flags).into_iter().map(feature).collect::<Vec<_>>()})
}

impl Yggdrasil {
    fn new(flags: usize, beta: usize) -> Self {
        let engine = EngineState::default();
        engine.apply_client_features(serde_json::from_value(unleash_features(flags, beta)).unwrap());
        let context = |number| Context { user_id: Some(user(number)), ..Context::default() };
        Self { engine: Arc::new(engine), contexts: (0..USERS).map(context).collect() }
    }

    fn decide(&self, number: usize) -> bool {
        self.engine.is_enabled(FLAG, &self.contexts[number % USERS], &None)
    }
}

/// GrowthBook's engine itself: its client copies every flag for each decision.
struct Growthbook {
    engine: GrowthBook,
    attributes: Vec<Option<Vec<GrowthBookAttribute>>>,
}

impl Growthbook {
    fn new(flags: usize, beta: usize) -> Self {
        let listed = |users: usize| (0..users).map(|number| format!("beta-{number}")).collect::<Vec<_>>();
        let feature = |key: String| {
            let users = listed(if key == FLAG { beta } else { 10 });
            let rules = json!([
                {"condition": {"id": {"$in": users}}, "force": true},
                {"force": true, "coverage": 0.25, "hashAttribute": "id", "hashVersion": 2},
            ]);
            (key, serde_json::from_value(json!({"defaultValue": false, "rules": rules})).unwrap())
        };
        let engine = GrowthBook {
            forced_variations: None,
            features: keys(flags).into_iter().map(feature).collect(),
            attributes: None,
            sticky_bucket_service: None,
            saved_groups: HashMap::new(),
        };
        let attribute = |number| {
            let id = GrowthBookAttributeValue::String(user(number));
            Some(vec![GrowthBookAttribute::new("id".to_owned(), id)])
        };
        Self { engine, attributes: (0..USERS).map(attribute).collect() }
    }

    fn decide(&self, number: usize) -> bool {
        self.engine.check(FLAG, &self.attributes[number % USERS]).on
    }
}

/// Holds that all of `decide` do what they are compared for: every beta user, and about a quarter of the others.
fn check(name: &str, mut decide: impl FnMut(usize) -> bool) {
    let beta = (0..USERS).step_by(8).filter(|number| decide(*number)).count();
    let others = (0..USERS).filter(|number| number % 8 != 0 && decide(*number)).count();
    assert_eq!(beta, USERS / 8, "{name}: every beta user is on canary");
    // Five standard deviations of a binomial with 896 users at 25 %.
    assert!((160..=288).contains(&others), "{name}: {others} of 896 at 25 %");
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, what: &str, mut decide: impl FnMut(usize) -> bool) {
    check(name, &mut decide);
    let mut number = 0;
    group.bench_function(BenchmarkId::new(name, what), |bencher| {
        bencher.iter(|| {
            number += 1;
            black_box(decide(black_box(number)))
        });
    });
}

fn side_by_side(criterion: &mut Criterion, what: &str, flags: usize, beta: usize) {
    let mut group = criterion.benchmark_group("decision");
    let tidegate = Tidegate::new(flags, beta);
    // The first load of the set in a thread makes that thread's own slot, once and for all.
    black_box(tidegate.decide(0));
    let allocations = measure(|| {
        for number in 0..USERS {
            black_box(tidegate.decide(number));
        }
    });
    assert_eq!(allocations.count_total, 0, "Tidegate allocates for a decision");
    println!("tidegate/{what}: {} allocations in {USERS} decisions", allocations.count_total);
    time(&mut group, "tidegate", what, |number| tidegate.decide(number));
    drop(tidegate);
    let yggdrasil = Yggdrasil::new(flags, beta);
    time(&mut group, "unleash-yggdrasil", what, |number| yggdrasil.decide(number));
    drop(yggdrasil);
    let datalogic = Datalogic::new(flags, beta);
    let mut arena = Bump::new();
    time(&mut group, "datalogic-flagd", what, |number| datalogic.decide(&mut arena, number));
    drop(datalogic);
    let growthbook = Growthbook::new(flags, beta);
    if beta <= GROWTHBOOK_BEARS {
        time(&mut group, "growthbook", what, |number| growthbook.decide(number));
    } else {
        let begun = Instant::now();
        black_box(growthbook.decide(1));
        println!("growthbook/{what}: one decision took {:.0?}, so no more were asked", begun.elapsed());
    }
    group.finish();
}

/// Does `reload` over and over in another thread while `work` runs, and says how often.
fn reloading(mut reload: impl FnMut() + Send + 'static, work: impl FnOnce()) -> u64 {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reloader = thread::spawn({
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        move || {
            while !stop.load(Ordering::Relaxed) {
                reload();
                count.fetch_add(1, Ordering::Relaxed);
                // A reload a millisecond is more than any directory of flags sees.
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    work();
    stop.store(true, Ordering::Relaxed);
    reloader.join().unwrap();
    count.load(Ordering::Relaxed)
}

fn under_reloads(criterion: &mut Criterion) {
    const FLAGS: usize = 1000;
    const BETA: usize = 1000;
    let what = "reloads";
    let mut group = criterion.benchmark_group("decision");
    let tidegate = Tidegate::new(FLAGS, BETA);
    let (store, beta) = (Arc::clone(&tidegate.store), beta_list(BETA));
    let reload = move || store.update(|_| (Some(set(FLAGS, &beta)), ()));
    let count = reloading(reload, || time(&mut group, "tidegate", what, |number| tidegate.decide(number)));
    println!("tidegate: {count} reloads meanwhile");
    let yggdrasil = Yggdrasil::new(FLAGS, BETA);
    let (engine, features) = (Arc::clone(&yggdrasil.engine), unleash_features(FLAGS, BETA));
    let reload = move || drop(engine.apply_client_features(serde_json::from_value(features.clone()).unwrap()));
    let count = reloading(reload, || time(&mut group, "unleash-yggdrasil", what, |number| yggdrasil.decide(number)));
    println!("unleash-yggdrasil: {count} reloads meanwhile");
    let datalogic = Datalogic::new(FLAGS, BETA);
    let (rules, beta) = (Arc::clone(&datalogic.rules), beta_list(BETA));
    let reload = move || rules.store(Arc::new(compiled(&Engine::new(), FLAGS, &beta)));
    let mut arena = Bump::new();
    let count = reloading(reload, || time(&mut group, "datalogic-flagd", what, |number| datalogic.decide(&mut arena, number)));
    println!("datalogic-flagd: {count} reloads meanwhile");
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for flags in [10, 1_000, 10_000] {
        side_by_side(&mut criterion, &format!("{flags} flags"), flags, 1_000);
    }
    under_reloads(&mut criterion);
    side_by_side(&mut criterion, "1000000 beta users", 10, 1_000_000);
    criterion.final_summary();
}
