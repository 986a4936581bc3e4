//! Two answers to the same request, compared.

use serde_json::{Number, Value};

use crate::flag::Shadow;

/// The most differences of one answer that are told. Whatever has more of them is simply another answer.
const MAX_DIFFERENCES: usize = 50;

/// The longest name of a member that is shown whole, in characters: longer ones are data rather than names.
const MAX_NAME: usize = 40;

/// The place of a difference in the status.
const STATUS: &str = "status";

/// The place of a difference in what the body is.
const BODY: &str = "body";

/// What the place of a difference in a header begins with.
const HEADER: &str = "header ";

/// An answer, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The values of the headers of [`Shadow::headers`], in their order.
    pub headers: Vec<Option<String>>,
    /// Its body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// None, or none of JSON; also where bodies are not compared.
    Other,
    /// JSON.
    Json(Value),
    /// JSON by its type, and cannot be read as such.
    Broken,
    /// Longer than [`Shadow::max_body`].
    TooLong,
}

impl Body {
    fn name(&self) -> &'static str {
        match self {
            Self::Other => "no JSON",
            Self::Json(_) => "JSON",
            Self::Broken => "broken JSON",
            Self::TooLong => "longer than `max_body`",
        }
    }
}

/// Something in which an answer differs from stable's. It holds no values: they may be somebody's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `status`, `header NAME`, `body`, or a place in the JSON, with `*` for the members of an array.
    pub place: String,
    /// What: stable's first, then the other's.
    pub detail: String,
}

/// In what `other` differs from `stable`, each place once. Another status is all that is told, since everything else
/// follows from it.
#[must_use]
pub fn compare(shadow: &Shadow, stable: &Answer, other: &Answer) -> Vec<Difference> {
    let mut walk = Walk { shadow, path: Vec::new(), found: Vec::new() };
    if stable.status != other.status {
        if shadow.status {
            walk.report_at(STATUS.to_owned(), format!("{} and {}", stable.status, other.status));
        }
        return walk.found;
    }
    let headers = shadow.headers.iter().zip(stable.headers.iter().zip(&other.headers));
    for (name, (own, others)) in headers {
        let detail = match (own, others) {
            (Some(_), None) => "missing",
            (None, Some(_)) => "not in stable's answer",
            (Some(own), Some(others)) if own != others => "another value",
            _ => continue,
        };
        walk.report_at(format!("{HEADER}{name}"), detail.to_owned());
    }
    if shadow.json {
        match (&stable.body, &other.body) {
            (Body::Json(own), Body::Json(others)) => walk.values(own, others),
            (own, others) if own.name() != others.name() => {
                walk.report_at(BODY.to_owned(), format!("{} and {}", own.name(), others.name()));
            }
            _ => {}
        }
    }
    walk.found
}

/// Whether what stands at `place`, as a [`Difference`] has it, is still compared.
pub(crate) fn is_compared(shadow: &Shadow, place: &str) -> bool {
    if place == STATUS {
        return shadow.status;
    }
    if place == BODY {
        return shadow.json;
    }
    if let Some(name) = place.strip_prefix(HEADER) {
        return shadow.headers.iter().any(|header| header == name);
    }
    let path: Vec<_> = place.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    shadow.json && !shadow.ignores(&path)
}

/// One step into a document.
#[derive(Debug)]
enum Member<'v> {
    Name(&'v str),
    Index(String),
}

struct Walk<'v> {
    shadow: &'v Shadow,
    path: Vec<Member<'v>>,
    found: Vec<Difference>,
}

impl<'v> Walk<'v> {
    fn values(&mut self, own: &'v Value, others: &'v Value) {
        if self.found.len() >= MAX_DIFFERENCES || self.is_ignored() {
            return;
        }
        match (own, others) {
            (Value::Object(own), Value::Object(others)) => {
                for (name, value) in own {
                    self.within(Member::Name(name), |walk| match others.get(name) {
                        Some(other) => walk.values(value, other),
                        None => walk.report("missing"),
                    });
                }
                for name in others.keys().filter(|name| !own.contains_key(*name)) {
                    self.within(Member::Name(name), |walk| walk.report("not in stable's answer"));
                }
            }
            (Value::Array(own), Value::Array(others)) => {
                if own.len() != others.len() {
                    self.report(&format!("{} and {} members", own.len(), others.len()));
                }
                for (index, (own, other)) in own.iter().zip(others).enumerate() {
                    self.within(Member::Index(index.to_string()), |walk| walk.values(own, other));
                }
            }
            (Value::Number(own), Value::Number(others)) if same_number(own, others) => {}
            (own, others) if kind(own) != kind(others) => {
                self.report(&format!("{} and {}", kind(own), kind(others)));
            }
            (own, others) => {
                if own != others {
                    self.report("another value");
                }
            }
        }
    }

    fn within(&mut self, member: Member<'v>, look: impl FnOnce(&mut Self)) {
        self.path.push(member);
        look(self);
        self.path.pop();
    }

    fn is_ignored(&self) -> bool {
        if self.shadow.ignore.is_empty() {
            return false;
        }
        let path: Vec<_> = self
            .path
            .iter()
            .map(|member| match member {
                Member::Name(name) => *name,
                Member::Index(index) => index.as_str(),
            })
            .collect();
        self.shadow.ignores(&path)
    }

    fn report(&mut self, detail: &str) {
        if self.is_ignored() {
            return;
        }
        let mut place = String::new();
        for member in &self.path {
            place.push('/');
            match member {
                Member::Index(_) => place.push('*'),
                Member::Name(name) if name.chars().count() > MAX_NAME => {
                    place.extend(escaped(name).chars().take(MAX_NAME));
                    place.push('…');
                }
                Member::Name(name) => place.push_str(&escaped(name)),
            }
        }
        if place.is_empty() {
            place.push('/');
        }
        self.report_at(place, detail.to_owned());
    }

    fn report_at(&mut self, place: String, detail: String) {
        let is_known = self.found.iter().any(|difference| difference.place == place);
        if !is_known && self.found.len() < MAX_DIFFERENCES {
            self.found.push(Difference { place, detail });
        }
    }
}

/// A member's name as RFC 6901 has it. Control characters would upset a terminal.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1").replace(char::is_control, "\u{fffd}")
}

/// `1` and `1.0` are the same number; whole ones are compared to the last digit.
fn same_number(own: &Number, others: &Number) -> bool {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(own), whole(others)) {
        (Some(own), Some(others)) => own == others,
        _ => own.as_f64().zip(others.as_f64()).is_some_and(|(own, others)| own.total_cmp(&others).is_eq()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::flag::Percentage;

    fn shadow(ignore: &[&str]) -> Shadow {
        Shadow {
            percentage: Percentage::FULL,
            noise: Percentage::FULL,
            methods: vec!["GET".to_owned()],
            status: true,
            json: true,
            headers: vec!["content-type".to_owned()],
            ignore: ignore.iter().map(|path| path.parse().unwrap()).collect(),
            max_in_flight: 1,
            max_body: 1024,
        }
    }

    fn answer(body: Value) -> Answer {
        Answer { status: 200, headers: vec![Some("application/json".to_owned())], body: Body::Json(body) }
    }

    #[track_caller]
    fn check(ignore: &[&str], stable: Value, canary: Value, expected: &[(&str, &str)]) {
        let found = compare(&shadow(ignore), &answer(stable), &answer(canary));
        let found: Vec<_> = found.iter().map(|found| (found.place.as_str(), found.detail.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_kind_of_difference_has_words() {
        check(&[], json!({"a": 1, "b": [1, 2]}), json!({"b": [1, 2], "a": 1.0}), &[]);
        check(&[], json!({"a": 1}), json!({"a": 2}), &[("/a", "another value")]);
        check(&[], json!({"a": 1}), json!({"a": "1"}), &[("/a", "a number and a string")]);
        check(&[], json!({"a": null}), json!({}), &[("/a", "missing")]);
        check(&[], json!({}), json!({"a": null}), &[("/a", "not in stable's answer")]);
        check(
            &[],
            json!({"a": [1, 2, 3]}),
            json!({"a": [1, 5]}),
            &[("/a", "3 and 2 members"), ("/a/*", "another value")],
        );
        check(&[], json!([{"id": 1}, {"id": 2}]), json!([{"id": 3}, {"id": 4}]), &[("/*/id", "another value")]);
        check(&[], json!(1), json!(true), &[("/", "a number and a boolean")]);
        check(&[], json!({"a/b~": 1}), json!({"a/b~": 2}), &[("/a~1b~0", "another value")]);
        check(&[], json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), &[("/", "another value")]);
        let long = "x".repeat(100);
        check(&[], json!({&long: 1}), json!({&long: 2}), &[(&format!("/{}…", "x".repeat(40)), "another value")]);
    }

    #[test]
    fn what_is_ignored_is_not_told() {
        let (stable, canary) =
            (json!({"at": 1, "items": [{"id": 1, "n": 1}]}), json!({"at": 2, "items": [{"id": 2, "n": 2}]}));
        check(&["/at", "/items/*/id"], stable.clone(), canary.clone(), &[("/items/*/n", "another value")]);
        check(&["/at", "/items"], stable.clone(), canary, &[]);
        check(&["/at"], stable, json!({"items": [{"id": 1, "n": 1}]}), &[]);
        let one = shadow(&["/items/*/id"]);
        assert!(!is_compared(&one, "/items/*/id") && is_compared(&one, "/items/*/n") && is_compared(&one, "status"));
        assert!(is_compared(&one, "header content-type") && !is_compared(&one, "header etag"));
    }

    #[test]
    fn a_status_says_it_all_and_headers_and_bodies_are_named() {
        let stable = answer(json!({"a": 1}));
        let other = Answer { status: 404, headers: vec![None], body: Body::Other };
        let places = |other: &Answer| {
            let found = compare(&shadow(&[]), &stable, other);
            found.into_iter().map(|found| format!("{}: {}", found.place, found.detail)).collect::<Vec<_>>()
        };
        assert_eq!(places(&other), ["status: 200 and 404"]);
        let other = Answer { status: 200, headers: vec![None], body: Body::Broken };
        assert_eq!(places(&other), ["header content-type: missing", "body: JSON and broken JSON"]);
        let other = Answer { headers: vec![Some("text/html".to_owned())], body: Body::TooLong, ..stable.clone() };
        assert_eq!(places(&other), ["header content-type: another value", "body: JSON and longer than `max_body`"]);
        assert!(places(&stable).is_empty());
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c/~]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-d/~*]{1,2}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Every place of `value`, and a copy of it with another value there.
    fn changed(value: &Value, path: &str, whole: &dyn Fn(Value) -> Value, into: &mut Vec<(String, Value)>) {
        into.push((if path.is_empty() { "/".to_owned() } else { path.to_owned() }, whole(json!({"changed": [1]}))));
        match value {
            Value::Array(members) => {
                for (index, member) in members.iter().enumerate() {
                    let whole = |new| {
                        let mut members = members.clone();
                        members[index] = new;
                        whole(Value::Array(members))
                    };
                    changed(member, &format!("{path}/*"), &whole, into);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let whole = |new| {
                        let mut members = members.clone();
                        members.insert(name.clone(), new);
                        whole(Value::Object(members))
                    };
                    changed(member, &format!("{path}/{}", escaped(name)), &whole, into);
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself(document in documents()) {
            prop_assert_eq!(compare(&shadow(&[]), &answer(document.clone()), &answer(document)), []);
        }

        #[test]
        fn a_change_is_found_at_its_place_and_nowhere_else(document in documents()) {
            let mut changes = Vec::new();
            changed(&document, "", &|new| new, &mut changes);
            for (place, other) in changes {
                let found = compare(&shadow(&[]), &answer(document.clone()), &answer(other.clone()));
                prop_assert!(!found.is_empty(), "{} in {}", place, other);
                let inside = |found: &Difference| {
                    let place = place.trim_end_matches('/');
                    found.place == place || found.place == "/" || found.place.starts_with(&format!("{place}/"))
                };
                prop_assert!(found.iter().all(inside), "{}: {:?}", place, found);
                // Whoever looks from the other side sees the same places.
                let back = compare(&shadow(&[]), &answer(other), &answer(document.clone()));
                let places = |found: &[Difference]| {
                    let mut places: Vec<_> = found.iter().map(|found| found.place.clone()).collect();
                    places.sort();
                    places
                };
                prop_assert_eq!(places(&found), places(&back));
                if place != "/" {
                    prop_assert_eq!(compare(&shadow(&[&place]), &answer(document.clone()), &answer(
                        changes_at(&document, &place)
                    )), []);
                }
            }
        }
    }

    /// `document` with another value at the first place called `place`.
    fn changes_at(document: &Value, place: &str) -> Value {
        let mut changes = Vec::new();
        changed(document, "", &|new| new, &mut changes);
        changes.into_iter().find(|(other, _)| other == place).unwrap().1
    }
}
