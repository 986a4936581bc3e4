//! The composition root: a [`Config`] becomes a running gateway, and a stop signal ends it without losing anything.
//!
//! Four runtimes keep four kinds of work from starving each other: the data plane, the control plane (judge, files,
//! store, admin), the built-in backends, and the copies that canaries get. A saturated backend must not delay the judge
//! that is to take it out, and the comparison of two long answers must not delay a request.

mod listener;
mod reload;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::apps::{HttpServerOptions, ServerApp as _};
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::admin::{AdminState, Asked, Reloads, router};
use crate::availability::Availability;
use crate::backend::{self, Backend};
use crate::clock;
use crate::config::{BackendKind, Config};
use crate::diagnostic::Diagnostic;
use crate::downstream::{Entrance, Limits, Seats, Tls, accept};
use crate::flag::FlagSet;
use crate::flag_file::Loader;
use crate::flag_store::FlagStore;
use crate::notify::notify_until;
use crate::proxy::{
    self, Gateway, Identity, InFlight, Policy, Seeing, Server, ShadowConfig, Tools, Upkeep, UpstreamConfig,
    UpstreamError, Upstreams,
};
use crate::recorder::Recorder;
use crate::remade::{self, AllChanging};
use crate::rollout::Rollouts;
use crate::server::listener::{BindError, Bound};
use crate::server::reload::{FlagWatch, Reloader, watch_tokens};
use crate::shadow::Shadows;
use crate::store::{Store, StoreError};
use crate::telemetry::{AccessLog, Lost, Spans, chain};

pub use crate::server::reload::ReadConfig;

/// Who asks by a signal, for the audit trail: somebody on this machine.
const BY_SIGNAL: &str = "local:SIGHUP";

/// Idle connections to upstreams that are kept, in all.
const UPSTREAM_POOL: usize = 1024;

/// A file without a certificate. pingora reads the roots that the system trusts when it starts, and panics if it cannot.
const NO_ROOTS: &str = "/dev/null";

/// How long a stopping gateway goes on taking requests, each answer closing its connection. Whoever is busy asks again
/// within it and is told to go elsewhere, instead of finding a connection closed under the next request.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// How long the parts of the control plane may take to end, once asked.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Threads of the control plane: the judge's tick may not wait behind a slow scrape.
const CONTROL_THREADS: usize = 2;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The flag files are bad; each problem has its place.
    #[error("the flag files cannot be used; `--tolerate-bad-flags` would start without them and serve stable")]
    Flags(Vec<Diagnostic>),
    /// The file of tokens is bad; each problem has its place.
    #[error("the file of tokens cannot be used")]
    Tokens(Vec<Diagnostic>),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store cannot be used.
    #[error("cannot open the store {url}; without it a latched rollback might be missed")]
    Store {
        /// Where it should be.
        url: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A file of keys or certificates, or what is told of requests, cannot be used.
    #[error("{0}")]
    Keys(String),
    /// A backend cannot be reached as configured.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The system trusts nobody, and a backend relies on it.
    #[error("the system has no certificates to trust, which the backend `{name}` needs; set `backends.{name}.tls.ca`")]
    Roots {
        /// The backend's name.
        name: String,
        /// Why they cannot be read, if they are there.
        #[source]
        source: Option<io::Error>,
    },
    /// A built-in backend did not start.
    #[error("the built-in backend `{name}` did not start")]
    Backend {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: backend::Error,
    },
    /// A part that runs until the stop ended before it.
    #[error("a part of the gateway ended by itself; its log says more")]
    PartEnded,
    /// The operating system refused something.
    #[error("the operating system refused what the gateway needs")]
    System(#[from] io::Error),
}

/// Where a running gateway listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The gateway.
    pub http: SocketAddr,
    /// The gateway, where it speaks TLS.
    pub https: Option<SocketAddr>,
    /// The admin API.
    pub admin: SocketAddr,
    /// The built-in backends, by name.
    pub builtin: Vec<(String, SocketAddr)>,
}

/// How to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFlags {
    /// Not at all.
    Refuse,
    /// Without flags: routes that name one fall back to the next best route.
    Tolerate,
}

/// Looks at the files of keys and certificates that `config` names as [`serve`] would, and makes none.
///
/// # Errors
///
/// If one cannot be used; names it.
pub fn check(config: &Config) -> Result<(), String> {
    tls(config)?;
    AccessLog::check(&config.access_log)?;
    Spans::open(&config.tracing)?;
    Identity::look(config.identity.clone()).map(drop)
}

/// Runs the gateway until SIGTERM or SIGINT, then lets the requests under way finish.
///
/// `announce` is called once everything listens. `read` reads the configuration again, on SIGHUP and when an operator asks
/// for it.
///
/// # Errors
///
/// If it cannot start; nothing has been served then.
pub fn serve(
    config: Config,
    bad_flags: BadFlags,
    read: ReadConfig,
    announce: impl FnOnce(&Addresses),
) -> Result<(), StartError> {
    let control = runtime("control", CONTROL_THREADS)?;
    let data = runtime("proxy", processors())?;
    let backends = runtime("backend", processors())?;
    let copies = runtime("copies", 1)?;
    let handles =
        Handles { data: data.handle().clone(), backends: backends.handle().clone(), copies: copies.handle().clone() };
    let served = control.block_on(run(config, bad_flags, read, handles, announce));
    // What is still under way has used up its time.
    for runtime in [data, copies, backends, control] {
        runtime.shutdown_background();
    }
    served
}

/// The runtimes beside the control plane's own.
#[derive(Debug)]
struct Handles {
    data: Handle,
    backends: Handle,
    copies: Handle,
}

async fn run(
    config: Config,
    bad_flags: BadFlags,
    read: ReadConfig,
    handles: Handles,
    announce: impl FnOnce(&Addresses),
) -> Result<(), StartError> {
    // Before anything can be worth stopping: a signal from here on is not lost.
    let mut stop_signals = StopSignals::new()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let http = Bound::bind("listen.http", config.listen.http)?;
    let https = config.listen.https.as_ref().map(|https| Bound::bind("listen.https", https.address)).transpose()?;
    let admin = Bound::bind("listen.admin", config.listen.admin)?;
    let mut loader = Loader::new(config.flags.path.clone(), config.expectations());
    let definitions = match (loader.load(), bad_flags) {
        (Err(problems), BadFlags::Refuse) => return Err(StartError::Flags(problems)),
        (loaded, _) => loaded,
    };

    let access = Arc::new(config.admin.access().map_err(StartError::Tokens)?);
    if access.is_guarded() && !config.listen.admin.ip().is_loopback() {
        warn!(
            "the admin API listens on {} without TLS: whoever is on the way can read its tokens",
            config.listen.admin
        );
    }

    let recorder = Arc::new(Recorder::new());
    let availability = Arc::new(Availability::default());
    let flags = Arc::new(FlagStore::new(FlagSet::default()));
    let failed = |source| StartError::Store { url: config.store.to_string(), source };
    let store = Store::open(&config.store).await.map_err(failed)?;
    let rollouts = Rollouts::open(
        Arc::clone(&flags),
        Arc::clone(&recorder),
        Arc::clone(&availability),
        store.clone(),
        instance_name(http.address()),
    )
    .await
    .map_err(failed)?;
    rollouts.adopt_files(definitions);
    // A failure is noted where it happened, and serving does not depend on it.
    let _ = rollouts.flush().await;

    // Stopped in this order: first no more requests, then no more control, then the backends.
    let (stop_requests, requests_stopping) = watch::channel(false);
    let (stop_control, control_stopping) = watch::channel(false);
    let (stop_backends, backends_stopping) = watch::channel(false);

    let mut builtin = JoinSet::new();
    let (upstreams, builtin_addresses) =
        start_backends(&config, &handles.backends, &mut builtin, &backends_stopping).await?;
    let upstreams = Arc::new(Upstreams::new(upstreams, clock::now())?);
    let roots = roots(&config)?;
    Upkeep::prepare(&upstreams, &availability).await;
    let (upstreams_in_force, to_look_after) = watch::channel(Arc::clone(&upstreams));
    let upkeep = Upkeep::new(to_look_after, Arc::clone(&availability), roots.clone());
    let in_flight = Arc::new(InFlight::default());
    let identity = Arc::new(Identity::open(config.identity.clone()).map_err(StartError::Keys)?);
    let tls = tls(&config).map_err(StartError::Keys)?;
    let changing = identity.changing().into_iter().chain(tls.iter().map(|tls| tls.changing())).collect();
    let changing = Arc::new(AllChanging::from_pointee(changing));
    let shadows = Arc::new(Shadows::default());
    let (access_log, _written) = AccessLog::open(&config.access_log).map_err(StartError::Keys)?.unzip();
    let (spans, sender) = Spans::open(&config.tracing).map_err(StartError::Keys)?.unzip();
    let lost = Lost { lines: access_log.as_ref().map(AccessLog::lost), spans: spans.clone() };
    let policy = Arc::new(Policy::new(proxy::Config {
        routes: config.routes.clone(),
        identity,
        upstreams,
        expose_variant: config.flags.expose_variant,
        limits: config.limits,
    }));
    let tools = Tools {
        flags,
        in_flight: Arc::clone(&in_flight),
        access: Arc::clone(&access),
        shadow: ShadowConfig { shadows: Arc::clone(&shadows), runtime: handles.copies.clone(), roots: roots.clone() },
        seeing: Seeing { access_log, spans, sample: config.tracing.sample },
    };
    let entrance = Entrance {
        limits: Arc::new(config.limits),
        seats: Arc::new(Seats::default()),
        trusted: config.identity.trusted_proxies.clone().into(),
        proxy_protocol: config.listen.proxy_protocol,
        tls: None,
    };
    let gateway = Gateway::new(Arc::clone(&policy), tools);
    let addresses = Addresses {
        http: http.address(),
        https: https.as_ref().map(Bound::address),
        admin: admin.address(),
        builtin: builtin_addresses.clone(),
    };
    let doors = [(Some(http), None), (https, tls.clone())];
    let door = |tls| Arc::new(ArcSwap::from_pointee(Entrance { tls, ..entrance.clone() }));
    let doors: Vec<_> = doors.into_iter().filter_map(|(bound, tls)| Some((bound?, door(tls)))).collect();
    let entrances = doors.iter().map(|(_, entrance)| Arc::clone(entrance)).collect();
    let (stop_accepting, accepting_stops) = watch::channel(false);
    let mut accepting = handles.data.spawn(take_requests(gateway, doors, roots, config.limits, accepting_stops));

    let mut parts = JoinSet::new();
    parts.spawn(upkeep.run_until(control_stopping.clone()));
    if let Some(sender) = sender {
        parts.spawn(sender.send_until(control_stopping.clone()));
    }
    let (flag_watch, watching) = FlagWatch::new(loader, Arc::clone(&rollouts), control_stopping.clone());
    parts.spawn(watching);
    parts.spawn(remade::watch(Arc::clone(&changing), control_stopping.clone()));
    parts.spawn({
        let (rollouts, stopping) = (Arc::clone(&rollouts), control_stopping.clone());
        async move { rollouts.judge_until(stopping).await }
    });
    parts.spawn(Arc::clone(&rollouts).ramp_until(control_stopping.clone()));
    parts.spawn({
        let (rollouts, stopping) = (Arc::clone(&rollouts), control_stopping.clone());
        async move { rollouts.save_until(stopping).await }
    });
    parts.spawn({
        let (rollouts, stopping) = (Arc::clone(&rollouts), control_stopping.clone());
        async move { rollouts.follow_until(stopping).await }
    });
    parts.spawn({
        let (rollouts, stopping) = (Arc::clone(&rollouts), control_stopping.clone());
        async move { rollouts.exchange_until(stopping).await }
    });
    let (admin_in_force, admin_to_watch) = watch::channel(config.admin.clone());
    parts.spawn(watch_tokens(admin_to_watch, Arc::clone(&access), control_stopping.clone()));
    let (reloads, mut asked) = Reloads::new();
    let reloads = Arc::new(reloads);
    let mut reloader = Reloader {
        read,
        current: config,
        builtin: builtin_addresses,
        policy: Arc::clone(&policy),
        doors: entrances,
        upstreams: upstreams_in_force,
        admin: admin_in_force,
        flags: flag_watch,
        changing: Arc::clone(&changing),
        tls: tls.clone(),
        access: Arc::clone(&access),
        availability: Arc::clone(&availability),
        rollouts: Arc::clone(&rollouts),
    };
    let mut state =
        AdminState::new(Arc::clone(&rollouts), recorder, access, policy, availability, changing, requests_stopping);
    state.reloads = Arc::clone(&reloads);
    state.tls = tls;
    state.lost = lost;
    state.shadows = shadows;
    parts.spawn(state.clone().sample_until(control_stopping.clone()));
    let deliveries = Arc::clone(&state.deliveries);
    let (channels, to_tell) = (reloader.current.notify.clone(), Arc::clone(&rollouts));
    parts.spawn(notify_until(channels, store.clone(), to_tell, deliveries, control_stopping.clone()));
    let admin = admin.into_tokio()?;
    parts.spawn(async move {
        let served = axum::serve(admin, router(state).into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(until(control_stopping))
            .await;
        if let Err(error) = served {
            warn!(%error, "the admin API ended");
        }
    });

    info!(http = %addresses.http, admin = %addresses.admin, "tidegate is up");
    announce(&addresses);

    let ended = loop {
        let (actor, answer) = tokio::select! {
            () = stop_signals.first() => break Ok(()),
            _ = parts.join_next() => break Err(StartError::PartEnded),
            _ = &mut accepting => break Err(StartError::PartEnded),
            _ = hangups.recv() => (BY_SIGNAL.to_owned(), None),
            Some(Asked { actor, answer }) = asked.recv() => (actor, Some(answer)),
        };
        let reloaded = reloader.reload(&actor).await;
        reloads.note(&reloaded);
        if let Some(answer) = answer {
            // Whoever asked may have left.
            let _ = answer.send(reloaded);
        }
    };
    if ended.is_err() {
        error!("a part of the gateway ended by itself: stopping, so that whoever runs it notices");
    }
    info!(in_flight = in_flight.count(), "stopping: those who ask are sent elsewhere, requests under way finish");
    stop_requests.send_replace(true);
    in_flight.discourage();
    let drained = async {
        tokio::time::sleep(LAME_DUCK).await;
        stop_accepting.send_replace(true);
        // It may have been what ended by itself.
        if !accepting.is_finished() {
            let _ = (&mut accepting).await;
        }
        in_flight.none().await;
    };
    tokio::select! {
        drained = timeout(reloader.current.listen.drain, drained) => if drained.is_err() {
            warn!(in_flight = in_flight.count(), "requests took longer than `listen.drain` and are broken off");
        },
        () = stop_signals.first() => warn!(in_flight = in_flight.count(), "told to stop again: not waiting any longer"),
    }
    // Also where the wait was cut short.
    stop_accepting.send_replace(true);
    stop_control.send_replace(true);
    join(parts, "the control plane").await;
    // Once more, now that nothing changes any more. A failure is logged where it happens.
    let _ = rollouts.flush().await;
    rollouts.keep_trials().await;
    store.close().await;
    stop_backends.send_replace(true);
    join(builtin, "the built-in backends").await;
    info!("stopped");
    ended
}

/// Starts the built-in backends, and says how to reach these and the others.
async fn start_backends(
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

/// The file with the certificates that pingora trusts where a backend names none; `None` is for those of the system.
fn roots(config: &Config) -> Result<Option<String>, StartError> {
    let Some(backend) = config.backends.iter().find(|backend| backend.needs_system_roots()) else {
        return Ok(Some(NO_ROOTS.to_owned()));
    };
    match rustls_native_certs::load_native_certs() {
        Ok(roots) if !roots.is_empty() => Ok(None),
        found => Err(StartError::Roots { name: backend.name.to_string(), source: found.err() }),
    }
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

/// Takes requests until `stopping` turns true.
async fn take_requests(
    gateway: Gateway,
    doors: Vec<(Bound, Arc<ArcSwap<Entrance>>)>,
    roots: Option<String>,
    limits: Limits,
    stopping: watch::Receiver<bool>,
) {
    let settings = ServerConf {
        threads: processors(),
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        ca_file: roots,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(gateway, Arc::new(settings));
    let mut http2 = default_h2_options();
    http2.max_concurrent_streams(limits.streams);
    proxy.h2_options = Some(http2);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.idle);
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    let proxy = Arc::new(proxy);
    let mut open = JoinSet::new();
    for (bound, entrance) in doors {
        match bound.into_tokio() {
            Ok(listener) => drop(open.spawn(accept(listener, Arc::clone(&proxy), entrance, stopping.clone()))),
            Err(error) => {
                error!(%error, "cannot listen");
                return;
            }
        }
    }
    // Each is closed by the stop alone; if one is not, that ends the others, too.
    let _ = open.join_next().await;
    drop(open);
    proxy.cleanup().await;
}

/// What TLS is spoken with, if it is.
fn tls(config: &Config) -> Result<Option<Arc<Tls>>, String> {
    let tls = config.listen.https.as_ref().map(|https| Tls::open(https.tls.clone(), &config.limits));
    Ok(tls.transpose()?.map(Arc::new))
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

/// What a gateway is called among those that share its store.
fn instance_name(address: SocketAddr) -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim();
    if machine.is_empty() { address.to_string() } else { format!("{machine}:{}", address.port()) }
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone stops nobody any more; then it is time, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn join(mut parts: JoinSet<()>, what: &str) {
    let all = async { while parts.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, all).await.is_err() {
        warn!("{what} did not end in time");
    }
}

/// The signals that ask for a stop.
#[derive(Debug)]
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
