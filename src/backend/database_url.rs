//! Where the data is, from a URL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::backend::error::Error;

/// Python drivers of `PostgreSQL` that a URL of `SQLAlchemy`'s may name.
const POSTGRES_DRIVERS: [&str; 7] =
    ["asyncpg", "psycopg", "psycopg2", "psycopg_async", "psycopg2cffi", "pg8000", "aiopg"];

/// Python drivers of `SQLite` that a URL of `SQLAlchemy`'s may name.
const SQLITE_DRIVERS: [&str; 3] = ["aiosqlite", "pysqlite", "pysqlite3"];

/// Connection parameters that libpq and sqlx understand alike.
const PARAMETERS: [&str; 7] = ["host", "port", "application_name", "options", "sslrootcert", "sslcert", "sslkey"];

/// A database that a backend can use.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum DatabaseUrl {
    /// An `SQLite` file.
    Sqlite(PathBuf),
    /// A `PostgreSQL` database, as a URL that libpq and sqlx read alike. It may hold a password.
    Postgres(String),
}

impl DatabaseUrl {
    /// The URL for sqlx.
    pub(crate) fn for_sqlx(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", percent_encoded(path)),
            Self::Postgres(url) => url.clone(),
        }
    }
}

/// For people: without the password and the parameters.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => {
                let rest = url.strip_prefix("postgres://").unwrap_or_default();
                let rest = rest.split('?').next().unwrap_or_default();
                match rest.rsplit_once('@') {
                    Some((user, place)) => {
                        let user = user.split(':').next().unwrap_or_default();
                        write!(f, "postgres://{user}@{place}")
                    }
                    None => write!(f, "postgres://{rest}"),
                }
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

impl FromStr for DatabaseUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Error::Url("it has no scheme"));
        };
        let scheme = scheme.to_ascii_lowercase();
        let (kind, driver) = match scheme.split_once('+') {
            Some((kind, driver)) => (kind, Some(driver)),
            None => (scheme.as_str(), None),
        };
        // Nothing of the URL is repeated: what is not understood may be a secret that strayed here.
        match kind {
            "sqlite" if driver.is_none_or(|driver| SQLITE_DRIVERS.contains(&driver)) => sqlite(rest, driver.is_some()),
            "postgres" | "postgresql" if driver.is_none_or(|driver| POSTGRES_DRIVERS.contains(&driver)) => {
                postgres(rest)
            }
            "sqlite" | "postgres" | "postgresql" => Err(Error::Url("the driver after its scheme is not known")),
            _ => Err(Error::Url("its scheme is neither sqlite nor postgres")),
        }
    }
}

/// `SQLAlchemy` writes a relative path after three slashes and an absolute one after four; without a driver in the
/// scheme it is two and three.
fn sqlite(rest: &str, sqlalchemy: bool) -> Result<DatabaseUrl, Error> {
    let path = match (sqlalchemy, rest.strip_prefix('/')) {
        (false, _) => rest,
        (true, Some(path)) => path,
        (true, None) => return Err(Error::Url("with a driver in its scheme, a file follows three slashes")),
    };
    if path.is_empty() {
        return Err(Error::Url("it names no file"));
    }
    if path.contains('?') {
        return Err(Error::Url("one of SQLite takes no parameters"));
    }
    if path.contains(":memory:") || path.starts_with("file:") {
        return Err(Error::Url("every connection would see a database of its own in memory, so it must name a file"));
    }
    Ok(DatabaseUrl::Sqlite(path.into()))
}

fn postgres(rest: &str) -> Result<DatabaseUrl, Error> {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let database = place.rsplit_once('/').map(|(_, database)| database).unwrap_or_default();
    if database.is_empty() {
        return Err(Error::Url("it names no database after the host"));
    }
    let mut kept = Vec::new();
    let (mut mode, mut has_roots) = (None, false);
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            // asyncpg's name for it.
            "ssl" | "sslmode" => mode = Some(ssl_mode(value)?),
            _ if PARAMETERS.contains(&name) => {
                has_roots |= name == "sslrootcert";
                kept.push(parameter.to_owned());
            }
            _ => {
                return Err(Error::Url(
                    "it has a parameter other than host, port, sslmode, sslrootcert, sslcert, sslkey, application_name, options",
                ));
            }
        }
    }
    // With other combinations libpq and sqlx differ in whom they believe.
    if has_roots != mode.is_some_and(|mode| mode.starts_with("verify-")) {
        return Err(Error::Url("sslmode=verify-ca or verify-full and sslrootcert=FILE go together"));
    }
    kept.extend(mode.map(|mode| format!("sslmode={mode}")));
    let parameters = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok(DatabaseUrl::Postgres(format!("postgres://{place}{parameters}")))
}

/// What both drivers call the mode. With `allow` and `prefer` one of them would use TLS where the other does not.
fn ssl_mode(value: &str) -> Result<&'static str, Error> {
    match value {
        "disable" | "allow" | "prefer" | "false" => Ok("disable"),
        "require" | "true" => Ok("require"),
        "verify-ca" => Ok("verify-ca"),
        "verify-full" => Ok("verify-full"),
        _ => Err(Error::Url("its sslmode is none of disable, allow, prefer, require, verify-ca, verify-full")),
    }
}

/// A path as the part of a URL; bytes beyond ASCII's plain ones are written as `%XX` (RFC 3986, section 2.1).
fn percent_encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._~-".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<&str, &str>) {
        let found = url.parse::<DatabaseUrl>();
        match (&found, expected) {
            (Ok(DatabaseUrl::Sqlite(path)), Ok(expected)) => assert_eq!(path, Path::new(expected), "{url}"),
            (Ok(DatabaseUrl::Postgres(found)), Ok(expected)) => assert_eq!(found, expected, "{url}"),
            (Err(found), Err(message)) => {
                let found = found.to_string();
                assert!(found.contains(message), "{url}: {found}");
                assert!(!found.contains("secret"), "{url}: {found}");
            }
            _ => panic!("{url}: {found:?}"),
        }
    }

    #[test]
    fn sqlite_files_are_accepted() {
        check("sqlite://interview.db", Ok("interview.db"));
        check("SQLite:///var/lib/x.db", Ok("/var/lib/x.db"));
        check("sqlite://dir/a b.db", Ok("dir/a b.db"));
        check("sqlite+aiosqlite:///interview.db", Ok("interview.db"));
        check("sqlite+pysqlite:////var/lib/x.db", Ok("/var/lib/x.db"));
        check("sqlite+aiosqlite://interview.db", Err("three slashes"));
        check("sqlite+secret:///interview.db", Err("driver after its scheme"));
        check("sqlite://", Err("names no file"));
        check("sqlite+aiosqlite:///", Err("names no file"));
        check("sqlite://x.db?mode=ro", Err("no parameters"));
        check("sqlite://:memory:", Err("must name a file"));
        check("interview.db", Err("no scheme"));
        check("mysql://u:secret@h/d", Err("neither sqlite nor postgres"));
    }

    #[test]
    fn postgres_urls_are_mapped_to_one_that_both_drivers_read() {
        check("postgres://u:secret@h/d", Ok("postgres://u:secret@h/d"));
        check("postgresql://h:5433/d", Ok("postgres://h:5433/d"));
        check("postgresql+asyncpg://u@h/d?ssl=disable", Ok("postgres://u@h/d?sslmode=disable"));
        check("postgresql+psycopg2:///d?host=/run/postgresql", Ok("postgres:///d?host=/run/postgresql"));
        check("postgres://u:secret@h/d?sslmode=prefer", Ok("postgres://u:secret@h/d?sslmode=disable"));
        check("postgres://u:secret@h", Err("names no database"));
        check("postgres://u:secret@h/d?sslmode=require&port=1", Ok("postgres://u:secret@h/d?port=1&sslmode=require"));
        check("postgresql+asyncpg://u@h/d?ssl=true", Ok("postgres://u@h/d?sslmode=require"));
        let verified = "postgres://u@h/d?sslrootcert=/ca.pem&sslmode=verify-full";
        check(verified, Ok(verified));
        check("postgres://u:secret@h/d?sslmode=verify-full", Err("go together"));
        check("postgres://u:secret@h/d?sslrootcert=secret&sslmode=require", Err("go together"));
        check("postgres://u:secret@h/d?sslmode=secret", Err("none of disable"));
        check("postgres://u:secret@h/d?pool=secret", Err("a parameter other than"));
        check("postgresql+secret://h/d", Err("driver after its scheme"));
    }

    #[test]
    fn people_never_see_a_password() {
        for (url, shown) in [
            ("postgres://u:se@cret@h:1/d?options=x", "postgres://u@h:1/d"),
            ("postgresql:///d?host=/run", "postgres:///d"),
            ("sqlite://a.db", "a.db"),
        ] {
            let url: DatabaseUrl = url.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("DatabaseUrl({shown})"));
        }
    }

    #[test]
    fn odd_paths_survive_sqlx() {
        let url: DatabaseUrl = "sqlite:///a b/100%?.db".replace('?', "#").parse().unwrap();
        assert_eq!(url.for_sqlx(), "sqlite:/a%20b/100%25%23.db");
    }
}
