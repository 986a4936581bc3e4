//! Where the data is, from a URL.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::backend::error::Error;

/// The schemes of `PostgreSQL`, known so that the refusal can be plain.
const POSTGRES: [&str; 2] = ["postgres", "postgresql"];

/// A database that a backend can use; so far always an `SQLite` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatabaseUrl {
    path: PathBuf,
}

impl DatabaseUrl {
    /// The `SQLite` file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for DatabaseUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Error::Url("it has no scheme"));
        };
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "sqlite" {
            // Only known schemes are repeated: anything else may be a secret that strayed here.
            return Err(if POSTGRES.contains(&scheme.as_str()) {
                Error::Unsupported { scheme }
            } else {
                Error::Url("its scheme is not sqlite")
            });
        }
        if rest.is_empty() {
            return Err(Error::Url("it names no file"));
        }
        if rest.contains('?') {
            return Err(Error::Url("it takes no parameters"));
        }
        if rest.contains(":memory:") || rest.starts_with("file:") {
            return Err(Error::Url(
                "every connection would see a database of its own in memory, so it must name a file",
            ));
        }
        Ok(Self { path: rest.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<&str, &str>) {
        let found = url.parse::<DatabaseUrl>();
        match (&found, expected) {
            (Ok(found), Ok(path)) => assert_eq!(found.path(), Path::new(path), "{url}"),
            (Err(found), Err(message)) => {
                let found = found.to_string();
                assert!(found.contains(message), "{url}: {found}");
                assert!(!found.contains("secret"), "{url}: {found}");
            }
            _ => panic!("{url}: {found:?}"),
        }
    }

    #[test]
    fn sqlite_files_are_accepted_and_all_else_is_refused() {
        check("sqlite://interview.db", Ok("interview.db"));
        check("SQLite:///var/lib/x.db", Ok("/var/lib/x.db"));
        check("sqlite://dir/a b.db", Ok("dir/a b.db"));
        check("sqlite://", Err("names no file"));
        check("sqlite://x.db?mode=ro", Err("no parameters"));
        check("sqlite://:memory:", Err("must name a file"));
        check("interview.db", Err("no scheme"));
        check("mysql://u:secret@h/d", Err("scheme is not sqlite"));
        check("postgres://u:secret@h/d", Err("postgres:// databases are not supported yet"));
        check("postgresql://u:secret@h/d", Err("postgresql:// databases are not supported yet"));
    }
}
