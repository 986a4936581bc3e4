//! The admin API, as the command line asks it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::header::{AUTHORIZATION, IF_MATCH};
use ureq::http::{HeaderValue, Request, Response};
use ureq::middleware::MiddlewareNext;
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder, SendBody};

use crate::admin::ACTOR_HEADER;
use crate::api::{
    BetaEdit, BetaPage, ChainReport, Change, Changed, Diffs, EventList, Explanation, FlagList, FlagStatus, FlagdExport,
    InstanceList, Problem, Readiness, Reloaded, SecondList, Why,
};
use crate::cli::AdminArgs;
use crate::flag::{FlagKey, Percentage};

/// Longer than the admin API takes for anything, a failing store included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// No answer is longer: an export with beta lists by the million has some hundred megabytes.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024 * 1024;

/// One gateway's admin API.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    pub(crate) json: bool,
}

impl Client {
    pub(crate) fn new(args: &AdminArgs) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        let token = args.token.as_ref().map(|token| format!("Bearer {token}"));
        let config = config
            .middleware(move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
                if let Some(Ok(token)) = token.as_deref().map(HeaderValue::from_str) {
                    request.headers_mut().insert(AUTHORIZATION, token);
                }
                next.handle(request)
            })
            .build();
        Self { agent: config.into(), base: args.admin.trim_end_matches('/').to_owned(), json: args.json }
    }

    pub(crate) fn readiness(&self) -> anyhow::Result<Readiness> {
        let mut response = self.sent(self.agent.get(self.url("/ready")).call())?;
        // A gateway that is not ready says so with 503 and the same document.
        response.body_mut().read_json().with_context(|| format!("{} is no Tidegate admin API", self.base))
    }

    pub(crate) fn instances(&self) -> anyhow::Result<InstanceList> {
        self.answer(self.agent.get(self.url("/api/v1/instances")).call())
    }

    pub(crate) fn flags(&self) -> anyhow::Result<FlagList> {
        self.answer(self.agent.get(self.url("/api/v1/flags")).call())
    }

    pub(crate) fn flag(&self, key: &FlagKey) -> anyhow::Result<FlagStatus> {
        self.answer(self.agent.get(self.url(&format!("/api/v1/flags/{key}"))).call())
    }

    pub(crate) fn why(&self, key: &FlagKey) -> anyhow::Result<Option<Why>> {
        self.answer(self.agent.get(self.url(&format!("/api/v1/flags/{key}/why"))).call())
    }

    pub(crate) fn reload(&self, actor: Option<&str>) -> anyhow::Result<Reloaded> {
        let request = self.agent.post(self.url("/api/v1/config/reload"));
        self.answer(request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_empty())
    }

    pub(crate) fn diffs(&self, key: &FlagKey) -> anyhow::Result<Diffs> {
        self.answer(self.agent.get(self.url(&format!("/api/v1/flags/{key}/diffs"))).call())
    }

    pub(crate) fn explain(&self, key: &FlagKey, parts: &[(String, String)]) -> anyhow::Result<Explanation> {
        let request = self.agent.get(self.url(&format!("/api/v1/flags/{key}/explain")));
        let request = parts.iter().fold(request, |request, (part, value)| request.query(part, value));
        self.answer(request.call())
    }

    pub(crate) fn export(&self, flags: &[FlagKey]) -> anyhow::Result<FlagdExport> {
        let request = self.agent.get(self.url("/api/v1/export/flagd"));
        self.answer(flags.iter().fold(request, |request, flag| request.query("flag", flag.as_str())).call())
    }

    pub(crate) fn verify(&self, noted: Option<&str>) -> anyhow::Result<ChainReport> {
        let request = self.agent.get(self.url("/api/v1/events/verify"));
        self.answer(noted.into_iter().fold(request, |request, hash| request.query("hash", hash)).call())
    }

    /// A page of events: the newest, or those `before` or `after` one, as `from` says.
    pub(crate) fn events(
        &self,
        flag: Option<&FlagKey>,
        from: Option<(&str, i64)>,
        limit: u32,
    ) -> anyhow::Result<EventList> {
        let mut request = self.agent.get(self.url("/api/v1/events")).query("limit", limit.to_string());
        if let Some((direction, id)) = from {
            request = request.query(direction, id.to_string());
        }
        if let Some(flag) = flag {
            request = request.query("flag", flag.as_str());
        }
        self.answer(request.call())
    }

    /// What was counted of a release second by second, from `since` (in seconds since 1970) on.
    pub(crate) fn seconds(
        &self,
        flag: &FlagKey,
        release: Option<&str>,
        since: Option<i64>,
    ) -> anyhow::Result<SecondList> {
        let request = self.agent.get(self.url(&format!("/api/v1/flags/{flag}/seconds")));
        let request = since.into_iter().fold(request, |request, since| request.query("since", since.to_string()));
        let request = release.into_iter().fold(request, |request, release| request.query("release", release));
        self.answer(request.call())
    }

    pub(crate) fn set(
        &self,
        key: &FlagKey,
        percentage: Percentage,
        reason: Option<&str>,
        actor: Option<&str>,
        expected: Option<u64>,
    ) -> anyhow::Result<Changed> {
        let percentage = Some(percentage.as_percent());
        self.patch(key, Change { percentage, reason: reason.map(str::to_owned), ..Change::default() }, actor, expected)
    }

    pub(crate) fn edit_beta(
        &self,
        key: &FlagKey,
        edit: BetaEdit,
        reason: Option<&str>,
        actor: Option<&str>,
    ) -> anyhow::Result<Changed> {
        let change = Change { beta: Some(edit), reason: reason.map(str::to_owned), ..Change::default() };
        self.patch(key, change, actor, None)
    }

    pub(crate) fn beta(&self, key: &FlagKey, cursor: Option<&str>, limit: usize) -> anyhow::Result<BetaPage> {
        let request = self.agent.get(self.url(&format!("/api/v1/flags/{key}/beta"))).query("limit", limit.to_string());
        self.answer(cursor.into_iter().fold(request, |request, cursor| request.query("cursor", cursor)).call())
    }

    fn patch(
        &self,
        key: &FlagKey,
        change: Change,
        actor: Option<&str>,
        expected: Option<u64>,
    ) -> anyhow::Result<Changed> {
        let request = only_if(self.agent.patch(self.url(&format!("/api/v1/flags/{key}"))), expected);
        self.answer(request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_json(change))
    }

    pub(crate) fn act(
        &self,
        action: &str,
        key: &FlagKey,
        percentage: Option<Percentage>,
        reason: Option<&str>,
        actor: Option<&str>,
        expected: Option<u64>,
    ) -> anyhow::Result<Changed> {
        let percentage = percentage.map(Percentage::as_percent);
        let change = Change { percentage, reason: reason.map(str::to_owned), ..Change::default() };
        let request = only_if(self.agent.post(self.url(&format!("/api/v1/flags/{key}/{action}"))), expected);
        self.answer(request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_json(change))
    }

    /// The gateway's address, as it was given.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn answer<T: DeserializeOwned + Serialize>(
        &self,
        result: Result<Response<Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let base = &self.base;
        let mut response = self.sent(result)?;
        if response.status().is_success() {
            let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
            return body.read_json().with_context(|| format!("{base} is no Tidegate admin API"));
        }
        match response.body_mut().read_json::<Problem>() {
            Ok(problem) => bail!("{}", problem.detail),
            Err(_) => bail!("{base} is no Tidegate admin API: it answered {}", response.status()),
        }
    }

    fn sent(&self, result: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        let base = &self.base;
        result.with_context(|| {
            format!("no gateway answers at {base}; is `tidegate serve` running? `--admin URL` names another")
        })
    }
}

/// The change is meant only for the generation `expected`, if one is named.
fn only_if(request: RequestBuilder<WithBody>, expected: Option<u64>) -> RequestBuilder<WithBody> {
    expected.into_iter().fold(request, |request, generation| request.header(IF_MATCH, format!("\"{generation}\"")))
}
