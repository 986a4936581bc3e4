//! The document as a tree that knows where everything stands.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Place, Source};

/// More than this many complaints about one text are about the same mistake.
const MAX_SYNTAX_PROBLEMS: usize = 5;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Value {
    pub(crate) data: Data,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) enum Data {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Nothing, in JSON.
    Null,
    /// A date or a time, as it is written.
    Datetime(String),
    Array(Vec<Value>),
    Table(Table),
    /// A scalar from the environment: what it is depends on what is asked for.
    Text(String),
}

impl Data {
    /// What the value is, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) | Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Null => "null",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// A table, its keys in the order in which they stand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    entries: Vec<(Key, Value)>,
}

impl Table {
    pub(crate) fn new(entries: Vec<(Key, Value)>) -> Self {
        Self { entries }
    }

    pub(crate) fn entries(&self) -> &[(Key, Value)] {
        &self.entries
    }

    pub(crate) fn find(&self, key: &str) -> Option<&(Key, Value)> {
        self.entries.iter().find(|(found, _)| found.text == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).map(|(_, value)| value)
    }

    /// Takes over what `defaults` have and this table doesn't; tables in both are gone into, but those named
    /// `as_a_whole`.
    pub(crate) fn fill_in(&mut self, defaults: &Self, as_a_whole: &[&str]) {
        for (key, default) in &defaults.entries {
            let mine = self.entries.iter_mut().find(|(found, _)| found.text == key.text);
            match (mine.map(|(_, value)| &mut value.data), &default.data) {
                (None, _) => self.entries.push((key.clone(), default.clone())),
                (Some(Data::Table(mine)), Data::Table(default)) if !as_a_whole.contains(&key.text.as_str()) => {
                    mine.fill_in(default, as_a_whole);
                }
                _ => {}
            }
        }
    }

    /// The value under `key`, spelt with `-` or `_`; if there is none, one is made of `data`.
    pub(crate) fn entry(&mut self, key: &str, place: &Place, data: impl FnOnce() -> Data) -> &mut Value {
        let same = |found: &str| found.replace('-', "_") == key.replace('-', "_");
        let index = self.entries.iter().position(|(found, _)| same(&found.text)).unwrap_or_else(|| {
            let value = Value { data: data(), place: place.clone() };
            self.entries.push((Key { text: key.to_owned(), place: place.clone() }, value));
            self.entries.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the index was found or made just above")]
        &mut self.entries[index].1
    }
}

pub(crate) fn parse(source: &Arc<Source>) -> Result<Table, Vec<Diagnostic>> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    if errors.is_empty() {
        return Ok(convert_table(table.get_ref(), source));
    }
    let end = source.text.len();
    let problem = |error: &toml::de::Error| {
        let span = error.span().unwrap_or(end..end);
        Diagnostic::new(Place::File(Arc::clone(source), span), format!("not TOML: {}", error.message()))
    };
    Err(errors.iter().take(MAX_SYNTAX_PROBLEMS).map(problem).collect())
}

/// The value that `text` writes in TOML, placed where `place` says.
pub(crate) fn parse_value(text: &str, place: &Place) -> Option<Data> {
    let source = Arc::new(Source { path: PathBuf::new(), text: text.to_owned() });
    let parsed = DeValue::parse(text).ok()?;
    let mut value = convert(parsed.get_ref(), 0..0, &source);
    value.place_all(place);
    Some(value.data)
}

impl Value {
    fn place_all(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.data {
            Data::Array(values) => values.iter_mut().for_each(|value| value.place_all(place)),
            Data::Table(table) => table.entries.iter_mut().for_each(|(key, value)| {
                key.place = place.clone();
                value.place_all(place);
            }),
            _ => {}
        }
    }
}

fn convert_table(table: &DeTable<'_>, source: &Arc<Source>) -> Table {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let place = Place::File(Arc::clone(source), key.span());
            let key_start = key.span().start;
            let key = Key { text: key.get_ref().to_string(), place };
            (key_start, (key, convert(value.get_ref(), value.span(), source)))
        })
        .collect();
    entries.sort_by_key(|(start, _)| *start);
    Table { entries: entries.into_iter().map(|(_, entry)| entry).collect() }
}

fn convert(value: &DeValue<'_>, span: Range<usize>, source: &Arc<Source>) -> Value {
    let data = match value {
        DeValue::String(text) => Data::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Data::Integer(number),
            // Out of an i64's range: as text it is refused by whoever asks for a number, and never misread.
            Err(_) => Data::String(number.as_str().to_owned()),
        },
        DeValue::Float(number) => Data::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => Data::Boolean(*truth),
        DeValue::Datetime(moment) => Data::Datetime(moment.to_string()),
        DeValue::Array(values) => {
            Data::Array(values.iter().map(|value| convert(value.get_ref(), value.span(), source)).collect())
        }
        DeValue::Table(table) => Data::Table(convert_table(table, source)),
    };
    Value { data, place: Place::File(Arc::clone(source), span) }
}
