//! Conditions of flagd's `targeting`, as conditions of ours.

use hashbrown::HashSet;

use crate::diagnostic::Place;
use crate::document::{Data, Key, Value};
use crate::flag::{Attribute, Comparison, Condition, Moment, Percentage, Test, TextTest, VersionTest};
use crate::flag_file::flagd::targeting::{Reading, is_key};
use crate::flag_file::flagd::{TIMESTAMP, attribute};
use crate::flag_file::rules::fitting;

/// How many references to shared rules may follow on each other.
const MAX_REFERENCES: usize = 16;

/// What is understood as a condition.
const OPERATORS: &str =
    "and, or, !, !!, ==, ===, !=, !==, in, starts_with, ends_with, sem_ver, and <, <=, >, >= of the time";

/// A condition that was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It holds for every request.
    Always,
    /// It holds for none.
    Never,
    /// It holds when this does.
    When(Condition),
}

impl Found {
    fn of(truth: bool) -> Self {
        if truth { Self::Always } else { Self::Never }
    }

    fn text(attribute: Attribute, test: TextTest, place: &Place) -> Self {
        Self::when(Test::Text(attribute, test), place)
    }

    fn when(test: Test, place: &Place) -> Self {
        Self::When(Condition { test, line: place.line() })
    }

    fn negated(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::When(Condition { test: Test::Text(attribute, TextTest::Exists(wanted)), line }) => {
                Self::When(Condition { test: Test::Text(attribute, TextTest::Exists(!wanted)), line })
            }
            Self::When(Condition { test: Test::Not(part), .. }) => Self::When(*part),
            Self::When(part) => {
                let line = part.line;
                Self::When(Condition { test: Test::Not(Box::new(part)), line })
            }
        }
    }
}

/// What a reference to a shared rule leads to; anything else leads to itself.
pub(crate) fn following<'r>(reading: &mut Reading<'r>, value: &'r Value) -> Option<&'r Value> {
    let mut found = value;
    for _ in 0..MAX_REFERENCES {
        let Data::Table(table) = &found.data else { return Some(found) };
        let [(Key { text: key, .. }, Value { data: Data::String(name), place })] = table.entries() else {
            return Some(found);
        };
        if key != "$ref" {
            return Some(found);
        }
        let shared = reading.evaluators.and_then(|evaluators| evaluators.get(name));
        found = shared.or_else(|| reading.refuse(place, format!("`$evaluators` has no \"{name}\"")))?;
    }
    reading.refuse(&value.place, "this reference leads on to others, and perhaps in a circle")
}

/// The operation that an object is, and what it is applied to: one thing may stand without its brackets.
pub(crate) fn operation<'r>(reading: &Reading<'r>, value: &'r Value) -> Option<(&'r str, &'r [Value])> {
    let Data::Table(table) = &value.data else {
        return reading.refuse(&value.place, format!("an operation should be here, not {}", value.data.kind()));
    };
    let [(key, applied)] = table.entries() else {
        return reading.refuse(&value.place, "an operation is an object with one key");
    };
    let arguments = match &applied.data {
        Data::Array(arguments) => arguments.as_slice(),
        _ => std::slice::from_ref(applied),
    };
    Some((&key.text, arguments))
}

/// The name of a variable, and what stands for it where it is missing.
pub(crate) fn variable_of(value: &Value) -> Option<(&str, Option<&Value>)> {
    let Data::Table(table) = &value.data else { return None };
    let [(Key { text: key, .. }, named)] = table.entries() else { return None };
    if key != "var" {
        return None;
    }
    match &named.data {
        Data::String(name) => Some((name, None)),
        Data::Array(parts) => match parts.as_slice() {
            [Value { data: Data::String(name), .. }] => Some((name, None)),
            [Value { data: Data::String(name), .. }, default] => Some((name, Some(default))),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn condition<'r>(reading: &mut Reading<'r>, value: &'r Value) -> Option<Found> {
    reading.deeper(&value.place, |reading| one(reading, value))
}

fn one<'r>(reading: &mut Reading<'r>, value: &'r Value) -> Option<Found> {
    let value = following(reading, value)?;
    let place = &value.place;
    reading.step(1, place)?;
    match &value.data {
        Data::Null => return Some(Found::Never),
        Data::Boolean(truth) => return Some(Found::of(*truth)),
        Data::Table(_) => {}
        other => return reading.refuse(place, format!("a condition should be here, not {}", other.kind())),
    }
    if variable_of(value).is_some() {
        return truth(reading, value);
    }
    let (name, arguments) = operation(reading, value)?;
    match (name, arguments) {
        ("and", parts) => several(reading, parts, place, true),
        ("or", parts) => several(reading, parts, place, false),
        ("!", [part]) => condition(reading, part).map(Found::negated),
        ("!!", [part]) => condition(reading, part),
        ("==" | "===", [a, b]) => equal(reading, a, b, place),
        ("!=" | "!==", [a, b]) => equal(reading, a, b, place).map(Found::negated),
        ("in", [a, b]) => within(reading, a, b, place),
        ("starts_with", [text, part]) => affix(reading, text, part, TextTest::Prefix),
        ("ends_with", [text, part]) => affix(reading, text, part, TextTest::Suffix),
        ("sem_ver", [text, comparison, version]) => compared(reading, text, comparison, version),
        ("<" | "<=" | ">" | ">=", [a, b]) => timed(reading, name, a, b, place),
        ("!" | "!!" | "==" | "===" | "!=" | "!==" | "in" | "starts_with" | "ends_with" | "sem_ver" | "<" | "<=" | ">" | ">=", _) => {
            reading.refuse(place, format!("`{name}` is not applied to {} values", arguments.len()))
        }
        _ => reading.refuse(
            place,
            format!("`{name}` is no condition that Tidegate understands; there are {OPERATORS}. A TOML flag file can ask more"),
        ),
    }
}

fn several<'r>(reading: &mut Reading<'r>, parts: &'r [Value], place: &Place, all: bool) -> Option<Found> {
    let (mut kept, mut decided) = (Vec::new(), false);
    for part in parts {
        // Also those after a part that decides alone are read, so that every problem is told.
        match condition(reading, part)? {
            Found::When(condition) => kept.push(condition),
            Found::Always => decided |= !all,
            Found::Never => decided |= all,
        }
    }
    if decided || parts.is_empty() {
        return Some(Found::of(!all && !parts.is_empty()));
    }
    Some(match (kept.pop(), kept.is_empty()) {
        (None, _) => Found::of(all),
        (Some(only), true) => Found::When(only),
        (Some(last), false) => {
            kept.push(last);
            Found::when(if all { Test::All(kept.into()) } else { Test::Any(kept.into()) }, place)
        }
    })
}

/// A variable that stands for an attribute, with the text that stands for it where it is missing.
fn text_of<'r>(reading: &Reading<'r>, value: &'r Value) -> Option<(Attribute, Option<&'r str>)> {
    let Some((name, default)) = variable_of(value) else {
        return reading.refuse(&value.place, "`{\"var\": \"NAME\"}` should be here: what is asked of the request");
    };
    let Some(attribute) = attribute(name) else {
        let message = format!(
            "`{name}` is nothing that Tidegate knows of a request; there are targetingKey, path, method, host, headers.NAME, \
             cookies.NAME and query.NAME"
        );
        return reading.refuse(&value.place, message);
    };
    match default.map(|default| (&default.data, &default.place)) {
        None | Some((Data::Null, _)) => Some((attribute, None)),
        Some((Data::String(text), _)) => Some((attribute, Some(text))),
        Some((other, place)) => {
            reading.refuse(place, format!("what a request holds is text, so the default is too, not {}", other.kind()))
        }
    }
}

/// `test` of an attribute that counts as `default` where it is missing.
fn asked(attribute: Attribute, default: Option<&str>, test: TextTest, place: &Place) -> Found {
    match (default, &test) {
        (None, _) => Found::text(attribute, test, place),
        (Some(_), TextTest::Exists(wanted)) => Found::of(*wanted),
        // A user is never the empty text: that is none.
        (Some(""), TextTest::Equals(text)) if attribute == Attribute::User && text.is_empty() => {
            Found::text(attribute, TextTest::Exists(false), place)
        }
        (default, test) if test.holds(default) => {
            let line = place.line();
            let missing = Test::Text(attribute.clone(), TextTest::Exists(false));
            let either = [Test::Text(attribute, test.clone()), missing].map(|test| Condition { test, line });
            Found::when(Test::Any(either.into()), place)
        }
        (_, _) => Found::text(attribute, test, place),
    }
}

/// A variable as a condition: it is there, and not the empty text.
fn truth<'r>(reading: &Reading<'r>, value: &'r Value) -> Option<Found> {
    let (attribute, default) = text_of(reading, value)?;
    let exists = asked(attribute.clone(), default, TextTest::Exists(true), &value.place);
    if attribute == Attribute::User && default.is_none_or(str::is_empty) {
        return Some(Found::text(attribute, TextTest::Exists(true), &value.place));
    }
    let filled = asked(attribute, default, TextTest::Equals("".into()), &value.place).negated();
    Some(match (exists, filled) {
        (Found::Never, _) | (_, Found::Never) => Found::Never,
        (Found::Always, found) | (found, Found::Always) => found,
        (Found::When(exists), Found::When(filled)) => Found::when(Test::All([exists, filled].into()), &value.place),
    })
}

fn equal<'r>(reading: &mut Reading<'r>, a: &'r Value, b: &'r Value, place: &Place) -> Option<Found> {
    let (asked_of, literal) = if matches!(a.data, Data::Table(_)) { (a, b) } else { (b, a) };
    let asked_of = following(reading, asked_of)?;
    if let Some(found) = drawn(reading, asked_of, literal) {
        return found;
    }
    let (attribute, default) = text_of(reading, asked_of)?;
    let test = match &literal.data {
        Data::String(text) => {
            if !text.is_empty() {
                check(reading, &attribute, text, &literal.place)?;
            }
            TextTest::Equals(text.as_str().into())
        }
        Data::Null => TextTest::Exists(false),
        other => return not_a_text(reading, literal, other),
    };
    Some(asked(attribute, default, test, place))
}

/// Whether a `fractional` comes out as a text: a share of the users.
fn drawn<'r>(reading: &mut Reading<'r>, value: &'r Value, literal: &'r Value) -> Option<Option<Found>> {
    let Data::Table(table) = &value.data else { return None };
    let [(Key { text: key, .. }, Value { data: Data::Array(arguments), .. })] = table.entries() else { return None };
    if key != "fractional" {
        return None;
    }
    let Data::String(wanted) = &literal.data else {
        return Some(reading.refuse(&literal.place, "a `fractional` comes out as one of its texts"));
    };
    let drawn = reading.drawn(arguments, &value.place, |reading, name| match &name.data {
        Data::String(name) => Some(name == wanted),
        other => reading.refuse(&name.place, format!("a text should be here, not {}", other.kind())),
    });
    Some(drawn.map(|(percentage, bucketer)| match percentage {
        Percentage::ZERO => Found::Never,
        percentage => Found::when(Test::Percentage(percentage, bucketer), &value.place),
    }))
}

fn within<'r>(reading: &mut Reading<'r>, a: &'r Value, b: &'r Value, place: &Place) -> Option<Found> {
    let b = following(reading, b)?;
    let Data::Array(listed) = &b.data else {
        let Data::String(part) = &a.data else {
            return reading.refuse(place, "`in` asks for a variable in a list of texts, or for a text in a variable");
        };
        let (attribute, default) = text_of(reading, b)?;
        if part.is_empty() {
            return reading.refuse(&a.place, "an empty text is part of every text");
        }
        return Some(asked(attribute, default, TextTest::Contains(part.as_str().into()), place));
    };
    let (attribute, default) = text_of(reading, a)?;
    reading.step(listed.len(), place)?;
    let mut texts = HashSet::with_capacity(listed.len());
    for value in listed {
        let Data::String(text) = &value.data else { return not_a_text(reading, value, &value.data) };
        check(reading, &attribute, text, &value.place)?;
        texts.insert(text.as_str().into());
    }
    if texts.is_empty() {
        return Some(Found::Never);
    }
    Some(asked(attribute, default, TextTest::In(texts), place))
}

fn affix<'r>(reading: &Reading<'r>, text: &'r Value, part: &'r Value, test: fn(Box<str>) -> TextTest) -> Option<Found> {
    let (attribute, default) = text_of(reading, text)?;
    match &part.data {
        Data::String(part) if !part.is_empty() => {
            Some(asked(attribute, default, test(part.as_str().into()), &text.place))
        }
        Data::String(_) => reading.refuse(&part.place, "every text begins and ends with the empty text"),
        other => not_a_text(reading, part, other),
    }
}

fn compared<'r>(reading: &Reading<'r>, text: &'r Value, comparison: &'r Value, version: &'r Value) -> Option<Found> {
    let (attribute, default) = text_of(reading, text)?;
    let Data::String(operator) = &comparison.data else { return not_a_text(reading, comparison, &comparison.data) };
    let Some(operator) = Comparison::ALL.into_iter().find(|known| known.as_str() == operator) else {
        let known: Vec<_> = Comparison::ALL.into_iter().map(Comparison::as_str).collect();
        return reading
            .refuse(&comparison.place, format!("\"{operator}\" compares no versions; there are {}", known.join(" ")));
    };
    let Data::String(with) = &version.data else { return not_a_text(reading, version, &version.data) };
    let Some(test) = VersionTest::of(operator, with) else {
        return reading.refuse(&version.place, format!("\"{with}\" is no version; write it like \"2.3.0\""));
    };
    Some(asked(attribute, default, TextTest::Version(test), &text.place))
}

fn timed<'r>(reading: &Reading<'r>, operator: &str, a: &'r Value, b: &'r Value, place: &Place) -> Option<Found> {
    let is_time = variable_of(a).is_some_and(|(name, default)| name == TIMESTAMP && default.is_none());
    let Data::Integer(seconds) = b.data else {
        return reading
            .refuse(place, "only the time is compared so: `{\">=\": [{\"var\": \"$flagd.timestamp\"}, SECONDS]}`");
    };
    if !is_time {
        return reading.refuse(&a.place, "only the time is compared so: write `{\"var\": \"$flagd.timestamp\"}` first");
    }
    let moment = |seconds: i64| Moment::from_unix_millis(seconds.saturating_mul(1000));
    // The clock shows whole seconds: later than one of them is from the next on.
    Some(Found::when(
        match operator {
            ">=" => Test::After(moment(seconds)),
            ">" => Test::After(moment(seconds.saturating_add(1))),
            "<" => Test::Before(moment(seconds)),
            _ => Test::Before(moment(seconds.saturating_add(1))),
        },
        place,
    ))
}

/// Refuses a text that the attribute can never be.
fn check(reading: &Reading<'_>, attribute: &Attribute, text: &str, place: &Place) -> Option<()> {
    if *attribute == Attribute::User && !is_key(text) {
        return reading.refuse(place, "a targeting key is 1 to 4096 bytes long");
    }
    match fitting(attribute, text.to_owned()) {
        Ok(fitted) if *fitted == *text => Some(()),
        Ok(fitted) => reading.refuse(place, format!("a host is in lower case: write \"{fitted}\"")),
        Err(message) => reading.refuse(place, message),
    }
}

fn not_a_text<T>(reading: &Reading<'_>, value: &Value, found: &Data) -> Option<T> {
    reading.refuse(&value.place, format!("what a request holds is text: write one in quotes, not {}", found.kind()))
}
