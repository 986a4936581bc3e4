//! From flagd's `targeting` to rules and a percentage.
//!
//! flagd decides by a tree of `if`s whose leaves are variants or a `fractional`. A rule of ours serves an arm when all of
//! its conditions hold, and the first that matches decides. So each leaf becomes a rule with the conditions on the way to
//! it, in the order in which flagd would come by; the leaf that nothing leads to is the flag's percentage.

use std::collections::BTreeMap;

use crate::diagnostic::Place;
use crate::document::{Data, Problems, Table, Value};
use crate::flag::{
    Arm, Attribute, BUCKETS, BackendName, Bucketer, Condition, FlagKey, HashVersion, MAX_TARGETING_KEY_BYTES,
    Percentage, Rule, Test, TextTest,
};
use crate::flag_file::flagd::condition::{Found, condition, following, operation, variable_of};
use crate::flag_file::flagd::{FLAG_KEY, TARGETING_KEY};

/// How many values and list entries one flag may come to, shared rules counted wherever they are used: shared rules that
/// use each other could otherwise grow without bound.
const MAX_STEPS: usize = 2_000_000;

/// How deep operations may be in each other, shared rules followed.
const MAX_DEPTH: usize = 150;

/// The arm that each variant is.
#[derive(Debug)]
pub(crate) struct Variants {
    pub(crate) stable: BackendName,
    pub(crate) canary: BackendName,
    pub(crate) arms: BTreeMap<String, Arm>,
    pub(crate) default: Arm,
}

/// How a flag decides.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) rules: Vec<Rule>,
    pub(crate) percentage: Percentage,
    pub(crate) bucketer: Bucketer,
}

/// Reads the `targeting` of the flag `key`; without one it is the default variant for everyone.
pub(crate) fn decided(
    targeting: Option<&Value>,
    key: &FlagKey,
    variants: &Variants,
    evaluators: Option<&Table>,
    problems: &Problems,
) -> Option<Decided> {
    let mut reading =
        Reading { key, variants, evaluators, problems, steps: 0, depth: 0, rules: Vec::new(), share: None };
    if let Some(targeting) = targeting {
        reading.read(targeting, &[])?;
    }
    let plain = || (share_of(variants.default), Bucketer::new(HashVersion::FlagdV2, key.as_str()));
    let (percentage, bucketer) = reading.share.take().unwrap_or_else(plain);
    Some(Decided { rules: reading.rules, percentage, bucketer })
}

/// Reads one flag's `targeting`.
pub(crate) struct Reading<'r> {
    pub(crate) key: &'r FlagKey,
    variants: &'r Variants,
    pub(crate) evaluators: Option<&'r Table>,
    problems: &'r Problems,
    steps: usize,
    depth: usize,
    rules: Vec<Rule>,
    /// Who is on canary where nothing else decides, once it is found.
    share: Option<(Percentage, Bucketer)>,
}

impl<'r> Reading<'r> {
    pub(crate) fn refuse<T>(&self, place: &Place, message: impl Into<String>) -> Option<T> {
        self.problems.report(place, message);
        None
    }

    /// Counts `steps` more; `None` if they are too many.
    pub(crate) fn step(&mut self, steps: usize, place: &Place) -> Option<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps <= MAX_STEPS {
            return Some(());
        }
        self.refuse(place, "this comes to too much; put long lists of users into a `users_file` of a TOML flag file")
    }

    /// Does `work` one step further down; `None` if that is too deep.
    pub(crate) fn deeper<T>(&mut self, place: &Place, work: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == MAX_DEPTH {
            return self.refuse(place, "operations and shared rules are in each other too deep, or without end");
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    /// Makes rules of what decides where all of `given` holds.
    fn read(&mut self, value: &'r Value, given: &[Condition]) -> Option<()> {
        self.deeper(&value.place, |reading| reading.read_one(value, given))
    }

    fn read_one(&mut self, value: &'r Value, given: &[Condition]) -> Option<()> {
        let value = following(self, value)?;
        self.step(1, &value.place)?;
        match &value.data {
            Data::Null => self.leaf(self.variants.default, given, &value.place),
            Data::String(_) | Data::Boolean(_) => {
                let arm = self.arm(value)?;
                self.leaf(arm, given, &value.place)
            }
            Data::Table(_) => {
                let (name, arguments) = operation(self, value)?;
                match name {
                    "if" => self.branches(arguments, given, &value.place),
                    "fractional" => self.fractional(arguments, given, &value.place),
                    _ => self.refuse(
                        &value.place,
                        format!("`{name}` decides nothing by itself; write `{{\"if\": [{{\"{name}\": …}}, VARIANT, VARIANT]}}`"),
                    ),
                }
            }
            other => {
                let message = format!("a variant's name, `if` or `fractional` should be here, not {}", other.kind());
                self.refuse(&value.place, message)
            }
        }
    }

    fn branches(&mut self, arguments: &'r [Value], given: &[Condition], place: &Place) -> Option<()> {
        let mut rest = arguments;
        loop {
            match rest {
                [] => return self.leaf(self.variants.default, given, place),
                [otherwise] => return self.read(otherwise, given),
                [asked, then, after @ ..] => {
                    rest = after;
                    match condition(self, asked)? {
                        Found::Always => return self.read(then, given),
                        Found::Never => {}
                        Found::When(asked) => {
                            if has_key(&asked) && self.is_share(then) && self.is_default(after) {
                                return self.read(then, given);
                            }
                            let given: Vec<_> = given.iter().cloned().chain([asked]).collect();
                            self.read(then, &given)?;
                        }
                    }
                }
            }
        }
    }

    /// Whether this is a `fractional`, which gives the default variant by itself where there is no user.
    fn is_share(&mut self, value: &'r Value) -> bool {
        let table = following(self, value).map(|value| &value.data);
        matches!(table, Some(Data::Table(table)) if table.get("fractional").is_some())
    }

    fn is_default(&self, rest: &[Value]) -> bool {
        match rest {
            [] => true,
            [Value { data: Data::Null, .. }] => true,
            [Value { data: Data::String(name), .. }] => self.variants.arms.get(name) == Some(&self.variants.default),
            _ => false,
        }
    }

    fn leaf(&mut self, arm: Arm, given: &[Condition], place: &Place) -> Option<()> {
        if given.is_empty() {
            let plain = Bucketer::new(HashVersion::FlagdV2, self.key.as_str());
            self.share.get_or_insert((share_of(arm), plain));
            return Some(());
        }
        self.rule(given.to_vec(), arm, place)
    }

    fn rule(&mut self, when: Vec<Condition>, serve: Arm, place: &Place) -> Option<()> {
        self.step(when.iter().map(size).sum(), place)?;
        let line = when.last().map_or_else(|| place.line(), |condition| condition.line);
        self.rules.push(Rule { when: when.into(), serve, line });
        Some(())
    }

    fn fractional(&mut self, arguments: &'r [Value], given: &[Condition], place: &Place) -> Option<()> {
        let (percentage, bucketer) = self.drawn(arguments, place, |reading, value| {
            Some(match &value.data {
                Data::Null => reading.variants.default == Arm::Canary,
                _ => reading.arm(value)? == Arm::Canary,
            })
        })?;
        let (default, line) = (self.variants.default, place.line());
        let user = |is_there| Condition { test: Test::Text(Attribute::User, TextTest::Exists(is_there)), line };
        if given.is_empty() {
            if default != (if percentage == Percentage::FULL { Arm::Canary } else { Arm::Stable }) {
                self.rule(vec![user(false)], default, place)?;
            }
            self.share.get_or_insert((percentage, bucketer));
            return Some(());
        }
        let drawn = Condition { test: Test::Percentage(percentage, bucketer), line };
        let with = |more: Option<Condition>| given.iter().cloned().chain(more).collect::<Vec<_>>();
        self.rule(with(Some(drawn)), Arm::Canary, place)?;
        if default == Arm::Canary {
            self.rule(with(Some(user(true))), Arm::Stable, place)?;
        }
        self.rule(with(None), default, place)
    }

    /// The share that a `fractional` gives to what `is_inside` accepts, which must come first.
    pub(crate) fn drawn(
        &mut self,
        arguments: &'r [Value],
        place: &Place,
        mut is_inside: impl FnMut(&mut Self, &Value) -> Option<bool>,
    ) -> Option<(Percentage, Bucketer)> {
        let (salt, buckets) = match arguments {
            [first, rest @ ..] if !matches!(first.data, Data::Array(_)) => (self.salt(first)?, rest),
            all => (self.key.to_string(), all),
        };
        let (mut inside, mut total, mut is_over) = (0_u64, 0_u64, false);
        for bucket in buckets {
            self.step(1, &bucket.place)?;
            let (name, weight) = match &bucket.data {
                Data::Array(parts) => match parts.as_slice() {
                    [name] => (name, 1),
                    [name, Value { data: Data::Integer(weight @ 0..=0x7fff_ffff), .. }] => {
                        (name, weight.cast_unsigned())
                    }
                    _ => {
                        return self.refuse(
                            &bucket.place,
                            "a bucket is `[\"VARIANT\", WEIGHT]`, its weight a whole number from 0",
                        );
                    }
                },
                other => {
                    let message = format!("a bucket is `[\"VARIANT\", WEIGHT]`, not {}", other.kind());
                    return self.refuse(&bucket.place, message);
                }
            };
            total += weight;
            match (is_inside(self, name)?, weight) {
                (_, 0) => {}
                (false, _) => is_over = true,
                (true, _) if is_over => {
                    let message = "the canary has the first buckets, so that raising its share only adds users; write it before \
                                   the other (which draws other users than now)";
                    return self.refuse(&bucket.place, message);
                }
                (true, weight) => inside += weight,
            }
        }
        if total == 0 || total > i32::MAX.unsigned_abs().into() {
            return self.refuse(place, "the weights add up to 1 at least, and to 2147483647 at most");
        }
        let scaled = inside * u64::from(BUCKETS);
        let percentage = u32::try_from(scaled / total).ok().and_then(Percentage::from_thousandths);
        match percentage.filter(|_| scaled.is_multiple_of(total)) {
            Some(percentage) => Some((percentage, Bucketer::new(HashVersion::FlagdV2, &salt))),
            None => self.refuse(
                place,
                format!(
                    "{inside} of {total} is no percentage in steps of 0.001; let the weights add up to 100 or 100000"
                ),
            ),
        }
    }

    /// What is hashed before the user: `fractional` must hash the user last, and nothing but fixed text before.
    fn salt(&mut self, value: &'r Value) -> Option<String> {
        let value = following(self, value)?;
        if matches!(value.data, Data::Null) {
            return Some(self.key.to_string());
        }
        let wrong = "a `fractional` draws by the user: write `{\"cat\": [{\"var\": \"$flagd.flagKey\"}, {\"var\": \
                     \"targetingKey\"}]}`, or nothing, which means the same";
        if variable_of(value).is_some_and(|(name, _)| name == TARGETING_KEY) {
            return Some(String::new());
        }
        let Data::Table(_) = &value.data else { return self.refuse(&value.place, wrong) };
        let ("cat", [before @ .., last]) = operation(self, value)? else { return self.refuse(&value.place, wrong) };
        if variable_of(last).is_none_or(|(name, _)| name != TARGETING_KEY) {
            return self.refuse(&last.place, wrong);
        }
        let mut salt = String::new();
        for part in before {
            match (&part.data, variable_of(part)) {
                (Data::String(text), _) => salt.push_str(text),
                (_, Some((FLAG_KEY, _))) => salt.push_str(self.key.as_str()),
                _ => return self.refuse(&part.place, wrong),
            }
        }
        Some(salt)
    }

    fn arm(&self, value: &Value) -> Option<Arm> {
        let name = match &value.data {
            Data::String(name) => name.as_str(),
            Data::Boolean(true) => "true",
            Data::Boolean(false) => "false",
            other => {
                return self.refuse(&value.place, format!("a variant's name should be here, not {}", other.kind()));
            }
        };
        let arm = self.variants.arms.get(name).copied();
        arm.or_else(|| self.refuse(&value.place, format!("there is no variant \"{name}\"")))
    }
}

/// Whether a condition asks for nothing but a user.
fn has_key(condition: &Condition) -> bool {
    condition.test == Test::Text(Attribute::User, TextTest::Exists(true))
}

/// How much a condition holds.
fn size(condition: &Condition) -> usize {
    match &condition.test {
        Test::All(parts) | Test::Any(parts) => parts.iter().map(size).sum(),
        Test::Not(part) => size(part),
        Test::Text(_, TextTest::In(texts)) => texts.len(),
        Test::Text(..) | Test::Client(_) | Test::Percentage(..) | Test::After(_) | Test::Before(_) => 1,
    }
}

/// Whether `text` can be a targeting key.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=MAX_TARGETING_KEY_BYTES).contains(&text.len())
}

fn share_of(arm: Arm) -> Percentage {
    match arm {
        Arm::Stable => Percentage::ZERO,
        Arm::Canary => Percentage::FULL,
    }
}
