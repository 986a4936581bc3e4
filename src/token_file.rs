//! Tokens as they stand in files: `[tokens.NAME]` with `role` and `hash`, in tidegate.toml under `[admin]` or in a file of
//! their own, which is read anew when it changes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::access::{Access, Role, Token, TokenError, TokenHash, TokenName};
use crate::diagnostic::Diagnostic;
use crate::document::{Document, Problems, Section, Value, parsed, string};

/// How often the file is looked at. A token that is revoked has this long to live.
const RESCAN: Duration = Duration::from_secs(1);

/// Why the file of tokens cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// What stands in it cannot be used.
    #[error("the file of tokens cannot be used")]
    Bad(Vec<Diagnostic>),
    /// There is a token of this name.
    #[error("{} holds a token named `{name}`; revoke it first, or choose another name", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
    /// There is no token of this name.
    #[error("{} holds no token named `{name}`", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
    /// It is written in another way than Tidegate writes it.
    #[error("{} is not laid out as `tidegate token` writes it; remove `{name}` by hand", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
    /// It cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The tokens under `tokens` in `section`.
pub fn tokens(section: &mut Section<'_>) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (name, mut table) in section.named_sections("tokens") {
        let problems = table.problems();
        let read: Result<TokenName, _> = name.value.parse();
        if let Err(error) = &read {
            problems.report(&name.place, format!("`{}`: {error}", name.value));
        }
        let role = table.required("role", "\"operator\"", parsed::<Role>);
        let hash = table.required("hash", "\"sha256:…\"", hash);
        table.finish();
        if let (Ok(name), Some(role), Some(hash)) = (read, role, hash) {
            tokens.push(Token { name, role: role.value, hash: hash.value });
        }
    }
    tokens
}

/// A hash. What stands there instead is not repeated: it may be the token itself.
fn hash(value: &Value) -> Result<TokenHash, String> {
    string(value)?.parse().map_err(|error: TokenError| error.to_string())
}

/// Reads the file of tokens.
///
/// # Errors
///
/// Every problem, with its place.
pub fn load(path: &Path) -> Result<Vec<Token>, Vec<Diagnostic>> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| vec![Diagnostic::of_file(path, format!("cannot read: {error}"))])?;
    parse(path, text)
}

fn parse(path: &Path, text: String) -> Result<Vec<Token>, Vec<Diagnostic>> {
    let document = Document::parse(path, text)?;
    let problems = Problems::new();
    let mut root = document.root(&problems);
    let tokens = tokens(&mut root);
    root.finish();
    if problems.is_empty() { Ok(tokens) } else { Err(problems.into_vec()) }
}

/// Adds a token to the file, and makes the file if it isn't there.
///
/// # Errors
///
/// If there is one of that name, or the file cannot be used.
pub fn add(path: &Path, token: &Token) -> Result<(), TokenFileError> {
    let failed = |source| TokenFileError::Io { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    let known = parse(path, text.clone()).map_err(TokenFileError::Bad)?;
    let Token { name, role, hash } = token;
    if known.iter().any(|known| known.name == *name) {
        return Err(TokenFileError::Taken { path: path.to_owned(), name: name.clone() });
    }
    let gap = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
    let table = format!("{gap}[tokens.\"{name}\"]\nrole = \"{role}\"\nhash = \"{hash}\"\n");
    replace(path, &format!("{text}{table}")).map_err(failed)
}

/// Removes a token from the file.
///
/// # Errors
///
/// If there is none of that name, or the file cannot be used.
pub fn remove(path: &Path, name: &TokenName) -> Result<(), TokenFileError> {
    let failed = |source| TokenFileError::Io { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    let mut left = parse(path, text.clone()).map_err(TokenFileError::Bad)?;
    let before = left.len();
    left.retain(|token| token.name != *name);
    if left.len() == before {
        return Err(TokenFileError::Unknown { path: path.to_owned(), name: name.clone() });
    }
    let heads = [format!("[tokens.\"{name}\"]"), format!("[tokens.{name}]")];
    let mut inside = false;
    let kept = text.split_inclusive('\n').filter(|line| {
        let line = line.trim();
        inside = if line.starts_with('[') { heads.iter().any(|head| head == line) } else { inside };
        !inside
    });
    let kept: String = kept.collect();
    match parse(path, kept.clone()) {
        Ok(tokens) if tokens == left => replace(path, &kept).map_err(failed),
        _ => Err(TokenFileError::Layout { path: path.to_owned(), name: name.clone() }),
    }
}

/// Puts a whole file in the place of the one there is, so that no reader sees a part of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Keeps `access` at `fixed` and the tokens in the file, until `shutdown` turns true. While the file is bad, what was in
/// force stays so.
pub async fn watch(path: PathBuf, fixed: Vec<Token>, access: &Access, mut shutdown: watch::Receiver<bool>) {
    let mut looks = interval(RESCAN);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let text = |problems: Vec<Diagnostic>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let read = load(&path).map_err(text);
        if seen.as_ref() == Some(&read) {
            continue;
        }
        match &read {
            Ok(tokens) => {
                if seen.is_some() {
                    info!(tokens = tokens.len(), "the file of tokens has changed");
                }
                access.replace(fixed.iter().chain(tokens).cloned().collect());
            }
            Err(problem) => {
                error!(%problem, "bad file of tokens; those in force stay so");
                access.keep(format!("bad file of tokens, so those in force stay: {problem}"));
            }
        }
        seen = Some(read);
    }
}
