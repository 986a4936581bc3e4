//! Reads a TOML or JSON document key by key, collects every problem, and refuses what nobody asked for.
//!
//! A deserializer would stop at the first problem. Here each key is taken by the code that knows it; what remains at the
//! end is unknown, and is refused with the nearest known key. Values may also come from the environment.

mod json;
mod read;
mod tree;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Place, Source};
pub use crate::document::read::{
    boolean, duration, duration_in, integer, number, one_or_more, parsed, placed_strings, size, string, strings,
    timestamp,
};
pub use crate::document::tree::Value;
pub(crate) use crate::document::tree::{Data, Key, Table};

/// A parsed document.
#[derive(Debug)]
pub struct Document {
    root: Table,
    whole: Place,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Placed<T> {
    /// The same place with what `convert` makes of the value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: convert(self.value), place: self.place }
    }
}

/// The problems found while reading; shared by all sections of a document.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Diagnostic>>,
}

impl Problems {
    /// No problems yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem at `place`.
    pub fn report(&self, place: &Place, message: impl Into<String>) {
        self.found.borrow_mut().push(Diagnostic::new(place.clone(), message));
    }

    /// Adds problems found elsewhere.
    pub fn extend(&self, problems: impl IntoIterator<Item = Diagnostic>) {
        self.found.borrow_mut().extend(problems);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All that were found, in the order in which they were.
    #[must_use]
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

impl Document {
    /// Parses `text`, which is called `path` in messages.
    ///
    /// # Errors
    ///
    /// Every place where the text is no TOML.
    pub fn parse(path: &Path, text: String) -> Result<Self, Vec<Diagnostic>> {
        let source = Arc::new(Source { path: path.to_owned(), text });
        let whole = Place::File(Arc::clone(&source), 0..0);
        let root = tree::parse(&source)?;
        Ok(Self { root, whole })
    }

    /// Parses `text` as JSON; it is called `path` in messages.
    ///
    /// # Errors
    ///
    /// The first place where the text is no JSON, or no object.
    pub fn parse_json(path: &Path, text: String) -> Result<Self, Vec<Diagnostic>> {
        let source = Arc::new(Source { path: path.to_owned(), text });
        let whole = Place::File(Arc::clone(&source), 0..0);
        let root = json::parse(&source)?;
        Ok(Self { root, whole })
    }

    /// The end of the text, if it is in the middle of a line. Lines end with a newline (POSIX.1-2017, 3.206), so such a text
    /// may be the beginning of a longer one.
    #[must_use]
    pub fn unfinished_line(&self) -> Option<Place> {
        match &self.whole {
            Place::File(source, _) if !source.text.is_empty() && !source.text.ends_with('\n') => {
                Some(Place::File(Arc::clone(source), source.text.len()..source.text.len()))
            }
            _ => None,
        }
    }

    /// Puts the environment's `variable` in the place that `keys` lead to, over what stands there.
    ///
    /// A part of the path matches a key of the document without regard to `-` and `_`, since a variable can't hold `-`.
    ///
    /// # Errors
    ///
    /// If a value of another kind stands in the way.
    pub fn overlay(&mut self, variable: &str, keys: &[&str], text: &str) -> Result<(), Diagnostic> {
        let place = Place::Environment(variable.to_owned());
        // Arrays and tables are told by their brackets; whether a scalar is a string is for its reader to say.
        let data = match tree::parse_value(text, &place) {
            Some(data @ (Data::Array(_) | Data::Table(_))) => data,
            _ => Data::Text(text.to_owned()),
        };
        let value = Value { data, place: place.clone() };
        let Some((last, parents)) = keys.split_last() else { return Ok(()) };
        let mut table = &mut self.root;
        for key in parents {
            table = match &mut table.entry(key, &place, || Data::Table(Table::default())).data {
                Data::Table(table) => table,
                _ => return Err(Diagnostic::new(place, format!("`{key}` is not a table"))),
            };
        }
        *table.entry(last, &place, || Data::Boolean(false)) = value;
        Ok(())
    }

    /// Fills in what `defaults` say and this document doesn't, key by key; but the tables named in `as_a_whole` only if
    /// this document has nothing of them.
    pub fn fill_in(&mut self, defaults: &Self, as_a_whole: &[&str]) {
        self.root.fill_in(&defaults.root, as_a_whole);
    }

    /// The document's top level, for reading.
    pub fn root<'d>(&'d self, problems: &'d Problems) -> Section<'d> {
        Section { name: String::new(), table: &self.root, place: self.whole.clone(), known: Vec::new(), problems }
    }
}

/// A table that is being read. Finish it with [`Section::finish`], which refuses the keys that were not asked for.
#[derive(Debug)]
#[must_use = "finish it, or unknown keys go unnoticed"]
pub struct Section<'d> {
    name: String,
    table: &'d Table,
    place: Place,
    known: Vec<&'static str>,
    problems: &'d Problems,
}

impl<'d> Section<'d> {
    /// Where the section stands: for what is missing in it.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The problems that this section reports to.
    #[must_use]
    pub fn problems(&self) -> &'d Problems {
        self.problems
    }

    /// The keys that are there, in the order in which they stand.
    pub fn keys(&self) -> impl Iterator<Item = &'d str> {
        self.table.entries().iter().map(|(key, _)| key.text.as_str())
    }

    /// Where the key `key` stands, if it is there; it counts as asked for.
    pub fn place_of(&mut self, key: &'static str) -> Option<Place> {
        self.known.push(key);
        self.table.find(key).map(|(key, _)| key.place.clone())
    }

    /// Where the value of `key` stands, if it is there.
    #[must_use]
    pub fn value_place(&self, key: &str) -> Option<&'d Place> {
        self.table.get(key).map(|value| &value.place)
    }

    /// The value of `key` as it stands, if it is there.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<&'d Value> {
        self.lookup(key)
    }

    /// Whether there is a table under `key`.
    #[must_use]
    pub fn holds_table(&self, key: &str) -> bool {
        matches!(self.table.get(key), Some(Value { data: Data::Table(_), .. }))
    }

    /// Whether there is an array under `key`, with nothing in it.
    #[must_use]
    pub fn holds_empty_array(&self, key: &str) -> bool {
        matches!(self.table.get(key), Some(Value { data: Data::Array(values), .. }) if values.is_empty())
    }

    /// The value of `key`, if it is there and `read` understands it. What it does not understand is reported.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let value = self.lookup(key)?;
        match read(value) {
            Ok(read) => Some(Placed { value: read, place: value.place.clone() }),
            Err(message) => {
                self.problems.report(&value.place, format!("`{}`: {message}", self.path(key)));
                None
            }
        }
    }

    /// The value of `key`, or `default` if it is not there.
    pub fn or<T>(&mut self, key: &'static str, read: impl FnOnce(&Value) -> Result<T, String>, default: T) -> T {
        self.optional(key, read).map_or(default, |placed| placed.value)
    }

    /// The value of `key`, which must be there: otherwise that is reported, with `example`.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        if self.table.get(key).is_none() {
            self.known.push(key);
            self.problems.report(&self.place, format!("`{}` is missing; add `{key} = {example}`", self.path(key)));
            return None;
        }
        self.optional(key, read)
    }

    /// The table under `key`, if it is there.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'d>> {
        let value = self.lookup(key)?;
        self.open(&self.path(key), value)
    }

    /// The tables of the array under `key`.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.lookup(key) else { return Vec::new() };
        let name = self.path(key);
        match &value.data {
            Data::Array(values) => values.iter().filter_map(|value| self.open(&name, value)).collect(),
            _ => {
                self.problems.report(&value.place, format!("`{name}` is an array of tables: write `[[{name}]]`"));
                Vec::new()
            }
        }
    }

    /// The tables under `key` with the names that the user gave them.
    pub fn named_sections(&mut self, key: &'static str) -> Vec<(Placed<String>, Section<'d>)> {
        let Some(value) = self.lookup(key) else { return Vec::new() };
        let Data::Table(table) = &value.data else {
            self.problems.report(&value.place, format!("`{}` is a table of tables", self.path(key)));
            return Vec::new();
        };
        let path = self.path(key);
        let named = |(key, value): &'d (Key, Value)| {
            let section = self.open(&format!("{path}.{}", key.text), value)?;
            Some((Placed { value: key.text.clone(), place: key.place.clone() }, section))
        };
        table.entries().iter().filter_map(named).collect()
    }

    /// Refuses `key`, which is known but not built yet.
    pub fn not_supported_yet(&mut self, key: &'static str) {
        self.known.push(key);
        if let Some((found, _)) = self.table.find(key) {
            self.problems
                .report(&found.place, format!("`{}` is not supported yet in this version; remove it", self.path(key)));
        }
    }

    /// Refuses every key that was not asked for.
    pub fn finish(self) {
        for (key, _) in self.table.entries() {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let path = self.path(&key.text);
            let message = match nearest(&key.text, &self.known) {
                Some(near) => format!("unknown key `{path}`; did you mean `{near}`?"),
                None => format!("unknown key `{path}`; known here: {}", self.known.join(", ")),
            };
            self.problems.report(&key.place, message);
        }
    }

    fn lookup(&mut self, key: &'static str) -> Option<&'d Value> {
        self.known.push(key);
        self.table.get(key)
    }

    fn open(&self, name: &str, value: &'d Value) -> Option<Section<'d>> {
        match &value.data {
            Data::Table(table) => Some(Section {
                name: name.to_owned(),
                table,
                place: value.place.clone(),
                known: Vec::new(),
                problems: self.problems,
            }),
            _ => {
                self.problems.report(&value.place, format!("`{name}` is a table, not {}", value.data.kind()));
                None
            }
        }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// The word of `known` that `word` is most likely a misspelling of.
#[must_use]
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Below this similarity a suggestion is more often wrong than right: `percentge` has 0.97, `on` and `owner` 0.76.
    const ENOUGH: f64 = 0.8;
    let scored = known.iter().map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate));
    scored.filter(|(score, _)| *score >= ENOUGH).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}
