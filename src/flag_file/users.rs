//! Lists of users beside the flag files, by the million.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::Place;
use crate::document::{Placed, Problems};
use crate::flag::{KeyLines, MAX_TARGETING_KEY_BYTES};
use crate::flag_file::{BYTE_ORDER_MARK, read_text, regular_file};

/// How much of a file is compared at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// More than this many lines of one list are not complained about one by one.
const MAX_LINE_PROBLEMS: usize = 5;

/// The lists that were read before, so that one that did not change is neither read nor held twice.
#[derive(Debug, Default)]
pub(crate) struct UserLists {
    lists: BTreeMap<PathBuf, Arc<KeyLines>>,
    /// Those that the reading under way has used.
    used: BTreeSet<PathBuf>,
    /// The names of files that somebody is writing.
    being_written: BTreeSet<OsString>,
    /// Those that were replaced. They are kept until nobody else has them, so that it is never a request that ends up
    /// giving back a hundred megabytes.
    retired: Vec<Arc<KeyLines>>,
}

impl UserLists {
    /// Reads no file of these names until this is called again.
    pub(crate) fn hold(&mut self, being_written: &BTreeSet<OsString>) {
        self.being_written.clone_from(being_written);
    }

    /// The list in the file that `users_file` names, beside `flag_file`.
    pub(crate) fn read(
        &mut self,
        flag_file: &Path,
        users_file: &Placed<String>,
        problems: &Problems,
    ) -> Option<Arc<KeyLines>> {
        let name = Path::new(&users_file.value);
        let beside = name.file_name() == Some(name.as_os_str());
        if !beside {
            let message = "`beta.users_file` is a file beside the flag file: write its name without a directory";
            problems.report(&users_file.place, message);
            return None;
        }
        let path = flag_file.with_file_name(name);
        let is_held = self.being_written.contains(name.as_os_str());
        let is_same = |known: &&Arc<KeyLines>| is_held || holds(&path, known.text()).unwrap_or(false);
        let list = match self.lists.get(&path).filter(is_same) {
            Some(known) => Arc::clone(known),
            None if is_held => {
                let message = format!("`beta.users_file`: {} is still being written", path.display());
                problems.report(&users_file.place, message);
                return None;
            }
            None => Arc::new(parse(&path, users_file, problems)?),
        };
        self.used.insert(path.clone());
        let before = self.lists.insert(path, Arc::clone(&list));
        self.retired.extend(before.filter(|before| !Arc::ptr_eq(before, &list)));
        Some(list)
    }

    /// Keeps only the lists that were used since this was called before.
    pub(crate) fn forget_others(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.retired.extend(self.lists.extract_if(.., |path, _| !used.contains(path)).map(|(_, list)| list));
        self.tidy();
    }

    /// Gives back the memory of lists that nobody uses any more.
    pub(crate) fn tidy(&mut self) {
        self.retired.retain(|list| Arc::strong_count(list) > 1);
    }
}

fn parse(path: &Path, users_file: &Placed<String>, problems: &Problems) -> Option<KeyLines> {
    let cannot = |error: &dyn std::fmt::Display| {
        let message = format!("`beta.users_file`: cannot read {}: {error}", path.display());
        problems.report(&users_file.place, message);
    };
    let at_line = |line: usize| Place::Path(format!("{}:{line}:1", path.display()).into());
    let text = read_text(path).map_err(|error| cannot(&error)).ok()?;
    let too_long = text.lines().enumerate().filter(|(_, line)| line.trim().len() > MAX_TARGETING_KEY_BYTES);
    for (index, _) in too_long.take(MAX_LINE_PROBLEMS) {
        let message = format!("a targeting key is at most {MAX_TARGETING_KEY_BYTES} bytes long");
        problems.report(&at_line(index + 1), message);
    }
    KeyLines::new(text).map_err(|error| cannot(&error)).ok()
}

/// Whether the file holds this text and nothing else. Metadata could not tell for sure.
fn holds(path: &Path, text: &str) -> io::Result<bool> {
    let length = regular_file(path)?;
    let mut file = File::open(path)?;
    match length.checked_sub(text.len() as u64) {
        Some(0) => {}
        Some(3) => {
            let mut mark = [0; BYTE_ORDER_MARK.len()];
            file.read_exact(&mut mark)?;
            if mark != BYTE_ORDER_MARK {
                return Ok(false);
            }
        }
        _ => return Ok(false),
    }
    let mut rest = text.as_bytes();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(rest.is_empty());
        }
        match (chunk.get(..read), rest.split_at_checked(read)) {
            (Some(chunk), Some((expected, after))) if chunk == expected => rest = after,
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::flag::BackendName;
    use crate::flag_file::{Expectations, Loader};

    #[test]
    fn only_a_list_that_changed_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        for flag in ["one", "two"] {
            let text = "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 0\n[beta]\nusers_file = ";
            write(&format!("{flag}.toml"), &format!("{text}\"{flag}.txt\"\n"));
            write(&format!("{flag}.txt"), "alice\n");
        }
        let backends: Vec<BackendName> = vec!["sync".parse().unwrap(), "async".parse().unwrap()];
        let mut loader = Loader::new(directory.path().to_owned(), Expectations { backends, flags: vec![] });
        let mut lists = || -> Result<Vec<_>, String> {
            let loaded = loader.load().map_err(|problems| problems[0].to_string())?;
            assert_eq!(loaded.len(), 2);
            loader.tidy();
            assert!(loader.lists.retired.is_empty(), "nobody has them");
            Ok(loader.lists.lists.values().map(|list| (Arc::as_ptr(list), list.len())).collect())
        };
        let first = lists().unwrap();
        assert_eq!(lists().unwrap(), first, "nothing changed, so nothing was read");
        write("one.txt", "carol\ndave\n");
        let second = lists().unwrap();
        assert_eq!((second[0].1, second[1]), (2, first[1]), "the other is the very same");
        write("two.txt", "bob");
        assert_eq!(lists().unwrap()[0], second[0]);
        write("two.txt", "\u{feff}bob\n");
        let marked = lists().unwrap();
        assert_eq!((marked[1].1, lists().unwrap()), (1, marked.clone()), "a byte order mark is no part of the text");
        fs::write(directory.path().join("two.txt"), b"bob\ncar\xffol\n").unwrap();
        assert!(lists().unwrap_err().ends_with("two.txt: line 2 is not UTF-8"));
        fs::remove_file(directory.path().join("two.txt")).unwrap();
        assert!(lists().unwrap_err().contains("cannot read"));
    }

    #[test]
    fn half_a_list_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let text = "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 0\n[beta]\nusers_file = ";
        write("one.toml", &format!("{text}\"one.txt\"\n"));
        write("one.txt", "alice\nbob\n");
        let backends: Vec<BackendName> = vec!["sync".parse().unwrap(), "async".parse().unwrap()];
        let mut loader = Loader::new(directory.path().to_owned(), Expectations { backends, flags: vec![] });
        let written = BTreeSet::from([OsString::from("one.txt")]);
        let mut list = |being_written: &BTreeSet<OsString>| {
            let loaded = loader.load_during(being_written);
            loaded.map(|flags| flags[0].flag.beta.contains("alice")).map_err(|problems| problems[0].to_string())
        };
        assert!(list(&written).unwrap_err().ends_with("one.txt is still being written"), "nothing is known of it");
        assert_eq!(list(&BTreeSet::new()), Ok(true));
        write("one.txt", "car");
        assert_eq!(list(&written), Ok(true), "the one before is kept");
        assert_eq!(list(&BTreeSet::new()), Ok(false));
    }
}
