//! What the configuration says about requests, as one snapshot that can be replaced while requests are under way.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::downstream::Limits;
use crate::flag::BackendName;
use crate::proxy::identity::Identity;
use crate::proxy::route::{RouteConfig, RouteTable};
use crate::proxy::upstream::{Upstream, Upstreams};

/// What requests are handled by.
#[derive(Debug)]
pub struct Config {
    /// Where requests go, by host and path.
    pub routes: Vec<RouteConfig>,
    /// Where the targeting key comes from.
    pub identity: Arc<Identity>,
    /// The backends that routes and flags name.
    pub upstreams: Arc<Upstreams>,
    /// Whether clients are told the variant.
    pub expose_variant: bool,
    /// What clients may take.
    pub limits: Limits,
}

/// What one request is handled by, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) expose_variant: bool,
    pub(crate) max_body: u64,
    /// How fast a client of HTTP/2 has to send a body that is waited for, and how long it may take nothing of its answer.
    pub(crate) body_timeout: Duration,
    pub(crate) min_rate: u64,
    pub(crate) write_timeout: Duration,
}

/// What requests are handled by from now on. Each goes on with what it began with.
#[derive(Debug)]
pub struct Policy {
    settings: ArcSwap<Settings>,
}

impl Policy {
    /// What `config` says.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { settings: ArcSwap::from_pointee(settings(config, None)) }
    }

    /// Makes other backends known to requests that begin from now on, beside what is in force otherwise: flags that name them
    /// may come after.
    pub fn extend(&self, upstreams: Arc<Upstreams>) {
        let before = self.settings.load_full();
        self.settings.store(Arc::new(Settings {
            routes: Arc::clone(&before.routes),
            identity: Arc::clone(&before.identity),
            upstreams,
            ..*before
        }));
    }

    /// Puts what `config` says in force.
    pub fn replace(&self, config: Config) {
        let before = self.settings.load_full();
        self.settings.store(Arc::new(settings(config, Some(&before.routes))));
    }

    /// Where targeting keys come from.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.settings.load().identity)
    }

    /// The backends.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        Arc::clone(&self.settings.load().upstreams)
    }

    pub(crate) fn load(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// A backend that the flags name, and `settings` may be too old to know.
    pub(crate) fn upstream(&self, settings: &Settings, name: &BackendName) -> Option<Arc<Upstream>> {
        settings.upstreams.get(name).or_else(|| self.settings.load().upstreams.get(name))
    }
}

fn settings(config: Config, before: Option<&RouteTable>) -> Settings {
    Settings {
        routes: Arc::new(RouteTable::new(config.routes, config.limits.in_flight, before)),
        identity: config.identity,
        upstreams: config.upstreams,
        expose_variant: config.expose_variant,
        max_body: config.limits.body,
        body_timeout: config.limits.body_timeout,
        min_rate: config.limits.min_rate,
        write_timeout: config.limits.write_timeout,
    }
}
