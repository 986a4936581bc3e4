//! The built-in backends: a practice-interview service behind one HTTP API, implemented twice over one schema.
//!
//! [`Mode::Sync`] talks to the database with Diesel on blocking threads, [`Mode::Async`] with sqlx. Both give the
//! same status, the same body and the same rows for the same requests; only `GET /monitoring/database` names the mode.

mod ai;
mod analysis;
mod api;
mod backoff;
mod bank;
mod breaker;
mod config;
mod database_url;
mod diesel;
mod error;
mod failure;
mod fault;
mod generation;
mod history;
mod irt;
mod listing;
mod metrics;
mod migration;
mod pool;
mod problem;
mod role;
mod router;
mod schema;
mod selection;
mod session;
mod skill;
mod sqlx;
mod statements;
mod store;
mod upsert;

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::backend::ai::Assistant;
use crate::backend::database_url::DatabaseUrl;
use crate::backend::router::Service;
use crate::backend::store::Store;

pub use crate::backend::ai::AiConfig;
pub use crate::backend::config::{Config, Mode, ParseModeError, PoolConfig};
pub use crate::backend::error::Error;
pub use crate::backend::fault::{Fault, ParseFaultError};
pub use crate::backend::migration::{Migrated, migrate};

/// How long requests in flight may take to finish once a stop was asked for; what is left then is cut off.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A running backend: its connection pool and its settings.
#[derive(Debug)]
pub struct Backend {
    service: Arc<Service>,
}

impl Backend {
    /// The HTTP API over this backend's database.
    ///
    /// Every router shares the one pool.
    pub fn router(&self) -> Router {
        router::build(Arc::clone(&self.service))
    }

    /// Waits for the database work in flight and closes the pool.
    ///
    /// A router that outlives its backend answers 503 wherever it needs the database.
    pub async fn close(self) {
        self.service.store().close().await;
        // Dropping the last Diesel connection blocks on SQLite's final checkpoint.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!(error = %error, "the backend was not dropped cleanly");
        }
    }
}

/// Brings the schema and the question bank up to date if `config` asks for that, then opens the pool.
///
/// # Errors
///
/// When the URL or the pool's figures are refused, or the database cannot be migrated or opened, or is not up to date.
pub async fn open(config: Config) -> Result<Backend, Error> {
    let url: DatabaseUrl = config.database_url.parse()?;
    config.pool.check()?;
    let prepare = if config.migrate { |url: &str| migrate(url).map(drop) } else { migration::check };
    tokio::task::spawn_blocking(move || prepare(&config.database_url)).await.map_err(Error::Stopped)??;
    let store = Store::open(config.mode, url, config.pool, config.fault.query()).await?;
    let assistant = Assistant::new(config.mode, config.ai);
    Ok(Backend { service: Arc::new(Service::new(store, assistant, config.fault)) })
}

/// Serves the backend until `shutdown` completes, finishes the requests in flight, and closes the pool.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    backend: Backend,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    // Answers are small: holding one back until the peer acknowledges the last would only add latency.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "TCP_NODELAY was refused");
        }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = axum::serve(listener, backend.router())
        .with_graceful_shutdown(async move {
            // A dropped sender means the same as a message: stop.
            let _: Result<(), oneshot::error::RecvError> = stopped.await;
        })
        .into_future();

    let served = tokio::select! {
        served = &mut server => served,
        () = shutdown => {
            drop(stop);
            match tokio::time::timeout(DRAIN_LIMIT, &mut server).await {
                Ok(served) => served,
                Err(_elapsed) => {
                    tracing::warn!(limit_ms = DRAIN_LIMIT.as_millis(), "requests were still in flight at the drain limit");
                    Ok(())
                }
            }
        }
    };
    drop(server);
    backend.close().await;
    served.map_err(Error::Serve)
}
