//! The decision: route, identity, flag and backend of a request, once, on one snapshot.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use http::HeaderName;
use http::header::HOST;
use http::request::Parts;

use crate::access::Role;
use crate::api::Problem;
use crate::clock;
use crate::downstream::Refusal;
use crate::flag::{Arm, EvaluationContext, MAX_TARGETING_KEY_BYTES, Moment, Reason, evaluate};
use crate::proxy::attributes::ProxiedRequest;
use crate::proxy::context::{Context, Decision};
use crate::proxy::forwarded::is_secure;
use crate::proxy::rescue::fallback;
use crate::proxy::route::plain;
use crate::proxy::shadow::{Original, can_be_copied, is_open};
use crate::proxy::upstream::Upstream;
use crate::proxy::{Gateway, OVERRIDE_HEADER, TOKEN_HEADER, Target};
use crate::recorder::{Party, RecordedFlag, Unit};

const OVERRIDE: HeaderName = HeaderName::from_static(OVERRIDE_HEADER);
const TOKEN: HeaderName = HeaderName::from_static(TOKEN_HEADER);

/// How a request is to be proxied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By pingora, which can do all that there is to do.
    Phases,
    /// By the gateway itself, which can do it where client and backend both speak plain HTTP/1.1 and nothing is copied.
    Direct,
}

/// What became of a request that could be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is decided, and the context knows the upstream.
    Decided,
    /// Nothing is decided: it has to go another way.
    Elsewhere,
}

impl Gateway {
    /// Routes and decides. If there is no upstream for it, says why.
    pub(crate) fn decide(&self, request: &Parts, way: Way, context: &mut Context) -> Result<Taken, Problem> {
        let path = plain(request.uri.path()).map_err(Refusal::problem)?;
        let mut missing_flag = None;
        let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| request.uri.host());
        let settings = Arc::clone(&context.settings);
        let flags = self.flags.load();
        for route in settings.routes.matching(host, &path) {
            match &route.target {
                Target::Backend(backend) => {
                    let upstream = settings.upstreams.get(backend);
                    if way == Way::Direct && !is_plain(&upstream) {
                        return Ok(Taken::Elsewhere);
                    }
                    context.place = Some(route.take_place().map_err(Refusal::problem)?);
                    context.upstream = upstream;
                    if context.upstream.as_ref().is_some_and(|upstream| upstream.balances_by_key()) {
                        let identified = settings.identity.identify(request, context.client, context.client_is_trusted);
                        context.key = identified.key().map(key_hash);
                    }
                    return Ok(Taken::Decided);
                }
                Target::Flag(key) => {
                    // A flag that could not be loaded at start-up decides nothing: the next best route serves.
                    let Some(entry) = flags.get(key) else {
                        missing_flag = missing_flag.or(Some(key));
                        continue;
                    };
                    let backend = |arm| self.policy.upstream(&settings, entry.flag.backend(arm));
                    let (stable, canary) = (backend(Arm::Stable), backend(Arm::Canary));
                    let is_simple = entry.flag.shadow.is_none() && is_plain(&stable) && is_plain(&canary);
                    if way == Way::Direct && !is_simple {
                        return Ok(Taken::Elsewhere);
                    }
                    context.place = Some(route.take_place().map_err(Refusal::problem)?);
                    let identified = settings.identity.identify(request, context.client, context.client_is_trusted);
                    let asked = EvaluationContext {
                        targeting_key: identified.key(),
                        now: Moment::from_unix_millis(clock::wall().as_millisecond()),
                        attributes: &ProxiedRequest {
                            request,
                            host,
                            identity: &settings.identity,
                            peer: context.client,
                            peer_is_trusted: context.client_is_trusted,
                        },
                        chosen: self.chosen(request),
                    };
                    let evaluation = evaluate(&entry.flag, &entry.rollout, &asked);
                    if identified.key().is_some_and(|key| key.len() > MAX_TARGETING_KEY_BYTES) {
                        entry.attached.note_long_key();
                    }
                    let drawn = evaluation.reason == Reason::Percentage;
                    context.key = identified.key().map(key_hash);
                    let party = Party { unit: context.key.map(Unit::from_hash), drawn };
                    let secure = is_secure(request, context.tls, context.client_is_trusted);
                    context.new_anonymous = settings.identity.new_cookie(&identified, secure);
                    context.upstream = match evaluation.arm {
                        Arm::Stable => stable.clone(),
                        Arm::Canary => canary.clone(),
                    };
                    if evaluation.arm == Arm::Stable {
                        context.original = self.original(request, entry, canary, context.key);
                    }
                    if let Some(stable) = &stable {
                        stable.budget().count(context.started());
                    }
                    if let (Arm::Canary, Some(canary), Some(stable)) = (evaluation.arm, &context.upstream, stable) {
                        if canary.is_available() {
                            context.fallback = fallback(canary, stable, route.rescue);
                        } else {
                            context.upstream = Some(stable);
                            context.diverted = true;
                        }
                    }
                    context.decision =
                        Some(Decision { entry: Arc::clone(entry), evaluation, set_version: flags.version(), party });
                    return Ok(Taken::Decided);
                }
            }
        }
        Err(match missing_flag {
            Some(key) => {
                let detail = format!("the flag `{key}` is not loaded, and no other route serves this path");
                Problem::new(503, "flag-not-loaded", "Flag not loaded", detail)
            }
            None => Problem::new(404, "no-route", "No route", "no route of this gateway matches host and path"),
        })
    }

    /// The request, which stable answers, if the canary is to get a copy of it.
    fn original(
        &self,
        request: &Parts,
        entry: &Arc<RecordedFlag>,
        canary: Option<Arc<Upstream>>,
        key: Option<u64>,
    ) -> Option<Box<Original>> {
        let flag = &entry.flag;
        let shadow = flag.shadow.as_ref().filter(|shadow| shadow.copies(request.method.as_str()))?;
        if !is_open(entry) || !can_be_copied(request) {
            return None;
        }
        let canary = canary.filter(|canary| canary.is_available())?;
        let leave = self.shadows.begin(flag, entry.rollout.generation, shadow)?;
        Some(Box::new(Original::new(Arc::clone(entry), leave, canary, key)))
    }

    /// The arm that the request asks for, if it shows a token that may.
    fn chosen(&self, request: &Parts) -> Option<Arm> {
        let asked = request.headers.get(OVERRIDE)?;
        let arm = Arm::BOTH.into_iter().find(|arm| arm.as_str().as_bytes() == asked.as_bytes())?;
        let token = self.access.find(request.headers.get(TOKEN)?.to_str().ok()?)?;
        (token.role >= Role::Tester).then_some(arm)
    }
}

fn is_plain(upstream: &Option<Arc<Upstream>>) -> bool {
    upstream.as_ref().is_some_and(|upstream| upstream.is_plain())
}

/// The user as the comparison of the arms and the choice of a server know them. The hash is another than the bucket's, or
/// the users of a small canary, who are neighbours in theirs, would be hard to tell apart.
fn key_hash(targeting_key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    targeting_key.hash(&mut hasher);
    hasher.finish()
}
