//! What is made of files, and made anew when they change: keys and certificates. A bad change leaves what was in force.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

/// How often the files are looked at.
const RESCAN: Duration = Duration::from_secs(1);

/// The contents of files, in the order of their paths.
type Contents = Vec<Vec<u8>>;

type Make<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// A `T` that is made of files.
pub struct Remade<T> {
    paths: Vec<PathBuf>,
    make: Make<T>,
    made: ArcSwap<T>,
    /// What the files held when they were last looked at.
    seen: Mutex<Result<Contents, String>>,
    problem: ArcSwapOption<String>,
}

impl<T> fmt::Debug for Remade<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remade").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Remade<T> {
    /// What `make` makes of the contents of `paths`.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or `make` refuses what they hold; names the file. If there are several, `make` has to.
    pub fn open(
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let contents = read(&paths)?;
        let made = make(&contents).map_err(|problem| named(&paths, &problem))?;
        Ok(Self {
            paths,
            make: Box::new(make),
            made: ArcSwap::from_pointee(made),
            seen: Mutex::new(Ok(contents)),
            problem: ArcSwapOption::empty(),
        })
    }

    /// What is in force.
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.made.load()
    }
}

fn read(paths: &[PathBuf]) -> Result<Contents, String> {
    let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: cannot read: {error}", path.display()));
    paths.iter().map(read).collect()
}

/// Names the file that `problem` is about. Where there are several, `make` has named it.
fn named(paths: &[PathBuf], problem: &str) -> String {
    match paths {
        [path] => format!("{}: {problem}", path.display()),
        _ => problem.to_owned(),
    }
}

/// A [`Remade`] of anything.
pub trait Changing: fmt::Debug + Send + Sync {
    /// Looks at the files, and makes it anew if they changed.
    fn look(&self);

    /// Why what is in force is not what the files hold, if so.
    fn problem(&self) -> Option<String>;
}

impl<T: Send + Sync> Changing for Remade<T> {
    fn look(&self) {
        let found = read(&self.paths);
        let mut seen = self.seen.lock();
        if *seen == found {
            return;
        }
        let made = found
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|contents| (self.make)(contents).map_err(|problem| named(&self.paths, &problem)));
        *seen = found;
        match made {
            Ok(made) => {
                self.made.store(Arc::new(made));
                self.problem.store(None);
                info!(paths = ?self.paths, "read anew");
            }
            Err(problem) => {
                error!(%problem, "a changed file cannot be used; what it held before stays in force");
                self.problem.store(Some(Arc::new(format!("{problem}; what was there before stays in force"))));
            }
        }
    }

    fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }
}

/// Everything that is made of files, as it is at any time.
pub type AllChanging = ArcSwap<Vec<Arc<dyn Changing>>>;

/// Looks at the files of `all` each second, until `stopping` turns true.
pub async fn watch(all: Arc<AllChanging>, mut stopping: watch::Receiver<bool>) {
    let mut looks = interval(RESCAN);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            _ = looks.tick() => all.load().iter().for_each(|changing| changing.look()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_change_leaves_what_was_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let number = |contents: &[Vec<u8>]| {
            String::from_utf8_lossy(&contents[0]).trim().parse::<u8>().map_err(|error| error.to_string())
        };
        assert!(Remade::open(vec![path.clone()], number).unwrap_err().contains("number: cannot read: "));
        fs::write(&path, "7").unwrap();
        let remade = Remade::open(vec![path.clone()], number).unwrap();
        for (text, value, problem) in [("8", 8, false), ("x", 8, true), ("8", 8, false), ("9", 9, false)] {
            fs::write(&path, text).unwrap();
            remade.look();
            assert_eq!((**remade.load(), remade.problem().is_some()), (value, problem), "{text}");
        }
        fs::remove_file(&path).unwrap();
        remade.look();
        assert_eq!(**remade.load(), 9);
        assert!(remade.problem().unwrap().contains("cannot read"));
    }
}
