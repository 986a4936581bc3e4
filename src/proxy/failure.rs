//! From pingora's errors to who is to blame, and to what the client is told.

use std::io;

use pingora_error::{Error, ErrorSource, ErrorType};

use crate::api::Problem;
use crate::downstream::Refusal;
use crate::outcome::{Failure, Trouble};

/// Who is to blame for `error`.
///
/// If the client did not send all of its request, the backend is not to blame for having no answer to it. It would have
/// been for not taking it: but that shows as a timeout in writing, which is the shorter one.
pub(crate) fn trouble(error: &Error, client_stalled: bool) -> Trouble {
    match error.esource() {
        _ if refusal(error).is_some() => Trouble::Client,
        ErrorSource::Upstream if client_stalled && *error.etype() == ErrorType::ReadTimedout => Trouble::Client,
        ErrorSource::Upstream => Trouble::Backend(failure(error.etype())),
        ErrorSource::Downstream => Trouble::Client,
        ErrorSource::Internal | ErrorSource::Unset => Trouble::Gateway,
    }
}

/// Why the client was refused in the middle of its request, if that is the error.
fn refusal(error: &Error) -> Option<Refusal> {
    let cause = error.root_cause();
    let inner = |error: &io::Error| error.get_ref()?.downcast_ref::<Refusal>().copied();
    cause.downcast_ref::<Refusal>().copied().or_else(|| cause.downcast_ref::<io::Error>().and_then(inner))
}

fn failure(kind: &ErrorType) -> Failure {
    match kind {
        ErrorType::ConnectTimedout
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => Failure::Timeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::ConnectProxyFailure
        | ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::BindError
        | ErrorType::SocketError => Failure::Connect,
        _ => Failure::Broken,
    }
}

/// What the client is told of `error`; `None` if it is gone.
pub(crate) fn answer(error: &Error, blamed: Trouble) -> Option<Problem> {
    if let Some(refusal) = refusal(error) {
        return Some(refusal.problem());
    }
    let problem = match blamed {
        Trouble::Client => match error.etype() {
            ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed => return None,
            ErrorType::ReadTimedout => Problem::new(
                408,
                "request-timeout",
                "Request timeout",
                "the rest of the request did not arrive in time",
            ),
            ErrorType::WriteTimedout => return None,
            _ => Problem::new(400, "bad-request", "Bad request", "the request is not valid HTTP"),
        },
        Trouble::Backend(Failure::Timeout) => {
            Problem::new(504, "upstream-timeout", "Gateway timeout", "the backend did not answer in time")
        }
        Trouble::Backend(Failure::Connect) if *error.etype() == ErrorType::ConnectNoRoute => {
            Problem::new(503, "upstream-unavailable", "Service unavailable", "the backend has no server to connect to")
        }
        Trouble::Backend(Failure::Connect) => {
            Problem::new(502, "upstream-connect", "Bad gateway", "no connection could be made to the backend")
        }
        Trouble::Backend(Failure::Broken | Failure::Status) => {
            Problem::new(502, "upstream-broken", "Bad gateway", "the backend broke off its answer, or it was not HTTP")
        }
        Trouble::Gateway => Problem::new(500, "internal", "Internal error", "the gateway failed; its log says why"),
    };
    Some(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: Box<Error>, blamed: Trouble, status: Option<u16>) {
        assert_eq!(trouble(&error, false), blamed);
        assert_eq!(answer(&error, blamed).map(|problem| problem.status), status);
    }

    #[test]
    fn a_client_that_stalls_is_to_blame_itself() {
        let error = Error::new_up(ErrorType::ReadTimedout);
        assert_eq!(trouble(&error, true), Trouble::Client);
        assert_eq!(answer(&error, Trouble::Client).map(|problem| problem.status), Some(408));
        let error = Error::new_up(ErrorType::WriteTimedout);
        assert_eq!(trouble(&error, true), Trouble::Backend(Failure::Timeout));
    }

    #[test]
    fn a_refusal_is_the_clients_doing_wherever_it_shows() {
        let refused = io::Error::new(io::ErrorKind::InvalidData, Refusal::Malformed("x"));
        check(Error::because(ErrorType::ReadError, "reading", refused), Trouble::Client, Some(400));
        let refused = Error::because(ErrorType::InternalError, "counting", Refusal::BodyTooLong);
        check(refused, Trouble::Client, Some(413));
    }

    #[test]
    fn the_source_of_an_error_says_who_is_to_blame() {
        check(Error::new_up(ErrorType::ConnectRefused), Trouble::Backend(Failure::Connect), Some(502));
        check(Error::new_up(ErrorType::ConnectNoRoute), Trouble::Backend(Failure::Connect), Some(503));
        check(Error::new_up(ErrorType::ConnectTimedout), Trouble::Backend(Failure::Timeout), Some(504));
        check(Error::new_up(ErrorType::ReadTimedout), Trouble::Backend(Failure::Timeout), Some(504));
        check(Error::new_up(ErrorType::ConnectionClosed), Trouble::Backend(Failure::Broken), Some(502));
        check(Error::new_up(ErrorType::InvalidHTTPHeader), Trouble::Backend(Failure::Broken), Some(502));
        check(Error::new_down(ErrorType::ConnectionClosed), Trouble::Client, None);
        check(Error::new_down(ErrorType::ReadTimedout), Trouble::Client, Some(408));
        check(Error::new_down(ErrorType::InvalidHTTPHeader), Trouble::Client, Some(400));
        check(Error::new_in(ErrorType::InternalError), Trouble::Gateway, Some(500));
    }
}
