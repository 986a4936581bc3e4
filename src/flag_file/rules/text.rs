//! What conditions ask of texts: headers, cookies, query parameters, path, method, host and user.

use hashbrown::HashSet;

use crate::document::{Placed, Section, boolean, nearest, one_or_more, parsed, string};
use crate::flag::{Attribute, Condition, Pattern, Test, TextTest, VersionRange};

/// What can be asked of an attribute's text.
const OPERATORS: [&str; 8] = ["equals", "in", "prefix", "suffix", "contains", "regex", "semver", "exists"];

/// The methods of RFC 9110, section 9, and RFC 5789: what a misspelt one was meant to be.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// What is asked of a header, a cookie or a query parameter, by the operators beside its name.
pub(crate) fn named(section: &mut Section<'_>) -> Vec<Condition> {
    let problems = section.problems();
    let header = section.optional("header", |value| header_name(&string(value)?));
    let cookie = section.optional("cookie", |value| name(string(value)?));
    let query = section.optional("query", |value| name(string(value)?));
    let found = [
        header.map(|name| (Attribute::Header(name.value.into()), name.place)),
        cookie.map(|name| (Attribute::Cookie(name.value.into()), name.place)),
        query.map(|name| (Attribute::Query(name.value.into()), name.place)),
    ];
    let mut found = found.into_iter().flatten();
    let attribute = found.next();
    if let Some((_, place)) = found.next() {
        problems.report(&place, "a condition asks for one of `header`, `cookie` and `query`; write one table for each");
    }
    let is_named = section.keys().any(|key| ["header", "cookie", "query"].contains(&key));
    if !is_named {
        for operator in OPERATORS {
            if let Some(place) = section.place_of(operator) {
                let message = format!(
                    "`{operator}` asks nothing by itself; write `header`, `cookie` or `query` beside it, or `path = {{ \
                     {operator} = … }}`"
                );
                problems.report(&place, message);
            }
        }
        return Vec::new();
    }
    // Read also if the name is bad, so that every problem is told at once.
    let (attribute, place) = attribute.unwrap_or_else(|| (Attribute::User, section.place().clone()));
    let is_asked = section.keys().any(|key| OPERATORS.contains(&key));
    if !is_asked {
        problems
            .report(&place, format!("nothing is asked of {attribute}; add `exists = true`, `equals = …` or the like"));
    }
    operators(section, &attribute)
}

/// What is asked of an attribute under its own key: a text, texts, or a table of operators.
pub(crate) fn direct(section: &mut Section<'_>, key: &'static str, attribute: &Attribute) -> Vec<Condition> {
    if section.holds_table(key) {
        let Some(mut table) = section.section(key) else { return Vec::new() };
        if !table.keys().any(|key| OPERATORS.contains(&key)) {
            let message = format!("nothing is asked of {attribute}; add `prefix = …`, `equals = …` or the like");
            table.problems().report(table.place(), message);
        }
        let asked = operators(&mut table, attribute);
        table.finish();
        return asked;
    }
    let Some(texts) = section.optional(key, one_or_more) else { return Vec::new() };
    let line = texts.place.line();
    let mut fitting = texts_of(section, attribute, texts.value);
    let test = match (attribute, fitting.len()) {
        (_, 0) => return Vec::new(),
        (Attribute::Path, _) => {
            let prefix = |text| Condition { test: Test::Text(Attribute::Path, TextTest::Prefix(text)), line };
            let mut prefixes: Vec<_> = fitting.into_iter().map(prefix).collect();
            if prefixes.len() == 1 {
                return prefixes;
            }
            prefixes.shrink_to_fit();
            Test::Any(prefixes.into())
        }
        (_, 1) => match fitting.pop() {
            Some(text) => Test::Text(attribute.clone(), TextTest::Equals(text)),
            None => return Vec::new(),
        },
        _ => Test::Text(attribute.clone(), TextTest::In(fitting.into_iter().collect())),
    };
    vec![Condition { test, line }]
}

fn operators(section: &mut Section<'_>, attribute: &Attribute) -> Vec<Condition> {
    let whole = |value: &_| string(value).and_then(|text| fitting(attribute, text));
    let part = |value: &_| string(value).and_then(|text| piece(attribute, text));
    let tests = [
        section.optional("equals", whole).map(|text| text.map(TextTest::Equals)),
        section
            .optional("prefix", |value| part(value).and_then(|text| fitting(attribute, text.into())))
            .map(|text| text.map(TextTest::Prefix)),
        section.optional("suffix", part).map(|text| text.map(TextTest::Suffix)),
        section.optional("contains", part).map(|text| text.map(TextTest::Contains)),
        section.optional("regex", parsed::<Pattern>).map(|pattern| pattern.map(TextTest::Regex)),
        section.optional("semver", parsed::<VersionRange>).map(|range| range.map(TextTest::Semver)),
        section.optional("exists", boolean).map(|wanted| wanted.map(TextTest::Exists)),
    ];
    let mut tests: Vec<_> = tests.into_iter().flatten().collect();
    if let Some(Placed { value, place }) = section.optional("in", one_or_more) {
        let texts: HashSet<_> = texts_of(section, attribute, value).into_iter().collect();
        tests.push(Placed { value: TextTest::In(texts), place });
    }
    let condition =
        |test: Placed<TextTest>| Condition { line: test.place.line(), test: Test::Text(attribute.clone(), test.value) };
    tests.into_iter().map(condition).collect()
}

/// The texts that `attribute` can be; the others are reported where they stand.
fn texts_of(section: &Section<'_>, attribute: &Attribute, texts: Vec<Placed<String>>) -> Vec<Box<str>> {
    let checked = |text: Placed<String>| match fitting(attribute, text.value) {
        Ok(value) => Some(value),
        Err(message) => {
            section.problems().report(&text.place, message);
            None
        }
    };
    texts.into_iter().filter_map(checked).collect()
}

/// `text`, if `attribute` can be that or begin so: otherwise the condition would silently never hold.
pub(crate) fn fitting(attribute: &Attribute, text: String) -> Result<Box<str>, String> {
    match attribute {
        Attribute::Path if !text.starts_with('/') => Err(format!("\"{text}\" is no path: a path begins with `/`")),
        Attribute::Path if text.contains(['?', '#']) => {
            Err(format!("\"{text}\" is no path: write what stands after `?` as `query = \"NAME\"`"))
        }
        Attribute::Method if !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') || text.is_empty() => {
            let upper = text.to_ascii_uppercase();
            let meant = nearest(&upper, &METHODS).unwrap_or("POST");
            Err(format!("\"{text}\" is no method: methods are in capitals, like \"{meant}\""))
        }
        Attribute::Host if text.contains('/') || (text.contains(':') && !text.ends_with(']')) => {
            Err(format!("\"{text}\" is no host: write its name alone, without scheme, port and path"))
        }
        Attribute::Host if text.contains('*') => {
            let below = text.trim_start_matches('*');
            let below = if below.contains('*') || below.is_empty() { ".example.com" } else { below };
            Err(format!("\"{text}\" is no host: hosts that end alike are `host = {{ suffix = \"{below}\" }}`"))
        }
        Attribute::Host => Ok(text.to_ascii_lowercase().into()),
        Attribute::Header(_) | Attribute::Cookie(_) | Attribute::Query(_) | Attribute::User => Ok(text.into()),
        Attribute::Path | Attribute::Method => Ok(text.into()),
    }
}

/// `text` as a part of the attribute's text.
fn piece(attribute: &Attribute, text: String) -> Result<Box<str>, String> {
    match attribute {
        _ if text.is_empty() => Err("an empty text is part of every text; write `exists = true`".to_owned()),
        Attribute::Host => Ok(text.to_ascii_lowercase().into()),
        _ => Ok(text.into()),
    }
}

/// A header's name in lower case: a token (RFC 9110, section 5.6.2).
fn header_name(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(format!("there can be no header of the name \"{text}\""));
    }
    Ok(text.to_ascii_lowercase())
}

fn name(text: String) -> Result<String, String> {
    if text.is_empty() { Err("wants a name, not an empty text".to_owned()) } else { Ok(text) }
}
