//! The access log: one line of JSON for each request. Nobody waits for it; what it cannot take is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that may wait to be written: some seconds of a busy gateway, a few MiB.
const WAITING_LINES: usize = 16_384;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, between the lines of the other log.
    Stderr,
    /// A file, to whose end is written. One that was moved away is made anew.
    File(PathBuf),
}

/// Why a text is no [`AccessLogTarget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write \"off\", \"stdout\", \"stderr\" or \"file:PATH\"")]
pub struct AccessLogTargetError;

impl FromStr for AccessLogTarget {
    type Err = AccessLogTargetError;

    fn from_str(text: &str) -> Result<Self, AccessLogTargetError> {
        match text {
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(AccessLogTargetError),
            },
        }
    }
}

/// What is only told where it was asked for, since it may say who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// The path, without its query.
    Path,
    /// The client's address.
    Client,
}

/// Why a text is no [`Disclosure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are \"path\" and \"client\"")]
pub struct DisclosureError;

impl FromStr for Disclosure {
    type Err = DisclosureError;

    fn from_str(text: &str) -> Result<Self, DisclosureError> {
        match text {
            "path" => Ok(Self::Path),
            "client" => Ok(Self::Client),
            _ => Err(DisclosureError),
        }
    }
}

/// What is logged of requests, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Where.
    pub to: AccessLogTarget,
    /// What is told beside what is always told.
    pub include: Vec<Disclosure>,
}

/// One line. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Serialize)]
pub struct AccessLine<'r> {
    /// When the request began.
    pub at: String,
    /// Its id.
    pub request_id: &'r str,
    /// The trace that it belongs to, as 32 hexadecimal digits.
    pub trace_id: String,
    /// Its method.
    pub method: &'r str,
    /// The route's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'r str>,
    /// Its path, if that may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'r str>,
    /// The client's address, if that may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The version of HTTP.
    pub protocol: &'static str,
    /// Whether the client's connection is encrypted.
    pub tls: bool,
    /// The flag that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<&'r str>,
    /// The variant that served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'r str>,
    /// Why that was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The rollout's generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The backend's server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'r str>,
    /// What the client was answered; none if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How the request counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// Whether the canary failed it and stable served.
    pub rescued: bool,
    /// Whether it was for a canary that had no server.
    pub diverted: bool,
    /// The body that came from the client.
    pub bytes_in: u64,
    /// The body that went to the client.
    pub bytes_out: u64,
    /// From the request's head to the end of the answer.
    pub duration_ms: f64,
    /// From the choice of a server to the head of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    /// What went wrong, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'r str>,
}

/// The line of a client who was turned away before there was a request.
#[derive(Debug, Serialize)]
pub struct RefusalLine<'r> {
    /// When.
    pub at: String,
    /// What the answer is called, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'r str>,
    /// The client's address, if that may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Whether the connection is encrypted, or was to be.
    pub tls: bool,
    /// What the client was answered; none if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why, in a word.
    pub error: &'r str,
}

/// Writes lines.
#[derive(Debug, Clone)]
pub struct AccessLog {
    writer: NonBlocking,
    include: Vec<Disclosure>,
}

impl AccessLog {
    /// What `config` says, if anything. What is returned beside it has to be kept until the end, so that the last lines are
    /// written.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open(config: &AccessLogConfig) -> Result<Option<(Self, WorkerGuard)>, String> {
        let builder = || NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES);
        let (writer, guard) = match &config.to {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => builder().finish(io::stdout()),
            AccessLogTarget::Stderr => builder().finish(io::stderr()),
            AccessLogTarget::File(path) => {
                builder().finish(Rotated::open(path).map_err(|error| unwritable(path, &error))?)
            }
        };
        Ok(Some((Self { writer, include: config.include.clone() }, guard)))
    }

    /// Looks whether the file can be opened, without making it.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn check(config: &AccessLogConfig) -> Result<(), String> {
        let AccessLogTarget::File(path) = &config.to else { return Ok(()) };
        let opened = match OpenOptions::new().append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                std::fs::metadata(directory.unwrap_or(Path::new("."))).map(drop)
            }
            opened => opened.map(drop),
        };
        opened.map_err(|error| unwritable(path, &error))
    }

    /// Whether `what` is told.
    #[must_use]
    pub fn tells(&self, what: Disclosure) -> bool {
        self.include.contains(&what)
    }

    /// Hands a line over to be written.
    pub fn write(&self, line: &AccessLine<'_>) {
        self.write_line(line);
    }

    /// The same for a client who was turned away.
    pub fn write_refusal(&self, line: &RefusalLine<'_>) {
        self.write_line(line);
    }

    fn write_line(&self, line: &impl Serialize) {
        // A line is of texts and numbers, which always make JSON.
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            // What does not fit is counted, and never an error.
            let _ = self.writer.clone().write_all(&text);
        }
    }

    /// What counts the lines that were lost.
    #[must_use]
    pub fn lost(&self) -> ErrorCounter {
        self.writer.error_counter()
    }
}

/// A file that is made anew once it was moved away or removed, as rotation does it.
#[derive(Debug)]
struct Rotated {
    path: PathBuf,
    file: File,
}

impl Rotated {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)? })
    }

    fn is_in_place(&self) -> bool {
        let (there, here) = (std::fs::metadata(&self.path), self.file.metadata());
        there.ok().zip(here.ok()).is_some_and(|(there, here)| (there.dev(), there.ino()) == (here.dev(), here.ino()))
    }
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{}: cannot write the access log there: {error}", path.display())
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Called after each run of lines, by the thread that writes them.
    fn flush(&mut self) -> io::Result<()> {
        if !self.is_in_place()
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
        }
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let mut log = Rotated::open(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        log.flush().unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.write_all(b"two\n").unwrap();
        log.flush().unwrap();
        log.write_all(b"three\n").unwrap();
        log.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn targets_are_read() {
        assert_eq!("file:a.log".parse(), Ok(AccessLogTarget::File("a.log".into())));
        assert_eq!("stdout".parse(), Ok(AccessLogTarget::Stdout));
        for wrong in ["", "file:", "a.log", "syslog"] {
            assert_eq!(wrong.parse::<AccessLogTarget>(), Err(AccessLogTargetError), "{wrong}");
        }
    }
}
