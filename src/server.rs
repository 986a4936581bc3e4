//! The composition root: a [`Config`] becomes a running gateway, and a stop signal ends it without losing anything.
//!
//! Four runtimes keep four kinds of work from starving each other: the data plane, the control plane (judge, files,
//! store, admin), the built-in backends, and the copies that canaries get. A saturated backend must not delay the judge
//! that is to take it out, and the comparison of two long answers must not delay a request.

mod builtin;
mod control;
mod error;
mod handover;
mod link;
mod listener;
mod manager;
mod reload;
mod requests;
mod stop;
mod takeover;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::access::Access;
use crate::admin::{AdminState, Asked, Door, Load, Rates, Reloads, router};
use crate::availability::Availability;
use crate::clock;
use crate::config::Config;
use crate::downstream::{Entrance, Seats, Tls, TurnedAway};
use crate::flag::FlagSet;
use crate::flag_file::Loader;
use crate::flag_store::FlagStore;
use crate::notify::notify_until;
use crate::proxy::{self, Gateway, Identity, InFlight, Policy, Seeing, ShadowConfig, Tools, Upkeep, Upstreams};
use crate::recorder::Recorder;
use crate::remade::{self, AllChanging};
use crate::rollout::Rollouts;
use crate::server::builtin::start_backends;
use crate::server::control::{keep_rollouts, serve_admin};
use crate::server::handover::{Handover, Offer, is_taken};
use crate::server::listener::Sockets;
use crate::server::manager::{start_successor, tell_ready};
use crate::server::reload::{FlagWatch, Reloader, watch_tokens};
use crate::server::requests::{roots, take_requests};
use crate::server::stop::{Running, StopSignals, Stops, Successor};
use crate::server::takeover::Predecessor;
use crate::shadow::Shadows;
use crate::store::Store;
use crate::telemetry::{AccessLog, Lost, Spans, chain};

pub use crate::server::builtin::serve_backend_alone;
pub use crate::server::error::StartError;
pub use crate::server::link::LinkError;
pub use crate::server::reload::ReadConfig;

/// Who asks by a signal, for the audit trail: somebody on this machine.
const BY_SIGNAL: &str = "local:SIGHUP";

/// Threads of the control plane: the judge's tick may not wait behind a slow scrape.
const CONTROL_THREADS: usize = 2;

/// Where a running gateway listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The gateway.
    pub http: SocketAddr,
    /// The gateway, where it speaks TLS.
    pub https: Option<SocketAddr>,
    /// The admin API.
    pub admin: SocketAddr,
    /// Whether that speaks TLS.
    pub admin_tls: bool,
    /// The built-in backends, by name.
    pub builtin: Vec<(String, SocketAddr)>,
}

/// How to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What bad flag files mean.
    pub bad_flags: BadFlags,
    /// Whose place is taken.
    pub place: Place,
    /// What is run on SIGUSR2, to take over.
    pub successor: Vec<OsString>,
    /// Where the service manager is told that the gateway is up, if it wants to know: `NOTIFY_SOCKET`.
    pub manager: Option<String>,
}

/// How to start with bad flag files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFlags {
    /// Not at all.
    Refuse,
    /// Without flags: routes that name one fall back to the next best route.
    Tolerate,
}

/// Whose place a gateway takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nobody's.
    New,
    /// That of the gateway which runs at `listen.handover`.
    Running,
}

/// Looks at the files of keys and certificates that `config` names as [`serve`] would, and makes none.
///
/// # Errors
///
/// If one cannot be used; names it.
pub fn check(config: &Config) -> Result<(), String> {
    tls(config)?;
    admin_tls(config)?;
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
    start: Start,
    read: ReadConfig,
    announce: impl FnOnce(&Addresses),
) -> Result<(), StartError> {
    let control = runtime("control", CONTROL_THREADS)?;
    let data = runtime("proxy", processors())?;
    let backends = runtime("backend", processors())?;
    let copies = runtime("copies", 1)?;
    let handles =
        Handles { data: data.handle().clone(), backends: backends.handle().clone(), copies: copies.handle().clone() };
    let served = control.block_on(run(config, start, read, handles, announce));
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

impl Handles {
    /// What is to be told of the work on them and on the control plane's, which is to ask.
    fn load(&self, in_flight: &Arc<InFlight>, seats: &Arc<Seats>) -> Load {
        let runtimes = [
            ("data", self.data.metrics()),
            ("control", Handle::current().metrics()),
            ("backends", self.backends.metrics()),
            ("copies", self.copies.metrics()),
        ];
        Load { in_flight: Arc::clone(in_flight), seats: Arc::clone(seats), runtimes: runtimes.into() }
    }
}

async fn run(
    config: Config,
    start: Start,
    read: ReadConfig,
    handles: Handles,
    announce: impl FnOnce(&Addresses),
) -> Result<(), StartError> {
    // Before anything can be worth stopping: a signal from here on is not lost.
    let mut stop_signals = StopSignals::new()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut upgrades = signal(SignalKind::user_defined2())?;
    let (mut predecessor, mut handover) = place(&config, start.place).await?;
    let sockets = Sockets::bind(&config.listen, predecessor.as_mut())?;
    let offered = sockets.offer()?;
    let Sockets { http, https, admin } = sockets;
    let mut loader = Loader::new(config.flags.path.clone(), config.expectations());
    let definitions = match (loader.load(), start.bad_flags) {
        (Err(problems), BadFlags::Refuse) => return Err(StartError::Flags(problems)),
        (loaded, _) => loaded,
    };
    let access = access(&config)?;
    let recorder = Arc::new(Recorder::new());
    let availability = Arc::new(Availability::default());
    let flags = Arc::new(FlagStore::new(FlagSet::default()));

    let stops = Stops::default();
    let mut builtin = JoinSet::new();
    let (upstreams, builtin_addresses) =
        start_backends(&config, &handles.backends, &mut builtin, &stops.backends.subscribe()).await?;
    let upstreams = Arc::new(Upstreams::new(upstreams, clock::now())?);
    let roots = roots(&config)?;
    Upkeep::prepare(&upstreams, &availability).await;
    let (upstreams_in_force, to_look_after) = watch::channel(Arc::clone(&upstreams));
    let upkeep = Upkeep::new(to_look_after, Arc::clone(&availability), roots.clone());
    let in_flight = Arc::new(InFlight::default());
    let identity = Arc::new(Identity::open(config.identity.clone()).map_err(StartError::Keys)?);
    let tls = tls(&config).map_err(StartError::Keys)?;
    let own_tls = admin_tls(&config).map_err(StartError::Keys)?;
    let spoken: Vec<_> = tls.iter().chain(&own_tls).cloned().collect();
    let changing = identity.changing().into_iter().chain(spoken.iter().map(|tls| tls.changing())).collect();
    let changing = Arc::new(AllChanging::from_pointee(changing));
    let shadows = Arc::new(Shadows::default());
    let (access_log, _written) = AccessLog::open(&config.access_log).map_err(StartError::Keys)?.unzip();
    let (spans, sender) = Spans::open(&config.tracing).map_err(StartError::Keys)?.unzip();
    let turned_away = TurnedAway::new(access_log.clone());
    let lost = Lost { lines: access_log.as_ref().map(AccessLog::lost), spans: spans.clone() };
    let policy = Arc::new(Policy::new(proxy::Config {
        routes: config.routes.clone(),
        identity,
        upstreams,
        expose_variant: config.flags.expose_variant,
        limits: config.limits,
    }));
    let tools = Tools {
        flags: Arc::clone(&flags),
        in_flight: Arc::clone(&in_flight),
        access: Arc::clone(&access),
        shadow: ShadowConfig { shadows: Arc::clone(&shadows), runtime: handles.copies.clone(), roots: roots.clone() },
        seeing: Seeing { access_log, spans, sample: config.tracing.sample },
    };
    let gateway = Gateway::new(Arc::clone(&policy), tools);
    let addresses = Addresses {
        http: http.address(),
        https: https.as_ref().map(|https| https.address()),
        admin: admin.address(),
        admin_tls: own_tls.is_some(),
        builtin: builtin_addresses.clone(),
    };
    let admin = Door::new(admin.into_tokio()?, own_tls.clone(), stops.admin_door.subscribe());

    // Last of what may fail, since with the store comes the right to change the rollouts.
    let lock = match &mut predecessor {
        Some(predecessor) => predecessor.take_store().await?,
        None => None,
    };
    let failed = |source| StartError::Store { url: config.store.to_string(), source };
    let store = Store::open_with(&config.store, lock).await.map_err(failed)?;
    if predecessor.is_some() {
        // The one that runs knows its rollouts, also while their store is away: then it had better go on.
        store.prepare().await.map_err(failed)?;
    }
    let (counted, known) = (Arc::clone(&recorder), Arc::clone(&availability));
    let rollouts = Rollouts::open(flags, counted, known, store.clone(), instance_name(addresses.http));
    let rollouts = rollouts.await.map_err(failed)?;
    rollouts.require_second(config.admin.second_operator.as_ref().map(|(rule, _)| *rule));
    rollouts.adopt_files(definitions);
    // A failure is noted where it happened, and serving does not depend on it.
    let _ = rollouts.flush().await;
    if let Some(predecessor) = predecessor {
        if stop_signals.have_come() {
            return Err(StartError::Interrupted);
        }
        predecessor.farewell().await?;
    }

    let seats = Arc::new(Seats::default());
    let entrance = Entrance {
        limits: Arc::new(config.limits),
        seats: Arc::clone(&seats),
        trusted: config.identity.trusted_proxies.clone().into(),
        proxy_protocol: config.listen.proxy_protocol,
        turned_away,
        tls: None,
    };
    let door = |tls| Arc::new(ArcSwap::from_pointee(Entrance { tls, ..entrance.clone() }));
    let doors = [(Some(http), None), (https, tls.clone())];
    let doors: Vec<_> = doors.into_iter().filter_map(|(bound, tls)| Some((bound?, door(tls)))).collect();
    let entrances = doors.iter().map(|(_, entrance)| Arc::clone(entrance)).collect();
    let (closing, stopping) = (stops.doors.subscribe(), stops.requests.subscribe());
    let accepting = handles.data.spawn(take_requests(gateway, doors, roots, config.limits, closing, stopping));

    let control_stopping = stops.control.subscribe();
    let mut parts = JoinSet::new();
    keep_rollouts(&mut parts, &rollouts, &control_stopping);
    parts.spawn(upkeep.run_until(control_stopping.clone()));
    if let Some(sender) = sender {
        parts.spawn(sender.send_until(control_stopping.clone()));
    }
    let (flag_watch, watching) = FlagWatch::new(loader, Arc::clone(&rollouts), control_stopping.clone());
    parts.spawn(watching);
    parts.spawn(remade::watch(Arc::clone(&changing), control_stopping.clone()));
    let (admin_in_force, admin_to_watch) = watch::channel(config.admin.clone());
    parts.spawn(watch_tokens(admin_to_watch, Arc::clone(&access), control_stopping.clone()));
    let (reloads, mut asked) = Reloads::new();
    let reloads = Arc::new(reloads);
    let rates = Arc::new(Rates::default());
    rates.set(config.admin.rate_limit);
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
        tls: spoken,
        access: Arc::clone(&access),
        rates: Arc::clone(&rates),
        availability: Arc::clone(&availability),
        rollouts: Arc::clone(&rollouts),
    };
    let ready_stopping = stops.ready.subscribe();
    let mut state =
        AdminState::new(Arc::clone(&rollouts), recorder, access, policy, availability, changing, ready_stopping);
    state.reloads = Arc::clone(&reloads);
    state.rates = rates;
    state.tls = tls;
    state.own_tls.clone_from(&own_tls);
    state.lost = lost;
    state.load = handles.load(&in_flight, &seats);
    state.shadows = shadows;
    parts.spawn(state.clone().sample_until(control_stopping.clone()));
    let deliveries = Arc::clone(&state.deliveries);
    let (channels, to_tell) = (reloader.current.notify.clone(), Arc::clone(&rollouts));
    parts.spawn(notify_until(channels, store.clone(), to_tell, deliveries, control_stopping.clone()));
    parts.spawn(serve_admin(admin, router(state), stops.admin_door.subscribe(), stops.admin.subscribe()));
    let (door, lock) = (stops.admin_door.clone(), store.lock());
    let offer = Offer { sockets: offered, rollouts: Arc::clone(&rollouts), lock, admin_door: door };
    let mut running = Running { stops, in_flight, seats, accepting, parts, builtin, rollouts, store };

    info!(http = %addresses.http, admin = %addresses.admin, "tidegate is up");
    if let Some(Err(error)) = handover.as_mut().map(Handover::open) {
        error!(problem = chain(&error), "nobody can take over from this gateway");
    }
    announce(&addresses);
    if let Some(socket) = &start.manager {
        tell_ready(socket);
    }

    let mut successor = Box::pin(async {
        match handover {
            Some(handover) => handover.give_way(offer).await,
            None => std::future::pending().await,
        }
    });
    let ended = loop {
        let (actor, answer) = tokio::select! {
            () = stop_signals.first() => break Ok(Successor::None),
            () = &mut successor => break Ok(Successor::Listens),
            () = running.part_ended() => break Err(StartError::PartEnded),
            _ = upgrades.recv() => {
                start_successor(&start.successor);
                continue;
            }
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
    drop(successor);
    let drain = reloader.current.listen.drain;
    running.stop(drain, *ended.as_ref().unwrap_or(&Successor::None), &mut stop_signals).await;
    ended.map(drop)
}

/// The gateway whose place is taken, if there is one, and the socket where others may ask for this one's.
async fn place(config: &Config, place: Place) -> Result<(Option<Predecessor>, Option<Handover>), StartError> {
    let Some(path) = &config.listen.handover else {
        return if place == Place::New { Ok((None, None)) } else { Err(StartError::NoHandover) };
    };
    let predecessor = match place {
        Place::Running => Some(Predecessor::greet(path).await?),
        Place::New if is_taken(path) => return Err(StartError::Running(path.clone())),
        Place::New => None,
    };
    Ok((predecessor, Some(Handover::make(path)?)))
}

/// Who may use the admin API.
fn access(config: &Config) -> Result<Arc<Access>, StartError> {
    let access = config.admin.access().map_err(StartError::Tokens)?;
    if access.is_guarded() && config.admin.tls.is_none() && !config.listen.admin.ip().is_loopback() {
        warn!(
            "the admin API listens on {} without TLS: whoever is on the way can read its tokens",
            config.listen.admin
        );
    }
    Ok(Arc::new(access))
}

/// What TLS is spoken with, if it is.
fn tls(config: &Config) -> Result<Option<Arc<Tls>>, String> {
    let tls = config.listen.https.as_ref().map(|https| Tls::open(https.tls.clone(), &config.limits));
    Ok(tls.transpose()?.map(Arc::new))
}

/// What TLS the admin API speaks, if it does.
fn admin_tls(config: &Config) -> Result<Option<Arc<Tls>>, String> {
    let tls = config.admin.tls.as_ref().map(|tls| Tls::open(tls.clone(), &config.limits));
    Ok(tls.transpose()?.map(Arc::new))
}

/// What a gateway is called among those that share its store.
fn instance_name(address: SocketAddr) -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim();
    if machine.is_empty() { address.to_string() } else { format!("{machine}:{}", address.port()) }
}

fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
