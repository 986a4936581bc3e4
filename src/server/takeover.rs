//! Taking over from a gateway that runs: its listening sockets, and the right to write to its store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::info;

use crate::server::StartError;
use crate::server::handover::{A_WORD, HELLO, LOCK};
use crate::server::link::{Link, LinkError};
use crate::server::listener::Bound;

/// How long the running gateway may take to write down what it knows.
const WRITING: Duration = Duration::from_secs(30);

/// The gateway whose place is taken. Until [`Predecessor::farewell`] it goes on if this process ends.
#[derive(Debug)]
pub(crate) struct Predecessor {
    link: Link,
    path: PathBuf,
    /// By their keys.
    sockets: BTreeMap<String, OwnedFd>,
    lock: Option<OwnedFd>,
}

impl Predecessor {
    /// Asks the gateway at `path` for its sockets.
    pub(crate) async fn greet(path: &Path) -> Result<Self, StartError> {
        let mut link = Link::connect(path).await.map_err(|source| match source {
            LinkError::System(source) => StartError::NoPredecessor { path: path.to_owned(), source },
            source => StartError::Takeover { path: path.to_owned(), source },
        })?;
        let failed = |source| StartError::Takeover { path: path.to_owned(), source };
        link.say(HELLO, &[]).await.map_err(failed)?;
        let names = link.hear_within("sockets", A_WORD).await.map_err(failed)?;
        let names = names.split_whitespace().map(str::to_owned);
        let mut sockets: BTreeMap<_, _> = names.zip(link.take_descriptors()).collect();
        let lock = sockets.remove(LOCK);
        Ok(Self { link, path: path.to_owned(), sockets, lock })
    }

    /// Its socket for `key`, if that is what `address` asks for: as its configuration or as the system has it.
    pub(crate) fn socket(&mut self, key: &'static str, address: SocketAddr) -> Option<Bound> {
        let (name, _) =
            self.sockets.iter().find(|(name, _)| name.split_once('=').is_some_and(|(its, _)| its == key))?;
        let name = name.clone();
        let bound = Bound::taken(self.sockets.remove(&name)?, key, address)?;
        (name == named(key, address) || bound.address() == address).then_some(bound)
    }

    /// Has it write down all that it knows and write no more. Gives the lock of its store, if that has one.
    pub(crate) async fn take_store(&mut self) -> Result<Option<OwnedFd>, StartError> {
        let asked = async {
            self.link.say("prepared", &[]).await?;
            self.link.hear_within("store", WRITING).await
        };
        asked.await.map_err(|source| StartError::Takeover { path: self.path.clone(), source })?;
        Ok(self.lock.take())
    }

    /// Tells it that its place is taken; from here on it takes no more requests.
    pub(crate) async fn farewell(mut self) -> Result<(), StartError> {
        let told = async {
            self.link.say("ready", &[]).await?;
            // For as long as it takes: it says so, or ends this process.
            self.link.hear("goodbye").await
        };
        match told.await {
            Ok(_) => Ok(()),
            // It never hangs up before this process has, so it has ended: there is nobody else to serve.
            Err(LinkError::Gone) => {
                info!("the gateway that was to give way is gone");
                Ok(())
            }
            Err(source) => Err(StartError::Takeover { path: self.path, source }),
        }
    }
}

/// What a socket is called on the line.
pub(crate) fn named(key: &str, address: SocketAddr) -> String {
    format!("{key}={address}")
}
