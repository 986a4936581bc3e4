//! tidegate.toml and the environment become one checked [`Config`].
//!
//! Every problem is reported, each with its place. The defaults are a document too, `config/defaults.toml`, so that there
//! is one place to look them up and the environment can change a part of them.

mod environment;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use ipnet::IpNet;

use crate::backend::{Mode, PoolConfig};
use crate::diagnostic::{Diagnostic, Place};
use crate::document::{
    Document, Placed, Problems, Section, Value, boolean, duration, integer, parsed, string, strings,
};
use crate::flag::{BackendName, FlagKey, NameError};
use crate::flag_file::Expectations;
use crate::proxy::{Anonymous, IdentityConfig, RouteConfig, Server, Source, Target, Timeouts};
use crate::store;

pub use crate::config::environment::{Variable, environment};

/// The file that is read if none is named and it is there.
pub const DEFAULT_PATH: &str = "tidegate.toml";

const DEFAULTS: &str = include_str!("config/defaults.toml");

/// The tables that a file replaces as a whole.
const REPLACED_AS_A_WHOLE: [&str; 2] = ["backends", "routes"];

/// The most connections of a pool, and of its overflow.
const MAX_POOL: u32 = 10_000;

/// Everything that `tidegate serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Where targeting keys come from.
    pub identity: IdentityConfig,
    /// Where the flags are.
    pub flags: Flags,
    /// Where rollouts and the audit trail are kept.
    pub store: store::Config,
    /// The backends, by name.
    pub backends: Vec<Backend>,
    /// What the built-in handlers use.
    pub database: Database,
    /// Where requests go.
    pub routes: Vec<RouteConfig>,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The gateway's address.
    pub http: SocketAddr,
    /// The admin API's address, on loopback.
    pub admin: SocketAddr,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
}

/// Where the flags are, and who is told about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// The directory of flag files.
    pub path: PathBuf,
    /// Whether clients are told their variant.
    pub expose_variant: bool,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name, which is also the variant's.
    pub name: BackendName,
    /// What it is.
    pub kind: BackendKind,
    /// How long each step of an exchange may take.
    pub timeouts: Timeouts,
}

/// What a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendKind {
    /// The built-in handlers, in this process.
    Builtin(Mode),
    /// Servers elsewhere.
    Servers(Vec<Server>),
}

/// What the built-in handlers use.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Where the data is.
    pub url: String,
    /// How many connections to it are held, and for how long.
    pub pool: PoolConfig,
}

impl Config {
    /// Reads the configuration: `path`, or [`DEFAULT_PATH`] if it is there, or none; and `variables` over it.
    ///
    /// # Errors
    ///
    /// Every problem, with its place.
    pub fn load(path: Option<&Path>, variables: &[Variable]) -> Result<Self, Vec<Diagnostic>> {
        let (path, text) = match path {
            Some(path) => (path, fs::read_to_string(path)),
            None => (Path::new(DEFAULT_PATH), fs::read_to_string(DEFAULT_PATH)),
        };
        let text = match (text, path == Path::new(DEFAULT_PATH)) {
            (Ok(text), _) => text,
            (Err(error), true) if error.kind() == io::ErrorKind::NotFound => String::new(),
            (Err(error), _) => return Err(vec![Diagnostic::of_file(path, format!("cannot read: {error}"))]),
        };
        let mut document = Document::parse(path, text)?;
        let defaults = Document::parse(Path::new("built-in defaults"), DEFAULTS.to_owned())?;
        document.fill_in(&defaults, &REPLACED_AS_A_WHOLE);

        let problems = Problems::new();
        problems.extend(environment::overlay(&mut document, variables));
        let config = read(document.root(&problems));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems.into_vec()),
        }
    }

    /// What the flag files are held against.
    #[must_use]
    pub fn expectations(&self) -> Expectations {
        let flag = |route: &RouteConfig| match &route.target {
            Target::Flag(key) => Some(key.clone()),
            Target::Backend(_) => None,
        };
        Expectations {
            backends: self.backends.iter().map(|backend| backend.name.clone()).collect(),
            flags: self.routes.iter().filter_map(flag).collect(),
        }
    }
}

/// Every key has a default, so what is missing here was reported where it could not be read.
fn read(mut root: Section<'_>) -> Option<Config> {
    let listen = root.section("listen").and_then(listen);
    let identity = root.section("identity").and_then(identity);
    let flags = root.section("flags").and_then(flags);
    let store = root.section("store").and_then(store);
    let backends: Vec<_> = root.named_sections("backends").into_iter().filter_map(backend).collect();
    let database = root.section("database").and_then(database);
    let routes = routes(&mut root, &backends);
    root.not_supported_yet("admin");
    root.finish();
    Some(Config {
        listen: listen?,
        identity: identity?,
        flags: flags?,
        store: store?,
        backends,
        database: database?,
        routes,
    })
}

fn listen(mut section: Section<'_>) -> Option<Listen> {
    let http = section.optional("http", parsed);
    let admin = section.optional("admin", parsed::<SocketAddr>);
    let drain = section.optional("drain", duration);
    section.not_supported_yet("https");
    if let Some(Placed { value, place }) = &admin
        && !value.ip().is_loopback()
    {
        let message = format!(
            "`listen.admin`: {value} can be reached from outside, and access tokens are not supported yet in this \
             version; use a loopback address like 127.0.0.1:8081"
        );
        section.problems().report(place, message);
    }
    section.finish();
    Some(Listen { http: http?.value, admin: admin?.value, drain: drain?.value })
}

fn identity(mut section: Section<'_>) -> Option<IdentityConfig> {
    let sources = each::<Source>(&mut section, "sources");
    let anonymous = section.optional("anonymous", parsed::<Anonymous>);
    let trusted_proxies = each::<IpNet>(&mut section, "trusted_proxies");
    section.finish();
    Some(IdentityConfig { sources: sources?, anonymous: anonymous?.value, trusted_proxies: trusted_proxies? })
}

/// The strings of an array, each read as a `T`; `None` if one of them cannot be.
fn each<T: std::str::FromStr<Err: std::fmt::Display>>(section: &mut Section<'_>, key: &'static str) -> Option<Vec<T>> {
    let Placed { value, place } = section.optional(key, strings)?;
    let read = value.iter().map(|text| {
        let read = text.parse();
        read.map_err(|error| section.problems().report(&place, format!("`{key}`: \"{text}\": {error}"))).ok()
    });
    // All of them first, so that every problem is told.
    read.collect::<Vec<_>>().into_iter().collect()
}

fn flags(mut section: Section<'_>) -> Option<Flags> {
    let path = section.optional("path", string);
    let expose_variant = section.optional("expose_variant", boolean);
    section.finish();
    Some(Flags { path: path?.value.into(), expose_variant: expose_variant?.value })
}

fn store(mut section: Section<'_>) -> Option<store::Config> {
    let url = section.optional("url", string);
    if let Some(Placed { value, place }) = &url
        && !value.starts_with("sqlite:")
    {
        let message = format!("`store.url`: only sqlite:// is supported yet in this version, not \"{value}\"");
        section.problems().report(place, message);
    }
    section.finish();
    Some(store::Config { url: url?.value })
}

fn backend((name, mut section): (Placed<String>, Section<'_>)) -> Option<Backend> {
    let problems = section.problems();
    let parsed_name: Result<BackendName, NameError> = name.value.parse();
    if let Err(error) = &parsed_name {
        problems.report(&name.place, format!("a backend cannot be named `{}`: {error}", name.value));
    }
    let builtin = section.optional("builtin", parsed::<Mode>);
    let servers = section.optional("servers", strings);
    let timeouts = section.section("timeouts").map_or_else(Timeouts::default, timeouts);
    section.not_supported_yet("health_check");
    // The environment outranks files, also where it names the other of the two.
    let kind = match newest(builtin, servers) {
        (Some(mode), None) => Some(BackendKind::Builtin(mode.value)),
        (None, Some(list)) if !list.value.is_empty() => {
            let read = list.value.iter().map(|text| {
                server(text).map_err(|message| problems.report(&list.place, format!("`servers`: {message}"))).ok()
            });
            read.collect::<Vec<_>>().into_iter().collect::<Option<_>>().map(BackendKind::Servers)
        }
        _ => {
            let message = "a backend has either `builtin = \"sync\"` or `\"async\"`, or `servers = [\"host:port\"]`";
            problems.report(section.place(), message);
            None
        }
    };
    section.finish();
    Some(Backend { name: parsed_name.ok()?, kind: kind?, timeouts })
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

/// A server's address. A name is resolved once, here.
fn server(text: &str) -> Result<Server, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
        return Ok(Server::Unix(path.into()));
    }
    let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.find(|address| address.port() != 0));
    resolved.map(Server::Tcp).ok_or_else(|| {
        format!("\"{text}\" is no address of a server; write host:port, or unix: and the absolute path of a socket")
    })
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let connect = section.or("connect", some_time, default.connect);
    let read = section.or("read", some_time, default.read);
    section.finish();
    Timeouts { connect, read }
}

/// A duration in which something can happen.
fn some_time(value: &Value) -> Result<Duration, String> {
    duration(value)
        .and_then(|time| if time.is_zero() { Err("no time at all is too short".to_owned()) } else { Ok(time) })
}

/// A number of connections: more than a database server takes is a slip.
fn connections(value: &Value) -> Result<u32, String> {
    let connections = integer(value)?;
    if connections > MAX_POOL { Err(format!("at most {MAX_POOL}, not {connections}")) } else { Ok(connections) }
}

fn database(mut section: Section<'_>) -> Option<Database> {
    let url = section.optional("url", string);
    let pool = section.section("pool").and_then(|mut pool| {
        let size = pool.optional("size", connections);
        let max_overflow = pool.optional("max_overflow", connections);
        let timeout = pool.optional("timeout", some_time);
        let recycle = pool.optional("recycle", some_time);
        if let Some(Placed { value: 0, place }) = &size {
            pool.problems().report(place, "`database.pool.size`: a pool needs at least one connection");
        }
        pool.finish();
        Some(PoolConfig {
            size: size?.value,
            max_overflow: max_overflow?.value,
            timeout: timeout?.value,
            recycle: recycle?.value,
        })
    });
    section.finish();
    Some(Database { url: url?.value, pool: pool? })
}

fn routes(root: &mut Section<'_>, backends: &[Backend]) -> Vec<RouteConfig> {
    let problems = root.problems();
    let mut routes: Vec<RouteConfig> = Vec::new();
    for section in root.sections("routes") {
        let place = section.place().clone();
        let Some(route) = route(section, backends) else { continue };
        if routes.iter().any(|other| (&other.host, &other.path) == (&route.host, &route.path)) {
            problems.report(&place, format!("there is another route for {}", route.path));
        }
        routes.push(route);
    }
    if routes.is_empty() && problems.is_empty() {
        problems.report(root.place(), "without `[[routes]]` no request is served");
    }
    routes
}

fn route(mut section: Section<'_>, backends: &[Backend]) -> Option<RouteConfig> {
    let problems = section.problems();
    let host = section.optional("host", string);
    let path = section.required("path", "\"/\"", string);
    let flag = section.optional("flag", parsed::<FlagKey>);
    let backend = section.optional("backend", parsed::<BackendName>);
    if let Some(Placed { value, place }) = &path
        && (!value.starts_with('/') || value.contains(['?', '#', ' ']))
    {
        problems.report(place, format!("`routes.path`: \"{value}\" is no path: write one that begins with `/`"));
    }
    let target = match (flag, backend) {
        (Some(flag), None) => Some(Target::Flag(flag.value)),
        (None, Some(Placed { value, place })) => {
            if !backends.iter().any(|backend| backend.name == value) {
                let known: Vec<_> = backends.iter().map(|backend| backend.name.as_str()).collect();
                problems.report(&place, format!("no backend is named `{value}`; there are: {}", known.join(", ")));
            }
            Some(Target::Backend(value))
        }
        _ => {
            problems.report(section.place(), "a route leads either to a `flag` or to a `backend`");
            None
        }
    };
    section.finish();
    Some(RouteConfig { host: host.map(|host| host.value), path: path?.value, target: target? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidegate.toml");
        fs::write(&path, text).unwrap();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| Variable::new((*name).to_owned(), (*value).to_owned())).collect();
        let prefix = format!("{}/", directory.path().display());
        let relative = |problem: &Diagnostic| problem.to_string().replace(&prefix, "");
        Config::load(Some(&path), &variables).map_err(|problems| problems.iter().map(relative).collect())
    }

    #[track_caller]
    fn check(text: &str, variables: &[(&str, &str)], problems: &[&str]) {
        assert_eq!(load(text, variables).expect_err("refused"), problems);
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.listen.http, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.backends.len(), 2);
        assert_eq!(config.routes.len(), 2);
        assert_eq!(config.database.pool, PoolConfig::default());
        assert_eq!(config.expectations().flags, ["async-database".parse().unwrap()]);
    }

    #[test]
    fn the_file_and_then_the_environment_go_over_the_defaults() {
        let text = "[listen]\nhttp = \"0.0.0.0:80\"\n[backends.my-app]\nservers = [\"127.0.0.1:9\", \"unix:/run/a.sock\"]\n\
                    timeouts = { read = \"2s\" }\n[[routes]]\npath = \"/\"\nhost = \"a.test\"\nbackend = \"my-app\"\n";
        let config = load(
            text,
            &[
                ("TIDEGATE_LISTEN__ADMIN", "[::1]:99"),
                ("TIDEGATE_DATABASE__POOL__SIZE", "7"),
                ("TIDEGATE_IDENTITY__SOURCES", "[\"cookie:who\"]"),
                ("TIDEGATE_BACKENDS__MY_APP__TIMEOUTS__CONNECT", "1s"),
                ("TIDEGATE_FLAGS__PATH", "2026"),
                ("TIDEGATE_ADMIN", "http://127.0.0.1:1"),
                ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
                ("TIDEGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.listen.http.port(), 80);
        assert_eq!(config.listen.admin.port(), 99);
        assert_eq!((config.database.pool.size, config.database.pool.max_overflow), (7, 30));
        assert_eq!(config.identity.sources, ["cookie:who".parse().unwrap()]);
        assert_eq!(config.flags.path, Path::new("2026"));
        let [backend] = config.backends.as_slice() else { panic!("{:?}", config.backends) };
        assert_eq!(backend.timeouts, Timeouts { connect: Duration::from_secs(1), read: Duration::from_secs(2) });
    }

    #[test]
    fn a_part_of_the_defaults_can_be_changed() {
        let config = load("", &[("TIDEGATE_BACKENDS__SYNC__TIMEOUTS__READ", "3s")]).unwrap();
        assert_eq!(config.backends.len(), 2);
        let sync = config.backends.iter().find(|backend| backend.name.as_str() == "sync").unwrap();
        assert_eq!(sync.kind, BackendKind::Builtin(Mode::Sync));
        assert_eq!(sync.timeouts.read, Duration::from_secs(3));
        let config = load("", &[("TIDEGATE_BACKENDS__SYNC__SERVERS", "[\"127.0.0.1:9\"]")]).unwrap();
        let sync = config.backends.iter().find(|backend| backend.name.as_str() == "sync").unwrap();
        assert_eq!(sync.kind, BackendKind::Servers(vec![Server::Tcp("127.0.0.1:9".parse().unwrap())]));
        let config = load("", &[("TIDEGATE_ROUTES", "[{ path = \"/\", backend = \"async\" }]")]).unwrap();
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        check(
            "[listen]\nhttp = 8080\nadmin = \"0.0.0.0:8081\"\nhtps = {}\n[store]\nurl = \"redis://x\"\n\
             [identity]\nsources = [\"header:x y\", \"jwt:sub\"]\n[backends.Sync]\nbuiltin = \"sync\"\n\
             [backends.app]\n[[routes]]\npath = \"api\"\nbackend = \"ap\"\n[admin]\n[cache]\n",
            &[],
            &[
                "tidegate.toml:2:8: `listen.http`: wants a string, not an integer",
                "tidegate.toml:3:9: `listen.admin`: 0.0.0.0:8081 can be reached from outside, and access tokens are \
                 not supported yet in this version; use a loopback address like 127.0.0.1:8081",
                "tidegate.toml:4:1: unknown key `listen.htps`; did you mean `https`?",
                "tidegate.toml:8:11: `sources`: \"header:x y\": there can be no header or cookie of that name",
                "tidegate.toml:8:11: `sources`: \"jwt:sub\": this kind of source is not supported yet in this version",
                "tidegate.toml:6:7: `store.url`: only sqlite:// is supported yet in this version, not \"redis://x\"",
                "tidegate.toml:9:11: a backend cannot be named `Sync`: a name is 1 to 63 of a-z, 0-9 and `-`, and \
                 begins with a letter or a digit",
                "tidegate.toml:11:1: a backend has either `builtin = \"sync\"` or `\"async\"`, or `servers = \
                 [\"host:port\"]`",
                "tidegate.toml:13:8: `routes.path`: \"api\" is no path: write one that begins with `/`",
                "tidegate.toml:14:11: no backend is named `ap`; there are: ",
                "tidegate.toml:15:2: `admin` is not supported yet in this version; remove it",
                "tidegate.toml:16:2: unknown key `cache`; known here: listen, identity, flags, store, backends, \
                 database, routes, admin",
            ],
        );
    }

    #[test]
    fn a_misspelt_variable_is_no_silent_default() {
        check(
            "",
            &[("TIDEGATE_LISTEN_HTTP", "0.0.0.0:80"), ("TIDEGATE_LISTEN__HTTPP", "0.0.0.0:80")],
            &[
                "environment variable TIDEGATE_LISTEN_HTTP: this sets nothing; the parts of a key are joined by two \
                 underscores: TIDEGATE_LISTEN__HTTP",
                "environment variable TIDEGATE_LISTEN__HTTPP: unknown key `listen.httpp`; did you mean `http`?",
            ],
        );
    }
}
