//! `[[routes]]`: where requests go.

use crate::config::backends::Backend;
use crate::config::read::retry_buffer;
use crate::document::{Placed, Section, boolean, parsed, string};
use crate::flag::{BackendName, FlagKey};
use crate::proxy::{RouteConfig, RouteRescue, Target};

pub(crate) fn routes(root: &mut Section<'_>, backends: &[Backend]) -> Vec<RouteConfig> {
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
    let rescue = RouteRescue {
        enabled: section.optional("rescue", boolean).map(|placed| placed.value),
        retry_buffer: section.optional("retry_buffer", retry_buffer).map(|placed| placed.value),
    };
    section.finish();
    Some(RouteConfig { host: host.map(|host| host.value), path: path?.value, target: target?, rescue })
}
