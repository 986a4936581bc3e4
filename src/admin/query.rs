//! Parameters where none are taken: whoever gives one means something by it, and would be told what is not so.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admin::problem::AdminError;

/// What takes parameters, of a flag and of all.
const OF_FLAG: [&str; 3] = ["beta", "explain", "seconds"];
const OF_ALL: [&str; 5] = ["approvals", "events", "events/stream", "events/verify", "export/flagd"];

/// Refuses parameters where the API takes none. What watches the gateway may add some of its own.
pub(crate) async fn refuse_unknown(request: Request, next: Next) -> Response {
    let uri = request.uri();
    match uri.query().filter(|query| !query.is_empty() && !takes_any(uri.path())) {
        None => next.run(request).await,
        Some(query) => {
            let detail = format!("nothing can be asked here beside the path, and `{query}` is something");
            AdminError::Invalid(detail).into_response()
        }
    }
}

fn takes_any(path: &str) -> bool {
    let Some(path) = path.strip_prefix("/api/v1/") else { return true };
    match path.strip_prefix("flags/") {
        Some(rest) => rest.split_once('/').is_some_and(|(_, part)| OF_FLAG.contains(&part)),
        None => OF_ALL.contains(&path),
    }
}
