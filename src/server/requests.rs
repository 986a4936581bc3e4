//! The data plane, behind the doors that clients come in by.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

use crate::config::Config;
use crate::downstream::{Entrance, Limits, accept};
use crate::proxy::{Front, Gateway};
use crate::server::listener::Bound;
use crate::server::{StartError, processors};

/// Idle connections to upstreams that are kept, in all.
const UPSTREAM_POOL: usize = 1024;

/// A file without a certificate. pingora reads the roots that the system trusts when it starts, and panics if it cannot.
const NO_ROOTS: &str = "/dev/null";

/// The file with the certificates that pingora trusts where a backend names none; `None` is for those of the system.
pub(crate) fn roots(config: &Config) -> Result<Option<String>, StartError> {
    let Some(backend) = config.backends.iter().find(|backend| backend.needs_system_roots()) else {
        return Ok(Some(NO_ROOTS.to_owned()));
    };
    match rustls_native_certs::load_native_certs() {
        Ok(roots) if !roots.is_empty() => Ok(None),
        found => Err(StartError::Roots { name: backend.name.to_string(), source: found.err() }),
    }
}

/// Takes connections until `closing` turns true, and requests from those until `stopping` does, too.
pub(crate) async fn take_requests(
    gateway: Gateway,
    doors: Vec<(Bound, Arc<ArcSwap<Entrance>>)>,
    roots: Option<String>,
    limits: Limits,
    closing: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    let settings = ServerConf {
        threads: processors(),
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        ca_file: roots,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(gateway.clone(), Arc::new(settings));
    let mut http2 = default_h2_options();
    http2.max_concurrent_streams(limits.streams);
    proxy.h2_options = Some(http2);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.idle);
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    let front = Arc::new(Front::new(gateway, Arc::new(proxy)));
    let mut open = JoinSet::new();
    for (bound, entrance) in doors {
        match bound.into_tokio() {
            Ok(listener) => {
                drop(open.spawn(accept(listener, Arc::clone(&front), entrance, closing.clone(), stopping.clone())))
            }
            Err(error) => {
                error!(%error, "cannot listen");
                return;
            }
        }
    }
    // Each is closed by the stop alone; if one is not, that ends the others, too.
    let _ = open.join_next().await;
    drop(open);
    if *closing.borrow() {
        // A sender that is gone stops nobody any more; then it is time, too.
        let _ = stopping.wait_for(|stop| *stop).await;
    }
    front.cleanup().await;
}
