//! How one request to one arm ended, and what that counts as.
#![warn(clippy::wildcard_enum_match_arm)]

mod latency;

pub use latency::{LATENCY_BUCKETS, LatencyHistogram, latency_bucket, latency_bucket_limit_us};

/// How one request ended, as far as its backend is to answer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The backend answered, whatever it said about the client's request.
    Success,
    /// The backend is to blame.
    Failure(Failure),
    /// Nobody is to blame, or somebody else.
    NotCounted(Excuse),
}

/// What a backend is blamed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It answered 5xx.
    Status,
    /// No connection could be made to it.
    Connect,
    /// It did not connect, read or answer in time.
    Timeout,
    /// It broke off its answer or spoke no HTTP.
    Broken,
}

/// Why a request counts for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Excuse {
    /// The client hung up before the answer was complete.
    ClientGone,
    /// The gateway itself refused or failed the request.
    Gateway,
}

/// What went wrong on the way, from the gateway's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The client's side failed.
    Client,
    /// The gateway's own doing.
    Gateway,
    /// The backend's side failed.
    Backend(Failure),
}

impl Outcome {
    /// As written in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(_) => "failure",
            Self::NotCounted(_) => "not_counted",
        }
    }
}

/// What a request counts as: `status` is the one that the backend answered, if it did; `trouble` what cut it short.
///
/// A backend that answered 5xx has failed even if the client then hung up: its answer was there first.
#[must_use]
pub fn classify(status: Option<u16>, trouble: Option<Trouble>) -> Outcome {
    match (status, trouble) {
        (Some(500..), _) => Outcome::Failure(Failure::Status),
        (_, Some(Trouble::Backend(failure))) => Outcome::Failure(failure),
        (_, Some(Trouble::Client)) => Outcome::NotCounted(Excuse::ClientGone),
        (_, Some(Trouble::Gateway)) | (None, None) => Outcome::NotCounted(Excuse::Gateway),
        (Some(_), None) => Outcome::Success,
    }
}

/// The outcomes of one arm, added up. Every number only ever grows while requests are charged to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Successes.
    pub successes: u64,
    /// Failures of every kind.
    pub failures: u64,
    /// Those failures that no user met, since stable served in this arm's place.
    pub rescued: u64,
    /// Requests that count for nobody.
    pub not_counted: u64,
    /// How long the counted requests took.
    pub latency: LatencyHistogram,
}

impl Tally {
    /// Requests that count: successes and failures.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.successes + self.failures
    }

    /// Adds `other` to this tally.
    pub fn add(&mut self, other: &Self) {
        self.successes += other.successes;
        self.failures += other.failures;
        self.rescued += other.rescued;
        self.not_counted += other.not_counted;
        self.latency.add(&other.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: Option<u16>, trouble: Option<Trouble>, outcome: Outcome) {
        assert_eq!(classify(status, trouble), outcome);
    }

    #[test]
    fn who_is_to_blame() {
        check(Some(200), None, Outcome::Success);
        check(Some(404), None, Outcome::Success);
        check(Some(499), None, Outcome::Success);
        check(Some(500), None, Outcome::Failure(Failure::Status));
        check(Some(599), None, Outcome::Failure(Failure::Status));
        check(Some(503), Some(Trouble::Client), Outcome::Failure(Failure::Status));
        check(Some(200), Some(Trouble::Client), Outcome::NotCounted(Excuse::ClientGone));
        check(None, Some(Trouble::Client), Outcome::NotCounted(Excuse::ClientGone));
        check(Some(200), Some(Trouble::Backend(Failure::Broken)), Outcome::Failure(Failure::Broken));
        check(None, Some(Trouble::Backend(Failure::Connect)), Outcome::Failure(Failure::Connect));
        check(None, Some(Trouble::Gateway), Outcome::NotCounted(Excuse::Gateway));
        check(None, None, Outcome::NotCounted(Excuse::Gateway));
    }
}
