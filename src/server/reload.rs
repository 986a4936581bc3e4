//! The configuration, read again while the gateway runs: all of it is put in force, or nothing.

use std::fmt;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::access::Access;
use crate::admin::{Rates, ReloadError};
use crate::api::Reloaded;
use crate::availability::Availability;
use crate::clock;
use crate::config::{Admin, Backend, BackendKind, Config};
use crate::diagnostic::Diagnostic;
use crate::downstream::{Entrance, Tls};
use crate::flag_file::{self, Loader};
use crate::proxy::{self, Identity, Policy, Server, Upkeep, UpstreamConfig, Upstreams};
use crate::remade::AllChanging;
use crate::rollout::Rollouts;
use crate::telemetry::chain;
use crate::token_file;

/// Reads the configuration as it was read at the start.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config, Vec<Diagnostic>> + Send + Sync>;

/// What a reload changes.
pub(crate) struct Reloader {
    pub(crate) read: ReadConfig,
    pub(crate) current: Config,
    /// Where the built-in backends listen.
    pub(crate) builtin: Vec<(String, SocketAddr)>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) doors: Vec<Arc<ArcSwap<Entrance>>>,
    pub(crate) upstreams: watch::Sender<Arc<Upstreams>>,
    pub(crate) admin: watch::Sender<Admin>,
    pub(crate) flags: FlagWatch,
    pub(crate) changing: Arc<AllChanging>,
    pub(crate) tls: Vec<Arc<Tls>>,
    pub(crate) access: Arc<Access>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) availability: Arc<Availability>,
    pub(crate) rollouts: Arc<Rollouts>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Reads the configuration and puts it in force, if all of it can be. `actor` is whoever asked.
    pub(crate) async fn reload(&mut self, actor: &str) -> Result<Reloaded, ReloadError> {
        let reloaded = Box::pin(self.try_reload()).await;
        match &reloaded {
            Ok(Reloaded { changed }) if changed.is_empty() => info!(actor, "the configuration says what is in force"),
            Ok(Reloaded { changed }) => {
                let changed = changed.join(", ");
                info!(actor, changed, "the configuration was read again and is in force");
                self.rollouts.note("reload", actor, &changed).await;
            }
            Err(problem) => error!(actor, %problem, "the configuration was read again; what was in force stays so"),
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<Reloaded, ReloadError> {
        let read = Arc::clone(&self.read);
        let config = off_thread(move || read()).await?.map_err(ReloadError::Bad)?;
        let needing_restart = needing_restart(&self.current, &config);
        if !needing_restart.is_empty() {
            return Err(ReloadError::NeedsRestart(needing_restart));
        }
        let changed = changed(&self.current, &config);
        if changed.is_empty() {
            return Ok(Reloaded { changed });
        }
        // Everything that may fail comes first.
        let access = config.admin.access().map_err(ReloadError::Bad)?;
        let identity = if config.identity == self.current.identity {
            self.policy.identity()
        } else {
            Arc::new(Identity::open(config.identity.clone()).map_err(ReloadError::Unusable)?)
        };
        let upstreams = self.policy.upstreams().renewed(self.upstream_configs(&config), clock::now());
        let upstreams = Arc::new(upstreams.map_err(|error| ReloadError::Unusable(chain(&error)))?);
        let flags = self.load_flags(&config).await?;
        Upkeep::prepare(&upstreams, &self.availability).await;

        // A request may have the new flags and the old routes, or the other way round, but always all of its backends.
        self.policy.extend(Arc::clone(&upstreams));
        if let Some((loader, definitions)) = flags {
            self.flags.replace(loader, || self.rollouts.adopt_files(Ok(definitions)));
        }
        let identity_files = identity.changing().into_iter();
        self.changing.store(Arc::new(identity_files.chain(self.tls.iter().map(|tls| tls.changing())).collect()));
        self.policy.replace(proxy::Config {
            routes: config.routes.clone(),
            identity,
            upstreams: Arc::clone(&upstreams),
            expose_variant: config.flags.expose_variant,
            limits: config.limits,
        });
        for door in &self.doors {
            let before = door.load_full();
            door.store(Arc::new(Entrance {
                limits: Arc::new(config.limits),
                trusted: config.identity.trusted_proxies.clone().into(),
                proxy_protocol: config.listen.proxy_protocol,
                ..Entrance::clone(&before)
            }));
        }
        if config.admin != self.current.admin {
            self.access.replace(access.tokens());
            self.access.certify(config.admin.certificates.clone());
            self.rates.set(config.admin.rate_limit);
            self.rollouts.require_second(config.admin.second_operator.as_ref().map(|(rule, _)| *rule));
            self.admin.send_replace(config.admin.clone());
        }
        self.upstreams.send_replace(upstreams);
        self.current = config;
        Ok(Reloaded { changed })
    }

    /// The flag files, read anew if they are others or are held against something else.
    async fn load_flags(&self, config: &Config) -> Result<Option<(Loader, Vec<flag_file::Definition>)>, ReloadError> {
        let (expected, before) = (config.expectations(), self.current.expectations());
        if config.flags.path == self.current.flags.path && expected == before {
            return Ok(None);
        }
        let mut loader = Loader::new(config.flags.path.clone(), expected);
        off_thread(move || loader.load().map(|definitions| Some((loader, definitions))))
            .await?
            .map_err(ReloadError::Bad)
    }

    fn upstream_configs(&self, config: &Config) -> Vec<UpstreamConfig> {
        let servers = |backend: &Backend| match &backend.kind {
            BackendKind::Servers(servers) => servers.clone(),
            BackendKind::Builtin(_) => {
                let own = self.builtin.iter().filter(|(name, _)| name == backend.name.as_str());
                own.map(|(_, address)| Server::from(*address)).collect()
            }
        };
        config.backends.iter().map(|backend| backend.upstream(servers(backend))).collect()
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReloadError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ReloadError::Unusable(error.to_string()))
}

/// What differs and takes a restart, by its keys.
fn needing_restart(old: &Config, new: &Config) -> Vec<String> {
    // Whoever adds a section decides here whether it takes a restart.
    let Config {
        listen,
        admin,
        limits,
        store,
        database,
        ai,
        access_log,
        tracing,
        notify,
        backends,
        identity: _,
        flags: _,
        routes: _,
    } = new;
    let builtin = |backends: &[Backend]| {
        let builtin = backends.iter().filter_map(|backend| match &backend.kind {
            BackendKind::Builtin(mode) => Some((backend.name.clone(), *mode)),
            BackendKind::Servers(_) => None,
        });
        builtin.collect::<Vec<_>>()
    };
    let system_roots = |backends: &[Backend]| backends.iter().any(Backend::needs_system_roots);
    let differences = [
        ("listen.http", listen.http != old.listen.http),
        ("listen.https", listen.https != old.listen.https),
        ("listen.admin", listen.admin != old.listen.admin),
        ("admin.tls", admin.tls != old.admin.tls),
        ("listen.handover", listen.handover != old.listen.handover),
        ("admin: whether tokens are needed", admin.is_guarded() != old.admin.is_guarded()),
        ("limits.idle", limits.idle != old.limits.idle),
        ("limits.http2_streams", limits.streams != old.limits.streams),
        ("limits.handshakes", limits.handshakes != old.limits.handshakes),
        ("limits.handshake_timeout", limits.handshake_timeout != old.limits.handshake_timeout),
        ("store", *store != old.store),
        ("which backends are built in", builtin(backends) != builtin(&old.backends)),
        ("database", *database != old.database),
        ("ai", *ai != old.ai),
        ("access_log", *access_log != old.access_log),
        ("notify", *notify != old.notify),
        ("tracing", *tracing != old.tracing),
        ("the first backend that trusts whom the system does", system_roots(backends) && !system_roots(&old.backends)),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

/// What differs and can be put in force, by its sections.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    let sections = [
        ("listen", new.listen != old.listen),
        ("admin", new.admin != old.admin),
        ("identity", new.identity != old.identity),
        ("limits", new.limits != old.limits),
        ("flags", new.flags != old.flags),
        ("routes", new.routes != old.routes),
    ];
    changed.extend(sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()));
    for backend in &new.backends {
        if !old.backends.contains(backend) {
            changed.push(format!("backends.{}", backend.name));
        }
    }
    let is_gone = |backend: &&Backend| !new.backends.iter().any(|other| other.name == backend.name);
    changed.extend(old.backends.iter().filter(is_gone).map(|backend| format!("backends.{} is gone", backend.name)));
    changed
}

/// Which flag files are watched.
#[derive(Debug, Clone)]
pub(crate) struct FlagWatch {
    loaders: mpsc::UnboundedSender<(u64, Loader)>,
    /// The number of the loader whose readings are put in force.
    current: Arc<Mutex<u64>>,
}

impl FlagWatch {
    /// Watches what `loader` reads until `stopping` turns true, or what another does once it is replaced.
    pub(crate) fn new(
        loader: Loader,
        rollouts: Arc<Rollouts>,
        stopping: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (loaders, others) = mpsc::unbounded_channel();
        let current = Arc::new(Mutex::new(0));
        let watch = Self { loaders, current: Arc::clone(&current) };
        (watch, watch_flags(loader, others, current, rollouts, stopping))
    }

    /// Has `adopt` put in force what `loader` read, and nothing else from the one before it.
    fn replace(&self, loader: Loader, adopt: impl FnOnce()) {
        let mut current = self.current.lock();
        *current += 1;
        adopt();
        // Whoever should watch is gone at the stop only.
        let _ = self.loaders.send((*current, loader));
    }
}

async fn watch_flags(
    mut loader: Loader,
    mut others: mpsc::UnboundedReceiver<(u64, Loader)>,
    current: Arc<Mutex<u64>>,
    rollouts: Arc<Rollouts>,
    stopping: watch::Receiver<bool>,
) {
    let mut own = 0;
    loop {
        let apply = |loaded| {
            let current = current.lock();
            if *current == own {
                rollouts.adopt_files(loaded);
            }
            ready(())
        };
        tokio::select! {
            () = flag_file::watch(loader, stopping.clone(), apply) => return,
            Some((number, other)) = others.recv() => (own, loader) = (number, other),
        }
    }
}

/// Keeps `access` at the tokens of the configuration and of the file that it names, until `stopping` turns true.
pub(crate) async fn watch_tokens(
    mut admin: watch::Receiver<Admin>,
    access: Arc<Access>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let Admin { tokens, token_file, .. } = admin.borrow_and_update().clone();
        let watching = async {
            match token_file {
                Some(path) => token_file::watch(path, tokens, &access, stopping.clone()).await,
                None => drop(stopping.wait_for(|stop| *stop).await),
            }
        };
        tokio::select! {
            () = watching => return,
            Ok(()) = admin.changed() => {}
        }
    }
}
