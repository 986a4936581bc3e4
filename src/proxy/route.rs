//! Which flag or backend a request goes to, by host and path.

use crate::flag::{BackendName, FlagKey, without_port};
use crate::proxy::rescue::RouteRescue;

/// A route as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// The host that it is for; `None` is for any.
    pub host: Option<String>,
    /// The path, and everything below it.
    pub path: String,
    /// Where its requests go.
    pub target: Target,
    /// What is done about the canary's failures, where it is otherwise than the backends say.
    pub rescue: RouteRescue,
}

/// Where a route's requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To one of the two backends of a flag, as it decides.
    Flag(FlagKey),
    /// Always to this backend.
    Backend(BackendName),
}

/// Every route, best first.
#[derive(Debug)]
pub(crate) struct RouteTable {
    routes: Vec<RouteConfig>,
}

impl RouteTable {
    /// A route for the request's own host goes before one for any; then the longest path.
    pub(crate) fn new(mut routes: Vec<RouteConfig>) -> Self {
        routes.sort_by_key(|route| (route.host.is_none(), std::cmp::Reverse(trimmed(&route.path).len())));
        Self { routes }
    }

    /// The routes that match, best first.
    pub(crate) fn matching<'t>(&'t self, host: Option<&str>, path: &str) -> impl Iterator<Item = &'t RouteConfig> {
        let host = host.map(without_port);
        self.routes.iter().filter(move |route| {
            let host_matches = match (&route.host, host) {
                (None, _) => true,
                (Some(wanted), Some(host)) => wanted.eq_ignore_ascii_case(host),
                (Some(_), None) => false,
            };
            host_matches && is_below(path, &route.path)
        })
    }
}

/// Whether `path` is `prefix` or below it. Whole segments count, and a slash at the end of the prefix does not: `/api`
/// is above `/api/v1` and not above `/apiary` (Kubernetes Gateway API, `PathPrefix`).
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(trimmed(prefix)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn trimmed(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: &str, backend: &str) -> RouteConfig {
        let target = Target::Backend(backend.parse().unwrap());
        RouteConfig { host: host.map(str::to_owned), path: path.to_owned(), target, rescue: RouteRescue::default() }
    }

    #[track_caller]
    fn check(host: Option<&str>, path: &str, expected: Option<&str>) {
        let table = RouteTable::new(vec![
            route(None, "/", "root"),
            route(None, "/api", "api"),
            route(None, "/api/v1/", "v1"),
            route(Some("Example.com"), "/api", "example"),
            route(Some("[::1]"), "/", "six"),
        ]);
        let found = table.matching(host, path).next().map(|route| match &route.target {
            Target::Backend(name) => name.as_str(),
            Target::Flag(key) => key.as_str(),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn the_host_comes_before_the_longest_path() {
        check(None, "/", Some("root"));
        check(None, "/api", Some("api"));
        check(None, "/apiary", Some("root"));
        check(None, "/api/v1", Some("v1"));
        check(None, "/api/v1/parse-jd", Some("v1"));
        check(None, "/api/v10", Some("api"));
        check(Some("other.test:8080"), "/api/v1/x", Some("v1"));
        check(Some("example.com:8080"), "/api/v1/x", Some("example"));
        check(Some("EXAMPLE.COM"), "/x", Some("root"));
        check(Some("[::1]:8080"), "/api/v1/x", Some("six"));
        check(Some("[::1]"), "/x", Some("six"));
        check(None, "*", None);
    }
}
