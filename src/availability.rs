//! Whether each backend has a server that can be used, as those who look after the servers find.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::flag::BackendName;

/// The condition of every backend. Nobody asks it on the path of a request.
#[derive(Debug, Default)]
pub struct Availability {
    backends: Mutex<BTreeMap<BackendName, Condition>>,
}

/// How a backend is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// Since when no server of it can be used; `None` while one can.
    pub unavailable_since: Option<Instant>,
    /// Its servers.
    pub servers: Vec<ServerCondition>,
    /// How often a request was tried again on another server, ever.
    pub retries: u64,
    /// How often a server was set aside for failing requests, ever.
    pub ejections: u64,
}

/// How one server of a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCondition {
    /// The server as it is configured, and the address that its name stands for.
    pub name: String,
    /// Whether its health check finds it well; true without one.
    pub healthy: bool,
    /// Whether it is set aside for failing requests.
    pub ejected: bool,
}

impl Availability {
    /// Notes how `backend` is `now`. For how long it has been unavailable is worked out here.
    pub fn note(&self, backend: &BackendName, usable: bool, found: Condition, now: Instant) {
        let mut backends = self.lock();
        let before = backends.get(backend).and_then(|before| before.unavailable_since);
        let unavailable_since = (!usable).then(|| before.unwrap_or(now));
        backends.insert(backend.clone(), Condition { unavailable_since, ..found });
    }

    /// Forgets every backend that is not `kept`.
    pub fn keep_only(&self, kept: impl Fn(&BackendName) -> bool) {
        self.lock().retain(|name, _| kept(name));
    }

    /// Since when no server of `backend` can be used; `None` while one can.
    #[must_use]
    pub fn unavailable_since(&self, backend: &BackendName) -> Option<Instant> {
        self.lock().get(backend).and_then(|condition| condition.unavailable_since)
    }

    /// How `backend` is.
    #[must_use]
    pub fn condition(&self, backend: &BackendName) -> Condition {
        self.lock().get(backend).cloned().unwrap_or_default()
    }

    /// Every backend, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(BackendName, Condition)> {
        self.lock().iter().map(|(name, condition)| (name.clone(), condition.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BackendName, Condition>> {
        // Each change is complete before anything that could panic.
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_knows_for_how_long() {
        let availability = Availability::default();
        let backend: BackendName = "async".parse().unwrap();
        let start = crate::clock::now();
        let second = |number| start + Duration::from_secs(number);
        let note = |usable, now| availability.note(&backend, usable, Condition::default(), now);
        assert_eq!(availability.unavailable_since(&backend), None);
        note(false, second(1));
        note(false, second(2));
        assert_eq!(availability.unavailable_since(&backend), Some(second(1)));
        note(true, second(3));
        assert_eq!(availability.unavailable_since(&backend), None);
        note(false, second(4));
        assert_eq!(availability.unavailable_since(&backend), Some(second(4)));
    }
}
