//! `[backends.*]`: what serves, and how it is reached.

use std::fs;
use std::time::Duration;

use crate::backend::Mode;
use crate::config::read::{retry_buffer, share, some_time};
use crate::diagnostic::Place;
use crate::document::{Placed, Section, Value, boolean, integer, one_or_more, parsed, string};
use crate::flag::{BackendName, NameError};
use crate::proxy::{
    Balance, BudgetConfig, Ejection, HealthCheck, Protocol, RescueConfig, Server, Timeouts, TlsConfig, TlsError,
    UpstreamConfig,
};

/// How often names are resolved again: as long as a failing-over name is commonly kept for.
const RESOLVE: Duration = Duration::from_secs(30);

/// Backends are looked after at most so often: anything more is a load of its own.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Its name, which is also the variant's.
    pub name: BackendName,
    /// What it is.
    pub kind: BackendKind,
    /// How requests are spread over its servers.
    pub balance: Balance,
    /// The version of HTTP that they speak.
    pub protocol: Protocol,
    /// How they prove who they are.
    pub tls: TlsConfig,
    /// How long each step of an exchange may take.
    pub timeouts: Timeouts,
    /// How it is found out whether they are well.
    pub health_check: Option<HealthCheck>,
    /// When one is set aside for failing requests.
    pub ejection: Ejection,
    /// How often names are resolved again.
    pub resolve: Duration,
    /// What happens to requests that it fails as the canary, and what it takes on as stable.
    pub rescue: RescueConfig,
}

/// What a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendKind {
    /// The built-in handlers, in this process.
    Builtin(Mode),
    /// Servers elsewhere.
    Servers(Vec<Server>),
}

impl Backend {
    /// The backend as the gateway reaches it, with its `servers`.
    #[must_use]
    pub fn upstream(&self, servers: Vec<Server>) -> UpstreamConfig {
        UpstreamConfig {
            name: self.name.clone(),
            servers,
            balance: self.balance,
            protocol: self.protocol,
            tls: self.tls.clone(),
            timeouts: self.timeouts,
            health_check: self.health_check.clone(),
            ejection: self.ejection,
            resolve: self.resolve,
            rescue: self.rescue,
        }
    }

    /// Whether it relies on the certificates that the system trusts.
    #[must_use]
    pub fn needs_system_roots(&self) -> bool {
        let by_tls = |servers: &[Server]| servers.iter().any(|server| server.tls);
        matches!(&self.kind, BackendKind::Servers(servers) if by_tls(servers)) && self.tls.roots.is_empty()
    }
}

pub(crate) fn backend((name, mut section): (Placed<String>, Section<'_>)) -> Option<Backend> {
    let problems = section.problems();
    let parsed_name: Result<BackendName, NameError> = name.value.parse();
    if let Err(error) = &parsed_name {
        problems.report(&name.place, format!("a backend cannot be named `{}`: {error}", name.value));
    }
    let place = section.value_place("servers").cloned();
    let builtin = section.optional("builtin", parsed::<Mode>);
    let servers = section.optional("servers", one_or_more);
    let servers = servers.zip(place).map(|(servers, place)| Placed { value: servers.value, place });
    let balance = section.or("balance", parsed, Balance::default());
    let protocol = section.or("protocol", parsed, Protocol::default());
    let tls_place = section.value_place("tls").cloned();
    let tls = section.section("tls").map_or_else(TlsConfig::default, tls);
    let timeouts = section.section("timeouts").map_or_else(Timeouts::default, timeouts);
    let health_check = section.section("health_check").map(health_check);
    let ejection = section.section("ejection").map_or_else(Ejection::default, ejection);
    let resolve = section.or("resolve", period, RESOLVE);
    let rescue = rescue(&mut section);
    // The environment outranks files, also where it names the other of the two.
    let kind = match newest(builtin, servers) {
        (Some(mode), None) => Some(BackendKind::Builtin(mode.value)),
        (None, Some(list)) => self::servers(&list.value, &section).map(BackendKind::Servers),
        _ => {
            let message = "a backend has either `builtin = \"sync\"` or `\"async\"`, or `servers = [\"host:port\"]`";
            problems.report(section.place(), message);
            None
        }
    };
    let by_tls = matches!(&kind, Some(BackendKind::Servers(servers)) if servers.iter().any(|server| server.tls));
    if let (Some(place), Some(_), false) = (&tls_place, &kind, by_tls) {
        problems.report(place, "`tls` means nothing without a server that is written `https://…`");
    }
    section.finish();
    let kind = kind?;
    let name = parsed_name.ok()?;
    Some(Backend { name, kind, balance, protocol, tls, timeouts, health_check, ejection, resolve, rescue })
}

/// The servers of a list, each once.
fn servers(list: &[Placed<String>], section: &Section<'_>) -> Option<Vec<Server>> {
    let problems = section.problems();
    let mut read: Vec<Server> = Vec::new();
    for Placed { value, place } in list {
        match value.parse::<Server>() {
            Ok(server) if read.iter().any(|other| other.place == server.place) => {
                problems.report(place, format!("`servers`: \"{value}\" is there twice"));
            }
            Ok(server) => read.push(server),
            Err(error) => problems.report(place, format!("`servers`: {error}")),
        }
    }
    (read.len() == list.len()).then_some(read)
}

fn tls(mut section: Section<'_>) -> TlsConfig {
    let roots = section.optional("ca", |value| pem(value, TlsConfig::certificates));
    let certificates = section.optional("certificate", |value| pem(value, TlsConfig::certificates));
    let key = section.optional("key", |value| pem(value, TlsConfig::key));
    let server_name = section.optional("server_name", string);
    if section.value_place("certificate").is_some() != section.value_place("key").is_some() {
        section.problems().report(section.place(), "`tls.certificate` and `tls.key` belong together");
    }
    section.finish();
    let identity = certificates.zip(key).map(|(certificates, key)| (certificates.value, key.value));
    TlsConfig {
        roots: roots.map_or_else(Vec::new, |roots| roots.value),
        identity,
        server_name: server_name.map(|name| name.value),
    }
}

/// What `read` finds in the file that is named.
pub(crate) fn pem<T>(value: &Value, read: impl FnOnce(&[u8]) -> Result<T, TlsError>) -> Result<T, String> {
    let path = string(value)?;
    let text = fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    read(&text).map_err(|error| format!("{path} {error}"))
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let connect = section.or("connect", some_time, default.connect);
    let read = section.or("read", some_time, default.read);
    let write = section.optional("write", some_time).map(|write| write.value);
    let idle = section.or("idle", some_time, default.idle);
    let total = section.optional("total", some_time).map(|total| total.value);
    section.finish();
    Timeouts { connect, read, write, idle, total }
}

fn health_check(mut section: Section<'_>) -> HealthCheck {
    let path = section.optional("path", path).map(|path| path.value);
    let interval = section.or("interval", period, Duration::from_secs(1));
    let timeout = section.or("timeout", some_time, Duration::from_secs(1));
    let unhealthy_after = section.or("unhealthy_after", times, 3);
    let healthy_after = section.or("healthy_after", times, 2);
    section.finish();
    HealthCheck { path, interval, timeout, unhealthy_after, healthy_after }
}

fn ejection(mut section: Section<'_>) -> Ejection {
    let default = Ejection::default();
    let after = section.or("after", integer, default.after);
    let time = section.or("time", some_time, default.time);
    section.finish();
    Ejection { after, time }
}

/// A path, perhaps with a query.
fn path(value: &Value) -> Result<String, String> {
    let path = string(value)?;
    let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if is_path { Ok(path) } else { Err(format!("\"{path}\" is no path: write one that begins with `/`")) }
}

fn times(value: &Value) -> Result<u32, String> {
    match integer(value)? {
        0 => Err("wants at least 1".to_owned()),
        times => Ok(times),
    }
}

fn period(value: &Value) -> Result<Duration, String> {
    let period = some_time(value)?;
    if period < MIN_INTERVAL { Err(format!("at least {} ms", MIN_INTERVAL.as_millis())) } else { Ok(period) }
}

fn rescue(section: &mut Section<'_>) -> RescueConfig {
    let default = RescueConfig::default();
    let enabled = section.or("rescue", boolean, default.enabled);
    let retry_buffer = section.or("retry_buffer", retry_buffer, default.retry_buffer);
    let budget = section.section("rescue_budget").map_or(default.budget, |mut section| {
        let share = section.or("share", share, default.budget.share);
        let floor = section.or("floor", integer, default.budget.floor);
        section.finish();
        BudgetConfig { share, floor }
    });
    RescueConfig { enabled, retry_buffer, budget }
}

/// Both, but for one from elsewhere beside one from the environment.
fn newest<A, B>(a: Option<Placed<A>>, b: Option<Placed<B>>) -> (Option<Placed<A>>, Option<Placed<B>>) {
    let is_variable = |place: &Place| matches!(place, Place::Environment(_));
    match (a, b) {
        (Some(a), Some(b)) if is_variable(&a.place) && !is_variable(&b.place) => (Some(a), None),
        (Some(a), Some(b)) if is_variable(&b.place) && !is_variable(&a.place) => (None, Some(b)),
        both => both,
    }
}
