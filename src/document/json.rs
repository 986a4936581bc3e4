//! JSON (RFC 8259) as a document: the same tree, with the place of every value.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Place, Source};
use crate::document::tree::{Data, Key, Table, Value};

/// How deep arrays and objects may be in each other. What people write by hand has a tenth of it, and the stack has room
/// for many times as much.
const MAX_DEPTH: usize = 128;

pub(crate) fn parse(source: &Arc<Source>) -> Result<Table, Vec<Diagnostic>> {
    let mut reader = Reader { source, at: 0, depth: 0 };
    let parsed = reader.document();
    parsed.map_err(|problem| vec![problem])
}

struct Reader<'s> {
    source: &'s Arc<Source>,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Table, Diagnostic> {
        let Value { data, place } = self.value()?;
        self.skip_space();
        if self.at < self.source.text.len() {
            return Err(self.problem("more text after the end; one file holds one object"));
        }
        match data {
            Data::Table(table) => Ok(table),
            other => Err(Diagnostic::new(place, format!("wants an object, not {}", other.kind()))),
        }
    }

    fn value(&mut self) -> Result<Value, Diagnostic> {
        self.skip_space();
        let begins = self.at;
        let data = match self.peek() {
            Some(b'{') => Data::Table(self.nested(Self::object)?),
            Some(b'[') => Data::Array(self.nested(Self::array)?),
            Some(b'"') => Data::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'a'..=b'z') => self.word()?,
            Some(_) => return Err(self.problem("not JSON: a value begins with `{`, `[`, `\"`, a digit or a word")),
            None => return Err(self.problem("not JSON: the file ends where a value should be; it may be cut off")),
        };
        Ok(Value { data, place: self.place(begins..self.at) })
    }

    fn nested<T>(&mut self, read: fn(&mut Self) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        if self.depth == MAX_DEPTH {
            return Err(self.problem(&format!("more than {MAX_DEPTH} arrays and objects in each other")));
        }
        self.depth += 1;
        self.at += 1;
        let found = read(self)?;
        self.at += 1;
        self.depth -= 1;
        Ok(found)
    }

    /// The members of an object, up to its bracket.
    fn object(&mut self) -> Result<Table, Diagnostic> {
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        self.members(b'}', |reader| {
            let begins = reader.at;
            if reader.peek() != Some(b'"') {
                return Err(reader.problem("not JSON: a key in double quotes should be here"));
            }
            let text = reader.string()?;
            let place = reader.place(begins..reader.at);
            if !seen.insert(text.clone()) {
                return Err(Diagnostic::new(place, format!("`{text}` is there twice")));
            }
            reader.skip_space();
            reader.expect(b':')?;
            entries.push((Key { text, place }, reader.value()?));
            Ok(())
        })?;
        Ok(Table::new(entries))
    }

    /// The members of an array, up to its bracket.
    fn array(&mut self) -> Result<Vec<Value>, Diagnostic> {
        let mut values = Vec::new();
        self.members(b']', |reader| {
            values.push(reader.value()?);
            Ok(())
        })?;
        Ok(values)
    }

    fn members(
        &mut self,
        end: u8,
        mut read: impl FnMut(&mut Self) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        self.skip_space();
        if self.peek() == Some(end) {
            return Ok(());
        }
        loop {
            self.skip_space();
            read(self)?;
            self.skip_space();
            if self.peek() == Some(end) {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, Diagnostic> {
        let begins = self.at;
        let rest = self.rest().bytes().enumerate().skip(1);
        let mut escaped = false;
        for (offset, byte) in rest {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at = begins + offset + 1;
                    return self.unescape(begins..self.at);
                }
                _ => {}
            }
        }
        self.at = self.source.text.len();
        Err(Diagnostic::new(self.place(begins..begins + 1), "not JSON: this text has no end"))
    }

    fn unescape(&self, span: Range<usize>) -> Result<String, Diagnostic> {
        let text = self.source.text.get(span.clone()).unwrap_or_default();
        serde_json::from_str(text).map_err(|_| {
            Diagnostic::new(self.place(span), "not JSON: this text has a character or an escape that is none")
        })
    }

    fn number(&mut self) -> Result<Data, Diagnostic> {
        let begins = self.at;
        self.skip_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let text = self.source.text.get(begins..self.at).unwrap_or_default();
        let number: Result<serde_json::Number, _> = serde_json::from_str(text);
        let none = |_| Diagnostic::new(self.place(begins..self.at), format!("not JSON: {text} is no number"));
        let number = number.map_err(none)?;
        Ok(number.as_i64().map_or_else(|| Data::Float(number.as_f64().unwrap_or(f64::NAN)), Data::Integer))
    }

    fn word(&mut self) -> Result<Data, Diagnostic> {
        let begins = self.at;
        self.skip_while(|byte| byte.is_ascii_alphanumeric());
        match self.source.text.get(begins..self.at) {
            Some("true") => Ok(Data::Boolean(true)),
            Some("false") => Ok(Data::Boolean(false)),
            Some("null") => Ok(Data::Null),
            _ => Err(Diagnostic::new(self.place(begins..self.at), "not JSON: texts stand in double quotes")),
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Diagnostic> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        let wanted = char::from(wanted);
        let message = match self.peek() {
            None => format!("not JSON: the file ends where `{wanted}` should be; it may be cut off"),
            Some(_) => format!("not JSON: `{wanted}` should be here"),
        };
        Err(self.problem(&message))
    }

    fn skip_space(&mut self) {
        self.skip_while(|byte| b" \t\r\n".contains(&byte));
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) {
        self.at += self.rest().bytes().take_while(|byte| skipped(*byte)).count();
    }

    fn peek(&self) -> Option<u8> {
        self.source.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &str {
        self.source.text.get(self.at..).unwrap_or_default()
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place::File(Arc::clone(self.source), span)
    }

    /// What is wrong with the character that is next.
    fn problem(&self, message: &str) -> Diagnostic {
        let length = self.rest().chars().next().map_or(0, char::len_utf8);
        Diagnostic::new(self.place(self.at..self.at + length), message)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Table, String> {
        let source = Arc::new(Source { path: PathBuf::from("f.json"), text: text.to_owned() });
        parse(&source).map_err(|problems| problems[0].to_string())
    }

    fn same(data: &Data, value: &serde_json::Value) -> bool {
        use serde_json::Value as Json;
        match (data, value) {
            (Data::Null, Json::Null) => true,
            (Data::Boolean(a), Json::Bool(b)) => a == b,
            (Data::Integer(a), Json::Number(b)) => Some(*a) == b.as_i64(),
            (Data::Float(a), Json::Number(b)) => Some(*a) == b.as_f64(),
            (Data::String(a), Json::String(b)) => a == b,
            (Data::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a.data, b)),
            (Data::Table(a), Json::Object(b)) => {
                a.entries().len() == b.len() && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(&a.data, b)))
            }
            _ => false,
        }
    }

    #[track_caller]
    fn check(text: &str, problem: &str) {
        assert_eq!(read(text).unwrap_err(), problem, "{text}");
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        check("", "f.json:1:1: not JSON: the file ends where a value should be; it may be cut off");
        check("[1]", "f.json:1:1: wants an object, not an array");
        check("{\"a\":\n1 2}", "f.json:2:3: not JSON: `,` should be here");
        check("{\"a\": 1", "f.json:1:8: not JSON: the file ends where `,` should be; it may be cut off");
        check("{\"a\": 01}", "f.json:1:7: not JSON: 01 is no number");
        check("{\"a\": yes}", "f.json:1:7: not JSON: texts stand in double quotes");
        check("{\"a\": 1, \"a\": 2}", "f.json:1:10: `a` is there twice");
        check("{'a': 1}", "f.json:1:2: not JSON: a key in double quotes should be here");
        check("{\"a\": \"b", "f.json:1:7: not JSON: this text has no end");
        check("{\"a\": \"\\x\"}", "f.json:1:7: not JSON: this text has a character or an escape that is none");
        check("{} {}", "f.json:1:4: more text after the end; one file holds one object");
        check(&"{\"a\":".repeat(200), "f.json:1:641: more than 128 arrays and objects in each other");
    }

    proptest! {
        #[test]
        fn what_is_json_to_others_is_so_here(text in "[{}\\[\\]\":,a1. \\\\e-]{0,24}") {
            let text = format!("{{\"k\": {text}}}");
            let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
            match (read(&text), theirs) {
                (Ok(table), Ok(value)) => prop_assert!(same(&Data::Table(table), &value), "{}", text),
                // A key that is there twice is the one thing that is refused here alone.
                (Err(problem), Ok(_)) => prop_assert!(problem.ends_with("is there twice"), "{}: {}", text, problem),
                (Ok(_), Err(error)) => prop_assert!(false, "{text}: {error}"),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
