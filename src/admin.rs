//! The admin API: how people and their tools see and change the rollouts.

mod approvals;
mod attempts;
mod changes;
mod diffs;
mod door;
mod entry;
mod events;
mod flags;
mod load;
mod metrics;
mod once;
mod openapi;
mod origin;
mod pages;
mod problem;
mod query;
mod rates;
mod reload;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use tokio::sync::watch;

use crate::access::Access;
use crate::admin::attempts::Attempts;
use crate::admin::changes::{MAX_REASON_CHARS, answer, beta_users, checked, etag, make, parse, reason_checked};
use crate::admin::entry::Actor;
use crate::admin::flags::explained;
use crate::admin::once::UnderWay;
use crate::admin::pages::Dashboard;
use crate::admin::problem::AdminError;
use crate::api::{FlagStatus, Health, Readiness};
use crate::availability::Availability;
use crate::downstream::Tls;
use crate::flag::FlagKey;
use crate::notify::Deliveries;
use crate::proxy::Policy;
use crate::recorder::Recorder;
use crate::remade::AllChanging;
use crate::rollout::Rollouts;
use crate::shadow::Shadows;
use crate::telemetry::Lost;

pub use crate::admin::door::{Door, Peer};
pub use crate::admin::load::Load;
pub use crate::admin::once::KEY_HEADER;
pub use crate::admin::problem::UNDER_WAY;
pub use crate::admin::rates::Rates;
pub use crate::admin::reload::{Asked, ReloadError, ReloadResult, Reloads};

/// What a change holds at most. The longest thing in one is a reason.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Names the person who asks, for the audit trail. Nothing proves it: it is heard only where no token is needed.
pub const ACTOR_HEADER: &str = "x-tidegate-actor";

/// What the admin API works on.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// The rollouts.
    pub rollouts: Arc<Rollouts>,
    /// Where outcomes are counted.
    pub recorder: Arc<Recorder>,
    /// What copies to canaries found.
    pub shadows: Arc<Shadows>,
    /// Who may use the admin API.
    pub access: Arc<Access>,
    /// What requests are handled by.
    pub policy: Arc<Policy>,
    /// Where readings of the configuration are asked for.
    pub reloads: Arc<Reloads>,
    /// How the backends' servers are.
    pub availability: Arc<Availability>,
    /// What is made of files that change: keys.
    pub changing: Arc<AllChanging>,
    /// The TLS that clients speak, if they do.
    pub tls: Option<Arc<Tls>>,
    /// The TLS that the admin API itself speaks, if it does.
    pub own_tls: Option<Arc<Tls>>,
    /// What counts that of requests which could not be told.
    pub lost: Lost,
    /// What is under way.
    pub load: Load,
    /// What became of notifications.
    pub deliveries: Arc<Deliveries>,
    /// Turns true when the gateway stops taking requests.
    pub stopping: watch::Receiver<bool>,
    /// How many requests each asker may make.
    pub rates: Arc<Rates>,
    /// Changes that were asked for with a key, while they are made.
    under_way: Arc<UnderWay>,
    /// Failed attempts to use it.
    attempts: Arc<Attempts>,
    /// What the dashboard keeps.
    pages: Arc<Dashboard>,
}

impl AdminState {
    /// What the admin API works on, before anybody has asked.
    #[must_use]
    pub fn new(
        rollouts: Arc<Rollouts>,
        recorder: Arc<Recorder>,
        access: Arc<Access>,
        policy: Arc<Policy>,
        availability: Arc<Availability>,
        changing: Arc<AllChanging>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            rollouts,
            recorder,
            shadows: Arc::default(),
            access,
            policy,
            reloads: Arc::default(),
            availability,
            changing,
            tls: None,
            own_tls: None,
            lost: Lost::default(),
            load: Load::default(),
            deliveries: Arc::default(),
            stopping,
            rates: Arc::default(),
            under_way: Arc::default(),
            attempts: Arc::default(),
            pages: Arc::default(),
        }
    }

    /// What an operator should look at.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.rollouts.problems();
        problems.extend(self.changing.load().iter().filter_map(|changing| changing.problem()));
        problems.extend(self.reloads.problem());
        problems.extend(self.access.problem());
        problems
    }
}

type Shared = State<AdminState>;

/// The admin API, and the dashboard.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi))
        .route("/api/v1/flags", get(flags::flags))
        .route("/api/v1/flags/{key}", get(flags::flag).patch(changes::patch))
        .route("/api/v1/flags/{key}/explain", get(flags::explain))
        .route("/api/v1/flags/{key}/seconds", get(flags::seconds))
        .route("/api/v1/flags/{key}/beta", get(flags::beta))
        .route("/api/v1/flags/{key}/why", get(flags::why))
        .route("/api/v1/flags/{key}/diffs", get(diffs::diffs))
        .route("/api/v1/flags/{key}/{action}", post(changes::act))
        .route("/api/v1/flags/{key}/approvals/{id}", post(approvals::approve).delete(approvals::withdraw))
        .route("/api/v1/approvals", get(approvals::approvals))
        .route("/api/v1/instances", get(flags::instances))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/events/stream", get(events::stream))
        .route("/api/v1/events/verify", get(events::verify))
        .route("/api/v1/config/reload", post(reload::reload))
        .route("/api/v1/export/flagd", get(flags::export))
        .route_layer(middleware::from_fn(query::refuse_unknown))
        // Before the fallbacks are set: what is no change here is refused as that, whatever key it comes with.
        .route_layer(middleware::from_fn_with_state(state.clone(), once::once))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), entry::guard))
        .merge(pages::router(&state))
        .layer(middleware::from_fn_with_state(state.clone(), origin::refuse_other_sites))
        .with_state(state)
}

async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

async fn openapi() -> Json<serde_json::Value> {
    Json(openapi::document())
}

async fn ready(State(state): Shared, actor: Option<Extension<Actor>>) -> (StatusCode, Json<Readiness>) {
    let ready = !*state.stopping.borrow();
    let mut problems = state.problems();
    if actor.is_none() && !problems.is_empty() {
        problems = vec![format!("{} problems; ask with a token to read them", problems.len())];
    }
    if !ready {
        problems.insert(0, "the gateway is stopping".to_owned());
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, problems, flag_set_version: state.rollouts.set_version().to_string() }))
}

fn status(state: &AdminState, key: &FlagKey) -> Result<FlagStatus, AdminError> {
    state.rollouts.flag(key).ok_or_else(|| AdminError::UnknownFlag(key.to_string()))
}

/// A text that is no key names no flag: there is none by that name.
fn flag_key(text: &str) -> Result<FlagKey, AdminError> {
    text.parse().map_err(|_| AdminError::UnknownFlag(text.to_owned()))
}
