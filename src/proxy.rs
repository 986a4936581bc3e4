//! The data plane.
//!
//! A request is routed, identified and decided once, on one snapshot of the flags. What was decided goes with it, so that a
//! reload in the middle of it changes nothing, and its outcome is charged where it was decided.

mod answer;
mod attributes;
mod context;
mod decide;
mod direct;
mod exchange;
mod failure;
mod forwarded;
mod front;
mod identity;
mod outgoing;
mod phases;
mod policy;
mod rescue;
mod route;
mod seeing;
mod shadow;
mod upstream;

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use crate::access::Access;
use crate::clock;
use crate::proxy::context::Context;
use crate::proxy::shadow::Shadower;
use crate::recorder::RecordedFlagStore;
use crate::shadow::Shadows;

pub use crate::proxy::context::InFlight;
pub use crate::proxy::front::Front;
pub use crate::proxy::identity::{Anonymous, Identity, IdentityConfig, JwtConfig, Source, TokenPlace};
pub use crate::proxy::policy::{Config, Policy};
pub use crate::proxy::rescue::{BudgetConfig, MAX_RETRY_BUFFER, RescueConfig, RouteRescue};
pub use crate::proxy::route::{RouteConfig, Target};
pub use crate::proxy::seeing::Seeing;
pub use crate::proxy::shadow::ShadowConfig;
pub use crate::proxy::upstream::{
    Balance, Ejection, HealthCheck, Protocol, Server, ServerPlace, Timeouts, TlsConfig, TlsError, Upkeep,
    UpstreamConfig, UpstreamError, Upstreams,
};

/// Which flag decided; told to the upstream.
const FLAG_HEADER: &str = "x-tidegate-flag";

/// Which variant was chosen; told to the upstream, and to the client if it may know.
const VARIANT_HEADER: &str = "x-tidegate-variant";
const VARIANT: HeaderName = HeaderName::from_static(VARIANT_HEADER);

/// Which arm a tester asks for, and the token that lets them; neither goes further than here.
const OVERRIDE_HEADER: &str = "x-tidegate-override";
const TOKEN_HEADER: &str = "x-tidegate-token";

/// Names one request in logs, problem documents and upstream.
const REQUEST_ID_HEADER: &str = "x-request-id";
const REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// What a gateway works with, whatever the configuration says.
#[derive(Debug)]
pub struct Tools {
    /// The flags in force.
    pub flags: Arc<RecordedFlagStore>,
    /// Where requests under way are counted.
    pub in_flight: Arc<InFlight>,
    /// Who may choose an arm.
    pub access: Arc<Access>,
    /// How requests are copied to canaries.
    pub shadow: ShadowConfig,
    /// Who is told of requests.
    pub seeing: Seeing,
}

/// The gateway: one for all requests.
#[derive(Clone)]
pub struct Gateway {
    policy: Arc<Policy>,
    access: Arc<Access>,
    seeing: Arc<Seeing>,
    flags: Arc<RecordedFlagStore>,
    in_flight: Arc<InFlight>,
    shadows: Arc<Shadows>,
    shadower: Arc<Shadower>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that handles requests by `policy`.
    #[must_use]
    pub fn new(policy: Arc<Policy>, tools: Tools) -> Self {
        let Tools { flags, in_flight, access, shadow, seeing } = tools;
        let shadower = Arc::new(Shadower::new(&shadow, Arc::clone(&flags)));
        let seeing = Arc::new(seeing);
        Self { policy, access, seeing, flags, in_flight, shadows: shadow.shadows, shadower }
    }

    /// What a request that begins now carries.
    fn new_context(&self) -> Context {
        Context::new(clock::now(), &self.in_flight, self.policy.load())
    }
}
