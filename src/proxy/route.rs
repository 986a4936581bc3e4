//! Which flag or backend a request goes to, by host and path.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::downstream::Refusal;
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
    /// How many requests may be under way on it; `None` leaves it to `[limits]`.
    pub in_flight: Option<usize>,
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

/// A route in use.
#[derive(Debug)]
pub(crate) struct Route {
    host: Option<String>,
    pub(crate) target: Target,
    pub(crate) rescue: RouteRescue,
    most_in_flight: usize,
    places: Arc<Places>,
}

/// A route's path, and how many requests are under way on it.
#[derive(Debug)]
struct Places {
    path: String,
    taken: AtomicUsize,
}

/// The place of one request under way on a route, free again once it is dropped.
#[derive(Debug)]
pub(crate) struct RoutePlace(Arc<Places>);

impl RoutePlace {
    /// The route's path.
    pub(crate) fn path(&self) -> &str {
        &self.0.path
    }
}

impl Drop for RoutePlace {
    fn drop(&mut self) {
        // Relaxed: the number alone matters.
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Route {
    /// A place for one more request.
    pub(crate) fn take_place(&self) -> Result<RoutePlace, Refusal> {
        // Relaxed: as above.
        let place = RoutePlace(Arc::clone(&self.places));
        if self.places.taken.fetch_add(1, Ordering::Relaxed) >= self.most_in_flight {
            return Err(Refusal::RouteFull);
        }
        Ok(place)
    }
}

/// Every route, best first.
#[derive(Debug)]
pub(crate) struct RouteTable {
    routes: Vec<Route>,
}

impl RouteTable {
    /// A route for the request's own host goes before one for any; then the longest path. A route that does not say how
    /// many requests may be under way on it has `most_in_flight`. Requests under way on a route that was there `before` count.
    pub(crate) fn new(mut routes: Vec<RouteConfig>, most_in_flight: usize, before: Option<&Self>) -> Self {
        let places = |route: &RouteConfig| {
            let mut known = before.into_iter().flat_map(|table| &table.routes);
            let same = known.find(|known| (&known.host, &known.places.path) == (&route.host, &route.path));
            let new = || Arc::new(Places { path: route.path.clone(), taken: AtomicUsize::new(0) });
            same.map_or_else(new, |known| Arc::clone(&known.places))
        };
        routes.sort_by_key(|route| (route.host.is_none(), std::cmp::Reverse(trimmed(&route.path).len())));
        let in_use = |route: RouteConfig| Route {
            places: places(&route),
            host: route.host,
            target: route.target,
            rescue: route.rescue,
            most_in_flight: route.in_flight.unwrap_or(most_in_flight),
        };
        Self { routes: routes.into_iter().map(in_use).collect() }
    }

    /// The routes that match, best first. The path has to be in its plain form.
    pub(crate) fn matching<'t>(&'t self, host: Option<&str>, path: &str) -> impl Iterator<Item = &'t Route> {
        let host = host.map(without_port);
        self.routes.iter().filter(move |route| {
            let host_matches = match (&route.host, host) {
                (None, _) => true,
                (Some(wanted), Some(host)) => wanted.eq_ignore_ascii_case(host),
                (Some(_), None) => false,
            };
            host_matches && is_below(path, &route.places.path)
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

/// The form of `path` that routes are held against: decoded once, and without empty segments, as lenient backends read
/// it. So nobody comes past a route by writing its path differently; what the backend is sent stays as it was.
///
/// # Errors
///
/// If readers differ over where such a path leads: it has `.` or `..` for a segment, a backslash, or what cannot be
/// decoded.
pub(crate) fn plain(path: &str) -> Result<Cow<'_, str>, Refusal> {
    let ambiguous =
        Refusal::Malformed("the path can be read in two ways: write it without `.`, `..` and `\\`, decoded");
    let mut before = 0;
    let is_plain = |byte: u8| {
        let pair = (std::mem::replace(&mut before, byte), byte);
        !matches!(pair, (_, b'%' | b'\\') | (b'/', b'/' | b'.'))
    };
    if path.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err(ambiguous) };
            u8::try_from(high * 16 + low).map_err(|_| ambiguous)?
        } else {
            byte
        };
        if byte == b'\\' || byte.is_ascii_control() {
            return Err(ambiguous);
        }
        if byte != b'/' || decoded.last() != Some(&b'/') {
            decoded.push(byte);
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| ambiguous)?;
    // Some servers take what follows a semicolon for a parameter of the segment.
    let names = decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    if names.into_iter().any(|name| name == "." || name == "..") {
        return Err(ambiguous);
    }
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: &str, backend: &str) -> RouteConfig {
        let target = Target::Backend(backend.parse().unwrap());
        RouteConfig {
            host: host.map(str::to_owned),
            path: path.to_owned(),
            target,
            in_flight: None,
            rescue: RouteRescue::default(),
        }
    }

    #[track_caller]
    fn check(host: Option<&str>, path: &str, expected: Option<&str>) {
        let table = RouteTable::new(
            vec![
                route(None, "/", "root"),
                route(None, "/api", "api"),
                route(None, "/api/v1/", "v1"),
                route(Some("Example.com"), "/api", "example"),
                route(Some("[::1]"), "/", "six"),
            ],
            1,
            None,
        );
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

    #[track_caller]
    fn check_plain(path: &str, expected: Option<&str>) {
        assert_eq!(plain(path).ok().as_deref(), expected, "{path}");
    }

    #[test]
    fn a_path_has_one_plain_form_or_is_refused() {
        for same in ["/", "*", "/api/v1/x", "/a.b/c..d", "/a;b=c/d", "/~x"] {
            check_plain(same, Some(same));
        }
        for other in ["//api/v1", "/api//v1", "/%61pi/v1", "/api%2Fv1", "/api/%2fv1", "/api/%76%31", "///api///v1"] {
            check_plain(other, Some("/api/v1"));
        }
        check_plain("/.well-known/x", Some("/.well-known/x"));
        check_plain("/100%25", Some("/100%"));
        check_plain("/%252e%252e/x", Some("/%2e%2e/x"));
        check_plain("/j%C3%B6rg", Some("/jörg"));
        for refused in [
            "/../api",
            "/x/../api",
            "/./api",
            "/x/..",
            "/x/.",
            "/%2e%2e/api",
            "/.%2E/api",
            "/x%2f..%2fapi",
            "/..;a=b/api",
            "/.;/api",
            "/a\\b",
            "/a%5cb",
            "/a%00b",
            "/a%0ab",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%ff",
        ] {
            check_plain(refused, None);
        }
    }

    #[test]
    fn a_route_has_so_many_places() {
        let table = RouteTable::new(vec![RouteConfig { in_flight: Some(2), ..route(None, "/", "root") }], 1, None);
        let taken = table.matching(None, "/").next().unwrap();
        let (first, second) = (taken.take_place().unwrap(), taken.take_place().unwrap());
        assert_eq!(taken.take_place().err(), Some(Refusal::RouteFull));
        let again = RouteTable::new(vec![route(None, "/", "root")], 2, Some(&table));
        let same = again.matching(None, "/").next().unwrap();
        assert_eq!(same.take_place().err(), Some(Refusal::RouteFull), "those under way before count");
        drop(first);
        assert!(same.take_place().is_ok() && taken.take_place().is_ok());
        drop(second);
    }
}
