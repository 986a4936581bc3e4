//! `[backends.*]`: what serves, and how it is reached.

use std::net::ToSocketAddrs as _;

use crate::backend::Mode;
use crate::config::read::{retry_buffer, share, some_time};
use crate::diagnostic::Place;
use crate::document::{Placed, Section, boolean, integer, parsed, strings};
use crate::flag::{BackendName, NameError};
use crate::proxy::{BudgetConfig, RescueConfig, Server, Timeouts};

/// A backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Its name, which is also the variant's.
    pub name: BackendName,
    /// What it is.
    pub kind: BackendKind,
    /// How long each step of an exchange may take.
    pub timeouts: Timeouts,
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

pub(crate) fn backend((name, mut section): (Placed<String>, Section<'_>)) -> Option<Backend> {
    let problems = section.problems();
    let parsed_name: Result<BackendName, NameError> = name.value.parse();
    if let Err(error) = &parsed_name {
        problems.report(&name.place, format!("a backend cannot be named `{}`: {error}", name.value));
    }
    let builtin = section.optional("builtin", parsed::<Mode>);
    let servers = section.optional("servers", strings);
    let timeouts = section.section("timeouts").map_or_else(Timeouts::default, timeouts);
    let rescue = rescue(&mut section);
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
    Some(Backend { name: parsed_name.ok()?, kind: kind?, timeouts, rescue })
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
