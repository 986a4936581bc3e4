//! The directory of flag files: reading it as a whole, and watching it.
//!
//! Loading is all or nothing. What comes out is a complete, checked set, or every problem in it.

mod flagd;
mod parse;
mod ramp;
mod rules;
mod shadow;
mod users;
mod watch;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::diagnostic::Diagnostic;
use crate::flag::{BackendName, Flag, FlagKey, SetVersion};
use crate::flag_file::users::UserLists;
use crate::judge::Guard;
use crate::outcome::FailureClasses;

pub use crate::flag_file::flagd::{Exported, Unsaid, export};
pub use crate::flag_file::watch::watch;

/// How a flag file's name ends.
const EXTENSION: &str = "toml";

/// A file of flagd's flags of more than this is a mistake: it is read into a tree, and each value takes much more there.
const MAX_FLAGD_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A flag file of more than this is a mistake; users by the million belong in a `users_file`.
const MAX_FLAG_FILE_BYTES: u64 = 1024 * 1024;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a flag file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The flag.
    pub flag: Flag,
    /// When its canary is taken out.
    pub guard: Guard,
    /// What a failure is.
    pub failures: FailureClasses,
    /// The file.
    pub path: PathBuf,
    /// Where in the file what decides stands.
    pub lines: Lines,
    /// The version of the file, and of the list of users that it names.
    pub version: SetVersion,
}

/// The version of the set that `definitions` make.
#[must_use]
pub fn set_version(definitions: &[Definition]) -> SetVersion {
    definitions.iter().fold(SetVersion::EMPTY, |version, definition| {
        version.and(definition.flag.key.as_str().as_bytes()).and_part(definition.version)
    })
}

/// The lines of a flag file on which what decides stands, from 1. Rules keep their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lines {
    /// `enabled`, if it is there.
    pub enabled: Option<usize>,
    /// `percentage`.
    pub percentage: Option<usize>,
    /// `beta.users`, if it is there.
    pub users: Option<usize>,
    /// `beta.users_file`, if it is there.
    pub users_file: Option<usize>,
}

/// What flag files are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    /// The backends that flags may name.
    pub backends: Vec<BackendName>,
    /// The flags that routes name: each must have a file.
    pub flags: Vec<FlagKey>,
}

/// Reads a directory of flag files, as often as it is asked to.
///
/// Long lists of users are kept from one reading to the next, and read anew only when they have changed.
#[derive(Debug)]
pub struct Loader {
    directory: PathBuf,
    expected: Expectations,
    lists: UserLists,
}

impl Loader {
    /// A loader of `directory`, which has read nothing yet.
    #[must_use]
    pub fn new(directory: PathBuf, expected: Expectations) -> Self {
        Self { directory, expected, lists: UserLists::default() }
    }

    /// Reads every flag file.
    ///
    /// # Errors
    ///
    /// Every problem in every file, and the flags that a route names and no file defines.
    pub fn load(&mut self) -> Result<Vec<Definition>, Vec<Diagnostic>> {
        self.load_during(&BTreeSet::new())
    }

    /// Reads every flag file while somebody writes to the files of these names: of a list of users among them the one that was
    /// read before is kept, since what is there may be half of the new one.
    pub(crate) fn load_during(
        &mut self,
        being_written: &BTreeSet<OsString>,
    ) -> Result<Vec<Definition>, Vec<Diagnostic>> {
        self.lists.hold(being_written);
        let (directory, expected) = (&self.directory, &self.expected);
        let mut definitions = Vec::new();
        let mut problems = Vec::new();
        for path in flag_files(directory).map_err(|problem| vec![problem])? {
            match read(&path, expected, &mut self.lists) {
                Ok(found) => definitions.extend(found),
                Err(found) => problems.extend(found),
            }
        }
        definitions.sort_by(|a: &Definition, b| (&a.flag.key, &a.path).cmp(&(&b.flag.key, &b.path)));
        for pair in definitions.windows(2) {
            if let [first, second] = pair
                && first.flag.key == second.flag.key
            {
                let message = format!("the flag `{}` is in {} too", second.flag.key, first.path.display());
                problems.push(Diagnostic::of_file(&second.path, message));
            }
        }
        for key in &expected.flags {
            let file = directory.join(format!("{key}.{EXTENSION}"));
            if !definitions.iter().any(|definition| definition.flag.key == *key) && !file.exists() {
                let message = format!("a route names the flag `{key}`, but there is no such file");
                problems.push(Diagnostic::of_file(&file, message));
            }
        }
        if problems.is_empty() {
            self.lists.forget_others();
            Ok(definitions)
        } else {
            Err(problems)
        }
    }

    /// Gives back the memory of lists that nobody uses any more.
    pub fn tidy(&mut self) {
        self.lists.tidy();
    }
}

/// Reads every flag file in `directory` once.
///
/// # Errors
///
/// As [`Loader::load`].
pub fn load(directory: &Path, expected: &Expectations) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    Loader::new(directory.to_owned(), expected.clone()).load()
}

/// Reads one flag file: a flag, or as many as a file of flagd's holds.
///
/// # Errors
///
/// Every problem in it.
pub fn load_file(path: &Path, expected: &Expectations) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    read(path, expected, &mut UserLists::default())
}

/// Reads the flag `key` from the file that has it; `None` if none has.
///
/// # Errors
///
/// Every problem in the files that had to be read.
pub fn load_flag(
    directory: &Path,
    key: &FlagKey,
    expected: &Expectations,
) -> Result<Option<Definition>, Vec<Diagnostic>> {
    let own = directory.join(format!("{key}.{EXTENSION}"));
    let mut files = if own.exists() { vec![own] } else { flag_files(directory).map_err(|problem| vec![problem])? };
    files.retain(|path| is_flagd(path) || path.file_stem() == Some(OsStr::new(key.as_str())));
    for path in files {
        let found = load_file(&path, expected)?.into_iter().find(|definition| definition.flag.key == *key);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Reads `text` as the flag file that is called `path`, of flagd's if that is its name.
///
/// # Errors
///
/// Every problem in it.
pub fn parse_text(path: &Path, text: String, expected: &Expectations) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    parse_any(path, text, expected, &mut UserLists::default())
}

fn parse_any(
    path: &Path,
    text: String,
    expected: &Expectations,
    lists: &mut UserLists,
) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    if is_flagd(path) {
        return flagd::parse(path, text, expected);
    }
    parse::parse(path, text, expected, lists).map(|definition| vec![definition])
}

fn read(path: &Path, expected: &Expectations, lists: &mut UserLists) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    let (limit, instead) = if is_flagd(path) {
        (MAX_FLAGD_FILE_BYTES, "put long lists of users into a `users_file` of a TOML flag file")
    } else {
        (MAX_FLAG_FILE_BYTES, "put long lists of users into a `users_file`")
    };
    let text = read_bounded(path, limit, instead).map_err(|problem| vec![problem])?;
    parse_any(path, text, expected, lists)
}

fn is_flagd(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(flagd::EXTENSION.as_bytes()))
}

/// The flag files in `directory`, by name. Hidden files are not looked at: editors and mounted `ConfigMap`s keep their
/// own there.
fn flag_files(directory: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let cannot = |error| Diagnostic::of_file(directory, format!("cannot read the directory of flag files: {error}"));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && (path.extension() == Some(OsStr::new(EXTENSION)) || is_flagd(&path)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_bounded(path: &Path, limit: u64, instead: &str) -> Result<String, Diagnostic> {
    let length = regular_file(path).map_err(|error| Diagnostic::of_file(path, format!("cannot read: {error}")))?;
    if length > limit {
        let message = format!("{length} bytes are too many for a flag file; {instead}");
        return Err(Diagnostic::of_file(path, message));
    }
    read_text(path).map_err(|error| Diagnostic::of_file(path, format!("cannot read: {error}")))
}

/// The length of the file at `path`, if it is one: reading a pipe would wait for ever.
fn regular_file(path: &Path) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(io::Error::other("it is no regular file")) }
}

/// The text of the file at `path`, without the mark that some editors begin it with. What is no UTF-8 is told with its
/// place.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    regular_file(path)?;
    let mut bytes = fs::read(path)?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One write to the directory.
    #[derive(Debug, Clone)]
    enum Write {
        Flag { name: &'static str, percent: u32, rule: bool },
        Broken { name: &'static str, cut: usize },
        Users { text: String },
        Flagd { percent: u32, cut: bool },
        Removed { name: &'static str },
    }

    fn names() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["one.toml", "two.toml"])
    }

    fn writes() -> impl Strategy<Value = Write> {
        prop_oneof![
            (names(), 0_u32..=100, any::<bool>()).prop_map(|(name, percent, rule)| Write::Flag { name, percent, rule }),
            (names(), 0_usize..40).prop_map(|(name, cut)| Write::Broken { name, cut }),
            "[ab\n]{0,6}".prop_map(|text| Write::Users { text }),
            (0_u32..=100, any::<bool>()).prop_map(|(percent, cut)| Write::Flagd { percent, cut }),
            names().prop_map(|name| Write::Removed { name }),
        ]
    }

    fn text(percent: u32, rule: bool) -> String {
        let rules = "[[rules]]\nserve = \"canary\"\nwhen = [{ path = { regex = \"^/a+$\" } }]\n";
        format!(
            "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = {percent}\n[beta]\n\
             users_file = \"users.txt\"\n{}",
            if rule { rules } else { "" }
        )
    }

    fn make(directory: &Path, write: &Write) {
        match write {
            Write::Flag { name, percent, rule } => fs::write(directory.join(name), text(*percent, *rule)).unwrap(),
            Write::Broken { name, cut } => fs::write(directory.join(name), &text(5, true)[..*cut]).unwrap(),
            Write::Users { text } => fs::write(directory.join("users.txt"), text).unwrap(),
            Write::Flagd { percent, cut } => {
                let text = format!(
                    "{{\"flags\": {{\"three\": {{\"state\": \"ENABLED\", \"defaultVariant\": \"off\", \"variants\": \
                     {{\"off\": \"sync\", \"on\": \"async\"}}, \"targeting\": {{\"fractional\": \
                     [[\"on\", {percent}], [\"off\", {}]]}}}}}}}}",
                    100 - percent
                );
                let text = if *cut { &text[..text.len() / 2] } else { &text };
                fs::write(directory.join("three.flagd.json"), text).unwrap();
            }
            Write::Removed { name } => drop(fs::remove_file(directory.join(name))),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_in_force_is_a_fresh_load_of_the_last_good_files(writes in prop::collection::vec(writes(), 1..20)) {
            let directory = tempfile::tempdir().unwrap();
            let backends = vec!["sync".parse().unwrap(), "async".parse().unwrap()];
            let expected = Expectations { backends, flags: vec!["one".parse().unwrap()] };
            let mut loader = Loader::new(directory.path().to_owned(), expected.clone());
            let (mut in_force, mut last_good) = (None, 0);
            for (index, write) in writes.iter().enumerate() {
                make(directory.path(), write);
                if let Ok(definitions) = loader.load() {
                    (in_force, last_good) = (Some(definitions), index + 1);
                }
            }
            let Some(in_force) = in_force else { return Ok(()) };
            let again = tempfile::tempdir().unwrap();
            writes.iter().take(last_good).for_each(|write| make(again.path(), write));
            let fresh = load(again.path(), &expected).unwrap();
            prop_assert_eq!(in_force.len(), fresh.len());
            for (held, fresh) in in_force.iter().zip(&fresh) {
                prop_assert_eq!((&held.flag, &held.guard, &held.lines), (&fresh.flag, &fresh.guard, &fresh.lines));
                for user in ["a", "b", "ab", "ba", "aa", "bb", "aab"] {
                    prop_assert_eq!(held.flag.beta.contains(user), fresh.flag.beta.contains(user));
                }
            }
        }
    }
}
