//! Giving way: another process takes the place of this one, with its listening sockets, while it serves.
//!
//! The one that comes ([`crate::server::takeover`]) gets the sockets first and prepares all that may fail. Then this gateway
//! writes down what it knows and gives up the right to write to the store; from then on only the end of the other gives it
//! back. So there are never two that write, and up to the last word it can go on as if nothing had been.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::rollout::Rollouts;
use crate::server::StartError;
use crate::server::link::{Link, LinkError};
use crate::telemetry::chain;

/// What the one that comes says first, and which words follow.
pub(crate) const HELLO: &str = "takeover 1";

/// What the store's lock is called.
pub(crate) const LOCK: &str = "store.lock";

/// How long each word may take that needs no work.
pub(crate) const A_WORD: Duration = Duration::from_secs(10);

/// How long the one that comes may take to prepare: to reach its backends and their database, and to look at their health.
const PREPARATION: Duration = Duration::from_mins(5);

/// How long it may take with the store. Nobody can change a rollout meanwhile, and no canary is judged.
const READINESS: Duration = Duration::from_secs(20);

/// How long is waited after the system refused a connection.
const BREATH: Duration = Duration::from_millis(100);

/// Only the user whom the gateway runs as.
const MODE: u32 = 0o600;

/// What is passed on.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Each listening socket, with its name on the line.
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    pub(crate) rollouts: Arc<Rollouts>,
    /// The lock of the store's file, if it has one.
    pub(crate) lock: Option<OwnedFd>,
    /// Closes the door of the admin API: who changes something has to reach the one that may.
    pub(crate) admin_door: watch::Sender<bool>,
}

/// The socket where another process may ask to take over.
#[derive(Debug)]
pub(crate) struct Handover {
    listener: UnixListener,
    /// Where it is now.
    at: PathBuf,
    path: PathBuf,
    /// Which file it is, as long as it is to be removed in the end.
    inode: Option<u64>,
}

impl Handover {
    /// Makes the socket beside `path`, where nobody looks for it yet.
    pub(crate) fn make(path: &Path) -> Result<Self, StartError> {
        let mut at = path.as_os_str().to_owned();
        at.push(format!(".{}", std::process::id()));
        let at = PathBuf::from(at);
        let made = || {
            // Left by a process of the same number.
            drop(fs::remove_file(&at));
            let listener = UnixListener::bind(&at)?;
            fs::set_permissions(&at, fs::Permissions::from_mode(MODE))?;
            let inode = Some(fs::symlink_metadata(&at)?.ino());
            Ok(Self { listener, path: path.to_owned(), inode, at: at.clone() })
        };
        made().map_err(|source| StartError::Handover { path: path.to_owned(), source })
    }

    /// Puts it in its place, or in that of another.
    pub(crate) fn open(&mut self) -> Result<(), StartError> {
        let moved = fs::rename(&self.at, &self.path);
        moved.map_err(|source| StartError::Handover { path: self.path.clone(), source })?;
        self.at.clone_from(&self.path);
        Ok(())
    }

    /// Lets others ask until one of them has taken over.
    pub(crate) async fn give_way(mut self, offer: Offer) {
        loop {
            let asked = match self.listener.accept().await {
                Ok((stream, _)) => Link::new(stream),
                Err(error) => {
                    warn!(%error, "the system gives no connection; trying again");
                    sleep(BREATH).await;
                    continue;
                }
            };
            let given = match asked {
                Ok(link) => give_way_to(link, &offer).await,
                Err(error) => Err(error),
            };
            match given {
                Ok(()) => {
                    info!("another process has taken over");
                    // The file in its place is the other's, or is about to be.
                    self.inode = None;
                    return;
                }
                Err(problem) => warn!(problem = chain(&problem), "a takeover came to nothing; this gateway goes on"),
            }
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.at).is_ok_and(|found| Some(found.ino()) == self.inode) {
            // What is left there is found to be nobody's.
            let _ = fs::remove_file(&self.at);
        }
    }
}

/// Says whether a gateway listens at `path`.
pub(crate) fn is_taken(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

async fn give_way_to(mut link: Link, offer: &Offer) -> Result<(), LinkError> {
    link.hear_within(HELLO, A_WORD).await?;
    info!("another process asks to take over: it gets the sockets, and prepares");
    let sockets = offer.sockets.iter().map(|(name, _)| name.as_str());
    let names: Vec<_> = sockets.chain(offer.lock.as_ref().map(|_| LOCK)).collect();
    let descriptors: Vec<_> = offer.sockets.iter().map(|(_, socket)| socket).chain(&offer.lock).collect();
    let descriptors: Vec<_> = descriptors.into_iter().map(|descriptor| descriptor.as_fd()).collect();
    link.say(&format!("sockets {}", names.join(" ")), &descriptors).await?;
    link.hear_within("prepared", PREPARATION).await?;
    if let Err(error) = offer.rollouts.hand_over().await {
        link.refuse(&format!("what it knows cannot be written down: {}", chain(&error))).await?;
        return Err(io::Error::other(error).into());
    }
    let taken_over = async {
        link.say("store", &[]).await?;
        link.hear_within("ready", READINESS).await?;
        // Before the other one tells anybody that it is there.
        offer.admin_door.send_replace(true);
        link.say("goodbye", &[]).await
    };
    let Err(problem) = taken_over.await else { return Ok(()) };
    offer.admin_door.send_replace(false);
    if !matches!(problem, LinkError::Gone) {
        // It may write at any moment, unless it is no more.
        warn!(problem = chain(&problem), "the process that was to take over does not; it is ended");
        if let Err(error) = link.kill() {
            error!(%error, "it cannot be ended; no rollout changes before it is gone");
        }
    }
    link.closed().await;
    offer.rollouts.take_back().await;
    Err(problem)
}
