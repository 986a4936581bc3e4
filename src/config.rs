//! tidegate.toml and the environment become one checked [`Config`].
//!
//! Every problem is reported, each with its place. The defaults are a document too, `config/defaults.toml`, so that there
//! is one place to look them up and the environment can change a part of them.

mod admin;
mod ai;
mod backends;
mod database;
mod environment;
mod flags;
mod identity;
mod limits;
mod listen;
mod notify;
mod read;
mod routes;
mod seeing;
mod store;

use std::path::Path;
use std::{fs, io};

use crate::backend::AiConfig;
use crate::diagnostic::Diagnostic;
use crate::document::{Document, Problems, Section};
use crate::downstream::Limits;
use crate::flag_file::Expectations;
use crate::notify::Channel;
use crate::proxy::{IdentityConfig, RouteConfig, Target};
use crate::store::Config as StoreConfig;
use crate::telemetry::{AccessLogConfig, TracingConfig};

pub use crate::config::admin::Admin;
pub use crate::config::backends::{Backend, BackendKind};
pub use crate::config::database::Database;
pub use crate::config::environment::{Variable, environment, notify_socket};
pub use crate::config::flags::Flags;
pub use crate::config::listen::{Https, Listen};

/// The file that is read if none is named and it is there.
pub const DEFAULT_PATH: &str = "tidegate.toml";

const DEFAULTS: &str = include_str!("config/defaults.toml");

/// The tables that a file replaces as a whole.
const REPLACED_AS_A_WHOLE: [&str; 2] = ["backends", "routes"];

/// Everything that `tidegate serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Who may use the admin API.
    pub admin: Admin,
    /// Where targeting keys come from.
    pub identity: IdentityConfig,
    /// What clients may take of the gateway.
    pub limits: Limits,
    /// Where the flags are.
    pub flags: Flags,
    /// Where rollouts and the audit trail are kept.
    pub store: StoreConfig,
    /// The backends, by name.
    pub backends: Vec<Backend>,
    /// What the built-in handlers use.
    pub database: Database,
    /// What the built-in handlers ask for analyses and questions, if anything.
    pub ai: Option<AiConfig>,
    /// What is logged of requests, and where.
    pub access_log: AccessLogConfig,
    /// Which requests are traced, and who is told.
    pub tracing: TracingConfig,
    /// Who is told of what happens.
    pub notify: Vec<Channel>,
    /// Where requests go.
    pub routes: Vec<RouteConfig>,
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
    let admin = root.section("admin").map(admin::admin).unwrap_or_default();
    let listen = root.section("listen").and_then(|section| listen::listen(section, &admin));
    let identity = root.section("identity").and_then(identity::identity);
    let limits = root.section("limits").and_then(limits::limits);
    let flags = root.section("flags").and_then(flags::flags);
    let store = root.section("store").and_then(store::store);
    let backends: Vec<_> = root.named_sections("backends").into_iter().filter_map(backends::backend).collect();
    let database = root.section("database").and_then(database::database);
    let access_log = root.section("access_log").and_then(seeing::access_log);
    let tracing = root.section("tracing").and_then(seeing::tracing);
    let ai = root.section("ai").and_then(ai::ai);
    let notify = root.named_sections("notify").into_iter().filter_map(notify::channel).collect();
    let routes = routes::routes(&mut root, &backends);
    root.finish();
    Some(Config {
        listen: listen?,
        admin,
        identity: identity?,
        limits: limits?,
        flags: flags?,
        store: store?,
        backends,
        database: database?,
        ai,
        access_log: access_log?,
        tracing: tracing?,
        notify,
        routes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Mode, PoolConfig};
    use crate::proxy::Timeouts;
    use std::time::Duration;

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
        assert_eq!(
            backend.timeouts,
            Timeouts { connect: Duration::from_secs(1), read: Duration::from_secs(2), ..Timeouts::default() }
        );
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
        assert_eq!(sync.kind, BackendKind::Servers(vec!["127.0.0.1:9".parse().unwrap()]));
        let config = load("", &[("TIDEGATE_ROUTES", "[{ path = \"/\", backend = \"async\" }]")]).unwrap();
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        check(
            "[listen]\nhttp = 8080\nadmin = \"0.0.0.0:8081\"\nhtps = {}\n[store]\nurl = \"redis://x\"\n\
             [identity]\nsources = [\"header:x y\", \"jwt:\"]\n[backends.Sync]\nbuiltin = \"sync\"\n\
             [backends.app]\n[[routes]]\npath = \"api\"\nbackend = \"ap\"\n[cache]\n",
            &[],
            &[
                "tidegate.toml:2:8: `listen.http`: wants a string, not an integer",
                "tidegate.toml:3:9: `listen.admin`: 0.0.0.0:8081 can be reached from outside, and without tokens \
                 whoever does may change rollouts; name a `token_file` under `[admin]`, or use a loopback address like \
                 127.0.0.1:8081",
                "tidegate.toml:4:1: unknown key `listen.htps`; did you mean `https`?",
                "tidegate.toml:8:11: `sources`: \"header:x y\": there can be no header or cookie of that name",
                "tidegate.toml:8:11: `sources`: \"jwt:\": a source is \"header:NAME\", \"cookie:NAME\", \"jwt:CLAIM\", \
                 \"query:NAME\" or \"client-ip\"",
                "tidegate.toml:6:7: `store.url`: a store is sqlite:// and the path of a file, or \
                 postgres://USER:PASSWORD@HOST/DATABASE",
                "tidegate.toml:9:11: a backend cannot be named `Sync`: a name is 1 to 63 of a-z, 0-9 and `-`, and \
                 begins with a letter or a digit",
                "tidegate.toml:11:1: a backend has either `builtin = \"sync\"` or `\"async\"`, or `servers = \
                 [\"host:port\"]`",
                "tidegate.toml:13:8: `routes.path`: \"api\" is no path: write one that begins with `/`",
                "tidegate.toml:14:11: no backend is named `ap`; there are: ",
                "tidegate.toml:15:2: unknown key `cache`; known here: admin, listen, identity, limits, flags, store, backends, \
                 database, access_log, tracing, ai, notify, routes",
            ],
        );
    }

    #[test]
    fn an_address_from_outside_needs_tokens() {
        let text = "[listen]\nadmin = \"0.0.0.0:8081\"\n[admin]\ntoken_file = \"tokens.toml\"\n";
        assert_eq!(load(text, &[]).unwrap().admin.token_file, Some("tokens.toml".into()));
        check(
            "[admin.tokens.Ann]\nrole = \"boss\"\nhash = \"123456\"\n[admin.tokens.file]\nrole = \"viewer\"\n",
            &[],
            &[
                "tidegate.toml:1:15: `Ann`: a token's name is 1 to 63 of a-z, 0-9, `.`, `_`, `@` and `-`, and begins with a \
                 letter or a digit",
                "tidegate.toml:2:8: `admin.tokens.Ann.role`: \"boss\": a role is `viewer`, `tester` or `operator`",
                "tidegate.toml:3:8: `admin.tokens.Ann.hash`: a hash is `sha256:` and 64 hexadecimal digits, as `tidegate \
                 token new` writes it",
                "tidegate.toml:4:15: `file`: `file`, `judge`, `local`, `ramp` and `tidegate` are actors of their own; choose \
                 another name",
                "tidegate.toml:4:1: `admin.tokens.file.hash` is missing; add `hash = \"sha256:…\"`",
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
