//! The control plane: what judges, moves, keeps and tells of the rollouts, beside the requests.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware;
use axum::response::Response;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::admin::{Door, Peer};
use crate::rollout::Rollouts;
use crate::server::stop::until;

/// Starts what judges, moves and keeps the `rollouts`, until `stopping` turns true.
pub(crate) fn keep_rollouts(parts: &mut JoinSet<()>, rollouts: &Arc<Rollouts>, stopping: &watch::Receiver<bool>) {
    let with = || (Arc::clone(rollouts), stopping.clone());
    let (judging, stop) = with();
    parts.spawn(async move { judging.judge_until(stop).await });
    let (ramping, stop) = with();
    parts.spawn(ramping.ramp_until(stop));
    let (saving, stop) = with();
    parts.spawn(async move { saving.save_until(stop).await });
    let (following, stop) = with();
    parts.spawn(async move { following.follow_until(stop).await });
    let (exchanging, stop) = with();
    parts.spawn(async move { exchanging.exchange_until(stop).await });
}

/// Serves the admin API until `stopping` turns true. From when its door is `closed`, each answer closes its connection: who
/// asks on it again would find it closed under the next request.
pub(crate) async fn serve_admin(
    door: Door,
    router: Router,
    closed: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
) {
    let router = router.layer(middleware::map_response_with_state(closed, part));
    let served = axum::serve(door, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(until(stopping))
        .await;
    if let Err(error) = served {
        warn!(%error, "the admin API ended");
    }
}

async fn part(State(closed): State<watch::Receiver<bool>>, mut response: Response) -> Response {
    if *closed.borrow() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
