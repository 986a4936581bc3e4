//! The lines of the access log about clients who never came as far as a request.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock;
use crate::telemetry::{AccessLog, Disclosure, RefusalLine};

/// Tells of who is turned away; where there is no log, nobody.
#[derive(Debug, Clone, Default)]
pub struct TurnedAway(Option<Arc<AccessLog>>);

impl TurnedAway {
    /// Tells the `log`, if there is one.
    #[must_use]
    pub fn new(log: Option<AccessLog>) -> Self {
        Self(log.map(Arc::new))
    }

    /// Tells of a client, what it was answered and under which id, if it was, and `why`.
    pub(crate) fn tell(&self, client: Option<IpAddr>, tls: bool, answer: Option<(u16, &str)>, why: &str) {
        let Some(log) = &self.0 else { return };
        let client = client.filter(|_| log.tells(Disclosure::Client)).map(|client| client.to_string());
        let (status, request_id) = answer.unzip();
        log.write_refusal(&RefusalLine { at: clock::wall().to_string(), request_id, client, tls, status, error: why });
    }
}
