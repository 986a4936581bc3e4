//! The line between a gateway and the one that is to take its place: a Unix socket, by which listening sockets are passed
//! on.
//!
//! Each message is a line of words, and may carry file descriptors (`SCM_RIGHTS`, see unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The longest message: three names with addresses, or a reason.
const MAX_LINE: usize = 4096;

/// The most descriptors of a message: three sockets and the store's lock.
const MAX_DESCRIPTORS: usize = 4;

/// How a message begins that says that nothing will come of it.
const REFUSED: &str = "refused ";

/// Why the two cannot agree.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection is closed.
    #[error("the other side is gone")]
    Gone,
    /// It takes too long.
    #[error("the other side did not go on within {} s", .0.as_secs())]
    Silent(Duration),
    /// It says something else than what comes next.
    #[error("the other side said `{0}`, which means nothing here; is it of quite another version?")]
    Unexpected(String),
    /// It says why not.
    #[error("the other side refuses: {0}")]
    Refused(String),
    /// It is another user's.
    #[error("the other side is run by another user ({0})")]
    Stranger(u32),
    /// The system refuses something.
    #[error("the system refused what it takes")]
    System(#[from] io::Error),
}

impl LinkError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::System(error),
        }
    }
}

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Link {
    /// Connects to the gateway that listens at `path`.
    pub(crate) async fn connect(path: &Path) -> Result<Self, LinkError> {
        Self::new(UnixStream::connect(path).await?)
    }

    /// A line to a process of the same user.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, LinkError> {
        let user = stream.peer_cred()?.uid();
        if user != geteuid().as_raw() {
            return Err(LinkError::Stranger(user));
        }
        Ok(Self { stream, received: Vec::new(), descriptors: Vec::new() })
    }

    /// Says `line`, with `descriptors`.
    pub(crate) async fn say(&self, line: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let line = format!("{line}\n");
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let parts = [IoSlice::new(line.as_bytes())];
            Ok(sendmsg(&self.stream, &parts, &mut rights, SendFlags::NOSIGNAL)?)
        };
        // What was said before has been read, so that there is room for the whole of it.
        let sent = self.stream.async_io(Interest::WRITABLE, send).await.map_err(LinkError::of)?;
        if sent == line.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero).into()) }
    }

    /// Says that nothing will come of it, and why.
    pub(crate) async fn refuse(&self, why: &str) -> Result<(), LinkError> {
        self.say(&format!("{REFUSED}{}", why.replace('\n', " ")), &[]).await
    }

    /// Waits for a line that begins with `word`, and gives what follows.
    pub(crate) async fn hear(&mut self, word: &str) -> Result<String, LinkError> {
        let line = self.line().await?;
        match line.strip_prefix(word) {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => Ok(rest.trim_start().to_owned()),
            _ => Err(match line.strip_prefix(REFUSED) {
                Some(why) => LinkError::Refused(why.to_owned()),
                None => LinkError::Unexpected(line),
            }),
        }
    }

    /// The same, for no longer than `patience`.
    pub(crate) async fn hear_within(&mut self, word: &str, patience: Duration) -> Result<String, LinkError> {
        timeout(patience, self.hear(word)).await.map_err(|_| LinkError::Silent(patience))?
    }

    /// The descriptors that came with what was heard.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Returns once the other side's process is gone, or has given up.
    pub(crate) async fn closed(&mut self) {
        while self.line().await.is_ok() {}
    }

    /// Ends the other side's process.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // The connection is open, so the process that opened it is there and its number is nobody else's.
        match self.stream.peer_cred()?.pid().and_then(Pid::from_raw) {
            Some(process) => Ok(kill_process(process, Signal::KILL)?),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    async fn line(&mut self) -> Result<String, LinkError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.received.len() > MAX_LINE {
                return Err(LinkError::Unexpected(String::from_utf8_lossy(&self.received).into_owned()));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), LinkError> {
        let Self { stream, received, descriptors } = self;
        let receive = || {
            let mut bytes = [0; MAX_LINE];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            // Not for a process that this one might start.
            let length = recvmsg(&*stream, &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC)?.bytes;
            for message in rights.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    descriptors.extend(passed);
                }
            }
            received.extend(bytes.iter().take(length));
            Ok(length)
        };
        match stream.async_io(Interest::READABLE, receive).await.map_err(LinkError::of)? {
            0 => Err(LinkError::Gone),
            _ => Ok(()),
        }
    }
}
