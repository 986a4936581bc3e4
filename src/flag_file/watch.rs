//! Watching the directory: any event means reading everything again.
//!
//! Events are only a hint to look sooner. Whatever they miss (a directory replaced as a whole, a file system without
//! events) the rescan finds by the files' metadata.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::path::{self, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::sync::{Notify, oneshot, watch as signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::diagnostic::Diagnostic;
use crate::flag_file::{Definition, Loader};

/// How often the directory is looked at without an event.
const RESCAN: Duration = Duration::from_secs(1);

/// How long the directory must be quiet before it is read: an editor that truncates and writes is not read in between, also
/// where the processors are so busy that its events come late.
const QUIET: Duration = Duration::from_millis(30);

/// However long somebody keeps writing a file, it is read after this time.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// A list of users is not read while somebody is writing it, which may take long, unless nothing more came for this time.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// However many write one after the other, the directory is read after this time.
const MAX_BUSY: Duration = Duration::from_secs(5);

/// So many readings in a row are thrown away because somebody began to write meanwhile; then one is believed all the same.
const MAX_SPOILT: u32 = 5;

/// How far reading stands back behind requests, from 0 to 19 (`nice(2)`): a tenth of their share where all processors are
/// busy, so that it goes on then too.
const NICE: i32 = 10;

/// How long what does not load may stay so before it is reported: a file may be gone for a moment while it is replaced.
const SETTLE: Duration = Duration::from_millis(50);

/// Looks after `loader`'s directory until `shutdown` turns true, and hands every change to `apply`.
///
/// What it hands over is the whole set, or what is wrong with it. It is read once at the beginning, since it may have changed after whoever read it before.
pub async fn watch<F: Future<Output = ()>>(
    loader: Loader,
    mut shutdown: signal::Receiver<bool>,
    apply: impl Fn(Result<Vec<Definition>, Vec<Diagnostic>>) -> F,
) {
    let directory = loader.directory.clone();
    let loader = Arc::new(Mutex::new(loader));
    let changed = Arc::new(Changes::default());
    changed.happened.notify_one();
    let mut seen = Signature::of(&directory);
    let mut spoilt = 0;
    let mut held = BTreeSet::new();
    let mut watcher = Events::new(&directory, &changed);
    let mut rescan = interval(RESCAN);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = changed.happened.notified() => true,
            _ = rescan.tick() => false,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        if event {
            changed.settle().await;
        }
        let signature = Signature::of(&directory);
        // A missed event shows in the metadata; an event may stand for a change that does not show there.
        let is_held = changed.unfinished().is_superset(&held);
        if !event && signature == seen && watcher.is_watching() && is_held {
            lock(&loader).tidy();
            continue;
        }
        if signature.directory != seen.directory
            || !watcher.is_watching()
            || changed.lost.swap(false, Ordering::Relaxed)
        {
            watcher = Events::new(&directory, &changed);
        }
        if !event {
            // Found by the rescan, perhaps in the middle of somebody's writing.
            changed.settle().await;
        }
        seen = if event { signature } else { Signature::of(&directory) };
        held = changed.unfinished();
        let mut loaded = load_off_thread(&loader, &held).await;
        if changed.is_being_written() && spoilt < MAX_SPOILT {
            // Begun while it was read. Its event is still to come round.
            spoilt += 1;
            changed.happened.notify_one();
            continue;
        }
        spoilt = 0;
        if loaded.is_err() {
            // This waits the whole time unless something happens, and then looks again.
            let _ = timeout(SETTLE, changed.happened.notified()).await;
            changed.settle().await;
            seen = Signature::of(&directory);
            held = changed.unfinished();
            loaded = load_off_thread(&loader, &held).await;
        }
        debug!(event, loaded = loaded.is_ok(), watched = watcher.is_watching(), "read the flag files");
        apply(loaded).await;
    }
}

/// What the file system has told.
#[derive(Debug, Default)]
struct Changes {
    happened: Notify,
    /// Files that somebody has begun to write and not closed yet: what they hold may be half of what is meant.
    being_written: Mutex<HashMap<PathBuf, Writing>>,
    /// Whether the directory that is watched is gone. Another one of its name may have the same identity.
    lost: AtomicBool,
}

/// When somebody began to write a file, and when more came last.
#[derive(Debug, Clone, Copy)]
struct Writing {
    began: Instant,
    last: Instant,
}

impl Changes {
    fn note(&self, directory: &Path, event: notify::Result<notify::Event>) {
        // What could not be told may have been anything.
        let Ok(event) = event else { return self.happened.notify_one() };
        let mut being_written = self.being_written.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                let now = clock::now();
                for path in event.paths {
                    being_written.entry(path).or_insert(Writing { began: now, last: now }).last = now;
                }
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Name(_)) => {
                being_written.retain(|path, _| !event.paths.contains(path));
            }
            EventKind::Remove(_) => {
                being_written.retain(|path, _| !event.paths.contains(path));
                // Relaxed: it is looked at after the notification, which orders it.
                self.lost.fetch_or(event.paths.iter().any(|path| path == directory), Ordering::Relaxed);
            }
            // Reading a file is an event too: taking it for a change would have every reading cause the next.
            EventKind::Access(_) => return,
            _ => {}
        }
        self.happened.notify_one();
    }

    /// Returns once the directory has been quiet for a moment and nobody is writing; after [`MAX_WAIT`] as soon as nobody is
    /// who began less than that ago, and after [`MAX_BUSY`] in any case.
    async fn settle(&self) {
        let quiet =
            async { while timeout(QUIET, self.happened.notified()).await.is_ok() || self.is_being_written() {} };
        if timeout(MAX_WAIT, quiet).await.is_ok() {
            return;
        }
        let unwritten = async {
            while self.is_being_written() {
                let _ = timeout(QUIET, self.happened.notified()).await;
            }
        };
        let _ = timeout(MAX_BUSY - MAX_WAIT, unwritten).await;
    }

    /// Whether somebody is writing a file. Whoever began long ago is not waited for, so that other files are read.
    fn is_being_written(&self) -> bool {
        let now = clock::now();
        let being_written = self.being_written.lock().unwrap_or_else(PoisonError::into_inner);
        being_written.values().any(|writing| now.saturating_duration_since(writing.began) < MAX_WAIT)
    }

    /// The names of the files that somebody is writing, however long ago that began.
    fn unfinished(&self) -> BTreeSet<OsString> {
        let now = clock::now();
        let mut being_written = self.being_written.lock().unwrap_or_else(PoisonError::into_inner);
        being_written.retain(|_, writing| now.saturating_duration_since(writing.last) < MAX_PAUSE);
        being_written.keys().filter_map(|path| path.file_name()).map(OsString::from).collect()
    }
}

async fn load_off_thread(
    loader: &Arc<Mutex<Loader>>,
    being_written: &BTreeSet<OsString>,
) -> Result<Vec<Definition>, Vec<Diagnostic>> {
    let (shared, being_written) = (Arc::clone(loader), being_written.clone());
    let (tell, told) = oneshot::channel();
    let reading = thread::Builder::new().name("flag-files".to_owned()).spawn(move || {
        // Millions of users keep a processor busy for seconds; requests go first. If the system does not let us, they share.
        let _ = setpriority_process(Some(gettid()), NICE);
        // Nobody waits for it any more if the gateway has stopped.
        let _ = tell.send(lock(&shared).load_during(&being_written));
    });
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("reading failed: {error}");
        Err(vec![Diagnostic::of_file(&lock(loader).directory, message)])
    };
    match reading {
        Ok(_) => told.await.unwrap_or_else(|_| failed(&"the thread that reads has panicked")),
        Err(error) => failed(&error),
    }
}

/// Nobody ever waits here: the loader is shared only so that a thread for blocking work can have it.
fn lock(loader: &Mutex<Loader>) -> MutexGuard<'_, Loader> {
    // A reading that panicked may have kept a list too many, which is no harm.
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file system's events for one directory, as far as it gives any.
#[derive(Debug)]
struct Events {
    watcher: Option<RecommendedWatcher>,
}

impl Events {
    fn new(directory: &Path, changes: &Arc<Changes>) -> Self {
        // That somebody has closed a file may be among what the events of before have not told any more.
        changes.being_written.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Events name files by their whole paths.
        let watched = path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let changes = Arc::clone(changes);
        let notify = move |event| changes.note(&watched, event);
        let watcher = notify::recommended_watcher(notify).and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher.map_err(|error| {
            let path = directory.display();
            warn!(%error, %path, "no file events: changes of flag files are found by the rescan, within a second");
        });
        Self { watcher: watcher.ok() }
    }

    fn is_watching(&self) -> bool {
        self.watcher.is_some()
    }
}

/// What the directory's metadata says: if it is the same, so are the contents, short of an unlucky coincidence within
/// the clock of the file system.
#[derive(Debug, PartialEq, Eq)]
struct Signature {
    directory: Option<FileSignature>,
    files: Vec<(PathBuf, Option<FileSignature>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct FileSignature {
    identity: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
    /// Unlike the time of modification, nobody can set this one back.
    changed: (i64, i64),
}

impl Signature {
    fn of(directory: &Path) -> Self {
        let mut files: Vec<_> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .map(|path| (path.clone(), FileSignature::of(&path)))
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        // Of the directory itself only its identity counts: its times change with its files.
        let directory = FileSignature::of(directory).map(|signature| FileSignature {
            length: 0,
            modified: None,
            changed: (0, 0),
            ..signature
        });
        Self { directory, files }
    }
}

impl FileSignature {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            identity: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loss_of_a_directory_is_noticed_whatever_its_path_is_relative_to() {
        let above = tempfile::tempdir().unwrap();
        let up: PathBuf = std::env::current_dir().unwrap().ancestors().skip(1).map(|_| "..").collect();
        let absolute = above.path().join("flags");
        let relative = up.join(absolute.strip_prefix("/").unwrap());
        for directory in [&absolute, &relative] {
            fs::create_dir(directory).unwrap();
            let changes = Arc::new(Changes::default());
            let events = Events::new(directory, &changes);
            assert!(events.is_watching());
            fs::remove_dir(directory).unwrap();
            while !changes.lost.load(Ordering::Relaxed) {
                timeout(Duration::from_secs(60), changes.happened.notified()).await.expect("an event of it");
            }
        }
    }
}
