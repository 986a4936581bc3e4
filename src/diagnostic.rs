//! What is wrong with a file, told so that its reader can mend it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file's text, kept so that a place in it can be shown.
#[derive(Debug)]
pub struct Source {
    /// Where the text is from, as the user named it.
    pub path: PathBuf,
    /// The text.
    pub text: String,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Place {
    /// Bytes of a file.
    File(Arc<Source>, Range<usize>),
    /// A file as a whole, for what cannot be read at all.
    Path(PathBuf),
    /// A variable of the environment.
    Environment(String),
}

/// One problem: what is wrong, where, and what to do about it.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Diagnostic {
    /// A problem at `place`.
    #[must_use]
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }

    /// A problem with the whole file at `path`.
    #[must_use]
    pub fn of_file(path: &Path, message: impl Into<String>) -> Self {
        Self::new(Place::Path(path.to_owned()), message)
    }

    /// The problem in one line, and below it the text that it is about, with a caret.
    #[must_use]
    pub fn with_excerpt(&self) -> String {
        let Place::File(source, span) = &self.place else { return self.to_string() };
        if *span == (0..0) {
            // About the file as a whole: pointing at its first letter would say something else.
            return self.to_string();
        }
        let (line, column) = line_and_column(&source.text, span.start);
        let Some(text) = source.text.lines().nth(line - 1) else { return self.to_string() };
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        // A caret line that repeats the tabs of its text stays aligned whatever a tab's width.
        let indent: String =
            text.chars().take(column - 1).map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        let rest = text.chars().count().saturating_sub(column - 1);
        let width = source.text.get(span.clone()).map_or(1, |marked| marked.chars().count()).clamp(1, rest.max(1));
        format!("{self}\n {gutter} |\n {number} | {text}\n {gutter} | {indent}{}", "^".repeat(width))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Place {
    /// The line in its file, from 1; 0 if it is in none.
    #[must_use]
    pub fn line(&self) -> usize {
        match self {
            Self::File(source, span) => line_and_column(&source.text, span.start).0,
            Self::Path(_) | Self::Environment(_) => 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(source, span) => {
                let (line, column) = line_and_column(&source.text, span.start);
                write!(f, "{}:{line}:{column}", source.path.display())
            }
            Self::Path(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Line and column of the byte at `offset`, both from 1; the column counts characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, span: Range<usize>, expected: &str) {
        let source = Arc::new(Source { path: "a.toml".into(), text: text.to_owned() });
        assert_eq!(Diagnostic::new(Place::File(source, span), "bad").with_excerpt(), expected);
    }

    #[test]
    fn the_place_is_shown() {
        check("x = 1\nyy = 2\n", 6..8, "a.toml:2:1: bad\n   |\n 2 | yy = 2\n   | ^^");
        check("ä = ü\n", 5..7, "a.toml:1:5: bad\n   |\n 1 | ä = ü\n   |     ^");
        check("\tx = 1", 1..2, "a.toml:1:2: bad\n   |\n 1 | \tx = 1\n   | \t^");
        check("x = 1", 5..5, "a.toml:1:6: bad\n   |\n 1 | x = 1\n   |      ^");
        check("x = \"\"\"\n1\n2\"\"\"", 4..14, "a.toml:1:5: bad\n   |\n 1 | x = \"\"\"\n   |     ^^^");
        check("x = 1", 0..0, "a.toml:1:1: bad");
        check("", 0..1, "a.toml:1:1: bad");
    }
}
