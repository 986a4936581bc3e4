//! The admin API, as the command line asks it.

use std::io::{self, ErrorKind, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::header::{AUTHORIZATION, IF_MATCH};
use ureq::http::{HeaderValue, Request, Response, StatusCode};
use ureq::middleware::MiddlewareNext;
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder, SendBody};
use uuid::Uuid;

use crate::admin::{ACTOR_HEADER, KEY_HEADER, UNDER_WAY};
use crate::api::{
    ApprovalList, BetaEdit, BetaPage, ChainReport, Change, Changed, Diffs, EventList, Explanation, FlagList,
    FlagStatus, FlagdExport, InstanceList, Problem, Readiness, Reloaded, SecondList, Why,
};
use crate::cli::{AdminArgs, trust};
use crate::clock;
use crate::flag::{FlagKey, Percentage};

/// Longer than the admin API takes for anything, a failing store included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For how long a change is asked for again after its connection broke: longer than a gateway takes to be started anew.
const PERSISTENCE: Duration = Duration::from_secs(10);

/// How long it is waited before that.
const PAUSE: Duration = Duration::from_millis(250);

/// Told of a change of which nobody said what became of it.
const UNKNOWN: &str = "the connection broke, and it is not known whether the change was made; `tidegate status` tells";

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
    /// What asks the admin API that `args` name.
    ///
    /// # Errors
    ///
    /// If a file with a certificate cannot be used.
    pub(crate) fn new(args: &AdminArgs) -> anyhow::Result<Self> {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        let config = match trust::tls(args)? {
            Some(tls) => config.tls_config(tls),
            None => config,
        };
        let token = args.token.as_ref().map(|token| format!("Bearer {token}"));
        let config = config
            .middleware(move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
                if let Some(Ok(token)) = token.as_deref().map(HeaderValue::from_str) {
                    request.headers_mut().insert(AUTHORIZATION, token);
                }
                next.handle(request)
            })
            .build();
        Ok(Self { agent: config.into(), base: args.admin.trim_end_matches('/').to_owned(), json: args.json })
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
        self.once(|key| {
            let request = self.agent.post(self.url("/api/v1/config/reload")).header(KEY_HEADER, key);
            request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_empty()
        })
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
        let url = self.url(&format!("/api/v1/flags/{key}"));
        self.once(|once| {
            let request = only_if(self.agent.patch(&url), expected).header(KEY_HEADER, once);
            request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_json(&change)
        })
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
        let url = self.url(&format!("/api/v1/flags/{key}/{action}"));
        self.once(|once| {
            let request = only_if(self.agent.post(&url), expected).header(KEY_HEADER, once);
            request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_json(&change)
        })
    }

    pub(crate) fn approvals(&self, flag: Option<&FlagKey>) -> anyhow::Result<ApprovalList> {
        let request = self.agent.get(self.url("/api/v1/approvals"));
        self.answer(flag.into_iter().fold(request, |request, flag| request.query("flag", flag.as_str())).call())
    }

    /// Has done what another operator asked for.
    pub(crate) fn approve(
        &self,
        key: &FlagKey,
        id: &str,
        reason: Option<&str>,
        actor: Option<&str>,
    ) -> anyhow::Result<Changed> {
        let change = Change { reason: reason.map(str::to_owned), ..Change::default() };
        let url = self.waiting(key, id)?;
        self.once(|once| {
            let request = self.agent.post(&url).header(KEY_HEADER, once);
            request.header(ACTOR_HEADER, actor.unwrap_or_default()).send_json(&change)
        })
    }

    pub(crate) fn withdraw(&self, key: &FlagKey, id: &str, actor: Option<&str>) -> anyhow::Result<()> {
        let request = self.agent.delete(self.waiting(key, id)?).header(ACTOR_HEADER, actor.unwrap_or_default());
        let mut response = self.sent(request.call())?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        self.outcome::<Changed>(&mut response)?.map_err(|problem| anyhow!("{}", problem.detail)).map(drop)
    }

    fn waiting(&self, key: &FlagKey, id: &str) -> anyhow::Result<String> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("nothing waits as `{id}`; `tidegate approvals` lists what does");
        }
        Ok(self.url(&format!("/api/v1/flags/{key}/approvals/{id}")))
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
        self.outcome(&mut self.sent(result)?)?.map_err(|problem| anyhow!("{}", problem.detail))
    }

    /// Asks for a change with a key of its own, and again under the same if the connection broke: it is made once.
    fn once<T: DeserializeOwned + Serialize>(
        &self,
        ask: impl Fn(&str) -> Result<Response<Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let key = Uuid::new_v4().to_string();
        let mut given_up_at = None;
        loop {
            let problem = match ask(&key) {
                Ok(mut response) => match self.outcome(&mut response)? {
                    Err(problem) if given_up_at.is_some() && problem.is_of(UNDER_WAY) => anyhow!("{}", problem.detail),
                    outcome => return outcome.map_err(|problem| anyhow!("{}", problem.detail)),
                },
                Err(error) if given_up_at.is_some() || may_have_arrived(&error) => anyhow!(error),
                Err(error) => return Err(self.nobody(error)),
            };
            let now = clock::now();
            if given_up_at.is_none() {
                // If standard error is gone, there is nobody to tell.
                let _ = writeln!(io::stderr(), "tidegate: the connection broke; asking again, so that it is done once");
            }
            if *given_up_at.get_or_insert(now + PERSISTENCE) < now {
                return Err(problem.context(UNKNOWN));
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// What was answered: what was asked for, or the problem with it.
    fn outcome<T: DeserializeOwned>(&self, response: &mut Response<Body>) -> anyhow::Result<Result<T, Problem>> {
        let base = &self.base;
        if response.status().is_success() {
            let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
            return body.read_json().map(Ok).with_context(|| format!("{base} is no Tidegate admin API"));
        }
        match response.body_mut().read_json::<Problem>() {
            Ok(problem) => Ok(Err(problem)),
            Err(_) => bail!("{base} is no Tidegate admin API: it answered {}", response.status()),
        }
    }

    fn sent(&self, result: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        result.map_err(|error| self.nobody(error))
    }

    fn nobody(&self, error: ureq::Error) -> anyhow::Error {
        let base = &self.base;
        let is_tls = match &error {
            ureq::Error::Io(error) => error.kind() == ErrorKind::InvalidData,
            other => matches!(other, ureq::Error::Rustls(_)),
        };
        if is_tls {
            let message = format!(
                "{base} and this command do not agree on TLS; `--admin-ca FILE` names whom to believe, `--admin-cert` what to show"
            );
            return anyhow!(error).context(message);
        }
        anyhow!(error)
            .context(format!("no gateway answers at {base}; is `tidegate serve` running? `--admin URL` names another"))
    }
}

/// Whether a request that ended so may have been done all the same.
fn may_have_arrived(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => !matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::InvalidData
        ),
        ureq::Error::Timeout(which) => !matches!(which, ureq::Timeout::Resolve | ureq::Timeout::Connect),
        ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// The change is meant only for the generation `expected`, if one is named.
fn only_if(request: RequestBuilder<WithBody>, expected: Option<u64>) -> RequestBuilder<WithBody> {
    expected.into_iter().fold(request, |request, generation| request.header(IF_MATCH, format!("\"{generation}\"")))
}
