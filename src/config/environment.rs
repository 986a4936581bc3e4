//! Configuration by environment: `TIDEGATE_LISTEN__HTTP` stands for `listen.http`.

use std::env;

use crate::diagnostic::{Diagnostic, Place};
use crate::document::Document;

const PREFIX: &str = "TIDEGATE_";

/// Between the parts of a key; one underscore may be part of a key.
const SEPARATOR: &str = "__";

/// The top-level tables, but for `admin`: `TIDEGATE_ADMIN` is the command line's. A variable for a whole one of them holds no [`SEPARATOR`].
const TABLES: [&str; 7] = ["listen", "identity", "flags", "store", "backends", "database", "routes"];

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    name: String,
    value: String,
}

impl Variable {
    /// A variable called `name`.
    #[must_use]
    pub fn new(name: String, value: String) -> Self {
        Self { name, value }
    }
}

/// The variables of this process, as far as they are text.
#[must_use]
pub fn environment() -> Vec<Variable> {
    let text = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut variables: Vec<_> = text.map(|(name, value)| Variable { name, value }).collect();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

/// Where a service manager listens, if it started this process and wants to know when that is ready; see `sd_notify(3)`.
#[must_use]
pub fn notify_socket() -> Option<String> {
    env::var_os("NOTIFY_SOCKET")?.into_string().ok().filter(|socket| !socket.is_empty())
}

/// Puts the variables that are Tidegate's over the document.
///
/// Others of our prefix are left alone: the command line has its own (`TIDEGATE_ADMIN`), and a container platform sets
/// some for every service called tidegate (`TIDEGATE_PORT_8080_TCP`). One that a key would have with a second
/// underscore is refused, since it was meant for us.
pub(crate) fn overlay(document: &mut Document, variables: &[Variable]) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for Variable { name, value } in variables {
        let Some(path) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
        if path.contains(SEPARATOR) || TABLES.contains(&path.as_str()) {
            let keys: Vec<_> = path.split(SEPARATOR).collect();
            problems.extend(document.overlay(name, &keys, value).err());
            continue;
        }
        let meant = path.split_once('_').filter(|(table, key)| TABLES.contains(table) && !key.is_empty());
        if let Some((table, key)) = meant {
            let right = format!("{PREFIX}{table}{SEPARATOR}{key}").to_uppercase();
            let message = format!("this sets nothing; the parts of a key are joined by two underscores: {right}");
            problems.push(Diagnostic::new(Place::Environment(name.clone()), message));
        }
    }
    problems
}
