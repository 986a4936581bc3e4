//! One notification on its way.

use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;
use ureq::Agent;
use ureq::http::StatusCode;

use crate::api::Notice;
use crate::notify::channel::{Channel, Format, Secret};
use crate::notify::payload::{alertmanager, slack, tidegate};
use crate::telemetry::chain;

/// How long a channel may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken, with this status.
    Sent(u16),
    /// It was not, and may be later: why.
    Failed(String),
    /// It was not, and will not be: why.
    Refused(String),
}

/// Posts `notice` to `channel`, at the moment `now`. Blocks for as long as that takes, which has a limit.
#[must_use]
pub fn send(channel: &Channel, notice: &Notice, now: Timestamp) -> Delivery {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        // Where a secret is posted to is said in the configuration, by nobody else.
        .max_redirects(0)
        .proxy(None)
        .build();
    let body = match &channel.format {
        Format::Tidegate(_) => tidegate(notice),
        Format::Slack => slack(notice),
        Format::Alertmanager => alertmanager(notice, now),
    };
    let mut request = Agent::from(config)
        .post(&channel.url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .header("idempotency-key", &notice.id);
    if let Format::Tidegate(secret) = &channel.format {
        let timestamp = now.as_second().to_string();
        let signature = signature(secret, &timestamp, &body);
        request = request.header("x-tidegate-timestamp", timestamp).header("x-tidegate-signature", signature);
    }
    match request.send(body) {
        Ok(answer) => delivery(answer.status()),
        Err(ureq::Error::BadUri(why)) => Delivery::Refused(why),
        Err(error) => Delivery::Failed(chain(&error)),
    }
}

fn delivery(status: StatusCode) -> Delivery {
    let told = format!("it answered {status}");
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    match status {
        status if status.is_success() => Delivery::Sent(status.as_u16()),
        status if status.is_server_error() || later => Delivery::Failed(told),
        _ => Delivery::Refused(told),
    }
}

/// `sha256=` and the HMAC-SHA256 (RFC 2104) of the timestamp, a full stop and the body, in hexadecimal.
fn signature(secret: &Secret, timestamp: &str, body: &str) -> String {
    let mut text = "sha256=".to_owned();
    // A key may have any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_other_tools_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let secret = Secret::new("0123456789abcdef\n").unwrap();
        let expected = "sha256=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23";
        assert_eq!(signature(&secret, "1700000000", "{\"a\":1}"), expected);
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let of = |status: u16| delivery(StatusCode::from_u16(status).unwrap());
        assert_eq!(of(204), Delivery::Sent(204));
        for status in [408, 425, 429, 500, 503] {
            assert!(matches!(of(status), Delivery::Failed(_)), "{status}");
        }
        for status in [301, 400, 401, 404, 410] {
            assert!(matches!(of(status), Delivery::Refused(_)), "{status}");
        }
    }
}
