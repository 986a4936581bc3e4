//! The built-in backends, within a gateway or on their own.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::backend::{self, Backend};
use crate::config::{BackendKind, Config};
use crate::proxy::{Server, UpstreamConfig};
use crate::server::listener::Bound;
use crate::server::stop::{StopSignals, until};
use crate::server::{StartError, processors, runtime};
use crate::telemetry::chain;

/// Starts the built-in backends, and says how to reach these and the others.
pub(crate) async fn start_backends(
    config: &Config,
    runtime: &Handle,
    builtin: &mut JoinSet<()>,
    stopping: &watch::Receiver<bool>,
) -> Result<(Vec<UpstreamConfig>, Vec<(String, SocketAddr)>), StartError> {
    let mut upstreams = Vec::new();
    let mut addresses = Vec::new();
    for configured in &config.backends {
        let servers = match &configured.kind {
            BackendKind::Servers(servers) => servers.clone(),
            BackendKind::Builtin(mode) => {
                let failed = |source| StartError::Backend { name: configured.name.to_string(), source };
                let settings = backend::Config {
                    mode: *mode,
                    database_url: config.database.url.clone(),
                    migrate: config.database.migrate,
                    pool: config.database.pool,
                    ai: config.ai.clone(),
                    fault: backend::Fault::default(),
                };
                let opened = runtime.spawn(backend::open(settings)).await.map_err(io::Error::other)?.map_err(failed)?;
                let bound = Bound::bind("a built-in backend", SocketAddr::from(([127, 0, 0, 1], 0)))?;
                let address = bound.address();
                let stopping = stopping.clone();
                builtin.spawn_on(serve_backend(bound, opened, until(stopping)), runtime);
                addresses.push((configured.name.to_string(), address));
                vec![Server::from(address)]
            }
        };
        upstreams.push(configured.upstream(servers));
    }
    Ok((upstreams, addresses))
}

async fn serve_backend(bound: Bound, backend: Backend, stop: impl Future<Output = ()> + Send + 'static) {
    let listener: Result<TcpListener, _> = bound.into_tokio();
    let served = match listener {
        Ok(listener) => backend::serve(listener, backend, stop).await.map_err(|error| chain(&error)),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = served {
        warn!(%error, "a built-in backend ended");
    }
}

/// Runs one built-in backend on its own until SIGTERM or SIGINT.
///
/// # Errors
///
/// If it cannot start.
pub fn serve_backend_alone(
    config: backend::Config,
    address: SocketAddr,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    let name = config.mode.to_string();
    runtime("backend", processors())?.block_on(async {
        let mut stop_signals = StopSignals::new()?;
        let bound = Bound::bind("--listen", address)?;
        let failed = |source| StartError::Backend { name: name.clone(), source };
        let backend = backend::open(config).await.map_err(failed)?;
        announce(bound.address());
        let listener = bound.into_tokio()?;
        let (stop, stopping) = watch::channel(false);
        let mut serving = pin!(backend::serve(listener, backend, until(stopping)));
        tokio::select! {
            served = &mut serving => return served.map_err(failed),
            () = stop_signals.first() => stop.send_replace(true),
        };
        tokio::select! {
            served = serving => served.map_err(failed),
            () = stop_signals.first() => Ok(()),
        }
    })
}
