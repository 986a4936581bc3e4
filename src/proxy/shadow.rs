//! Copies of stable's requests for the canary, whose answers nobody gets.
//!
//! What is copied is kept beside the request while stable answers it, within a bound. It is sent once the user has all of
//! the answer, on a runtime of its own: the user waits for none of it, and whatever goes wrong with it is no user's
//! trouble. Neither outcome nor latency of a copy counts for anything but the comparison of the answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::compression::Algorithm;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::debug;

use crate::clock;
use crate::flag::{FlagKey, Phase, Shadow};
use crate::proxy::exchange::MAX_INTERIM_ANSWERS;
use crate::proxy::rescue::may_be_repeated;
use crate::proxy::upstream::{Tried, Upstream};
use crate::proxy::{REQUEST_ID_HEADER, VARIANT_HEADER};
use crate::recorder::{RecordedFlag, RecordedFlagStore};
use crate::shadow::{Answer, Body, CopyResult, Leave, Sample, Shadows, compare};

/// Marks a copy.
pub(crate) const SHADOW_HEADER: &str = "x-tidegate-shadow";

/// Idle connections that are kept for copies.
const POOL: usize = 64;

/// So much of a packed body is unpacked at a time: what comes out is bounded, whatever it unpacks to.
const PIECE: usize = 512;

/// Requests with one of these ask about the client's own copy of an answer, which the canary knows nothing of.
const CONDITIONAL: [HeaderName; 6] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];

/// What belongs to one connection and not to the request (RFC 9110, section 7.6.1).
const OF_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether `request` can be copied at all.
pub(crate) fn can_be_copied(request: &Parts) -> bool {
    !request.headers.contains_key(UPGRADE) && !CONDITIONAL.iter().any(|name| request.headers.contains_key(name))
}

/// A request that is to be copied, and stable's answer to it, as far as they have passed by.
pub(crate) struct Original {
    entry: Arc<RecordedFlag>,
    leave: Leave,
    canary: Arc<Upstream>,
    /// The hash of the targeting key, for the choice of a server.
    key: Option<u64>,
    request: Option<Box<RequestHeader>>,
    body: Kept,
    answer: Option<Head>,
    answer_body: Kept,
}

impl fmt::Debug for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Original").field("flag", &self.entry.flag.key).finish_non_exhaustive()
    }
}

/// What is kept of a body.
#[derive(Debug, Default)]
enum Kept {
    /// All of it so far.
    Whole(Vec<u8>),
    /// It is not needed.
    #[default]
    Nothing,
    /// It is too long.
    TooLong,
}

impl Kept {
    fn take(&mut self, more: &[u8], most: usize) {
        if let Self::Whole(kept) = self {
            if kept.len() + more.len() > most {
                *self = Self::TooLong;
            } else {
                kept.extend_from_slice(more);
            }
        }
    }
}

/// The head of an answer, as far as it is compared.
#[derive(Debug)]
struct Head {
    status: u16,
    headers: Vec<Option<String>>,
    form: Form,
}

/// What a body is, by the head of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing that is compared.
    Other,
    Json,
    /// JSON, packed.
    Packed(Algorithm),
    /// JSON, packed in a way that cannot be undone here.
    Opaque,
}

impl Head {
    fn new(shadow: &Shadow, response: &ResponseHeader) -> Self {
        let value = |name: &str| {
            let values = response.headers.get_all(name).into_iter();
            let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        let headers = shadow.headers.iter().map(|name| value(name)).collect();
        Self { status: response.status.as_u16(), headers, form: Form::new(shadow, &response.headers) }
    }
}

impl Form {
    fn new(shadow: &Shadow, headers: &HeaderMap) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = text(&CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let is_json = media_type.eq_ignore_ascii_case("application/json")
            || media_type.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"));
        if !shadow.json || !is_json {
            return Self::Other;
        }
        match text(&CONTENT_ENCODING) {
            "" | "identity" => Self::Json,
            coding => match Algorithm::from(coding) {
                algorithm if algorithm.can_decompress() => Self::Packed(algorithm),
                _ => Self::Opaque,
            },
        }
    }
}

impl Original {
    pub(crate) fn new(entry: Arc<RecordedFlag>, leave: Leave, canary: Arc<Upstream>, key: Option<u64>) -> Self {
        let (body, answer_body) = (Kept::default(), Kept::default());
        Self { entry, leave, canary, key, request: None, body, answer: None, answer_body }
    }

    fn most(&self) -> usize {
        self.entry.flag.shadow.as_ref().map_or(0, |shadow| shadow.max_body)
    }

    /// The request, as stable is sent it. It may be sent more than once.
    pub(crate) fn take_request(&mut self, request: &RequestHeader) {
        self.request = Some(Box::new(request.clone()));
        self.body = Kept::Whole(Vec::new());
        self.answer = None;
    }

    pub(crate) fn take_request_body(&mut self, bytes: &[u8]) {
        self.body.take(bytes, self.most());
    }

    /// The head of stable's answer. Says whether the request is still copied.
    pub(crate) fn take_answer(&mut self, response: &ResponseHeader) -> bool {
        let Some(shadow) = &self.entry.flag.shadow else { return false };
        let head = Head::new(shadow, response);
        let length = response.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let too_long = length.is_some_and(|length| length > shadow.max_body as u64);
        let kept = match head.form {
            Form::Other => Some(Kept::Nothing),
            Form::Json | Form::Packed(_) if !too_long => Some(Kept::Whole(Vec::new())),
            Form::Json | Form::Packed(_) | Form::Opaque => None,
        };
        // A stream of events may go on for ever.
        let is_stream =
            response.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-"));
        if response.status == StatusCode::SWITCHING_PROTOCOLS || is_stream {
            return false;
        }
        let Some(kept) = kept else { return false };
        self.answer_body = kept;
        self.answer = Some(head);
        true
    }

    /// A part of stable's answer. Says whether the request is still copied.
    pub(crate) fn take_answer_body(&mut self, bytes: &[u8]) -> bool {
        self.answer_body.take(bytes, self.most());
        !matches!(self.answer_body, Kept::TooLong)
    }

    /// The request is not copied after all.
    pub(crate) fn give_up(self, result: CopyResult) {
        self.leave.end(result);
    }
}

/// Sends copies.
pub(crate) struct Shadower {
    connector: Connector,
    flags: Arc<RecordedFlagStore>,
    runtime: Handle,
}

impl fmt::Debug for Shadower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shadower")
    }
}

/// Where copies are counted, and what they take.
#[derive(Debug, Clone)]
pub struct ShadowConfig {
    /// Where they are counted.
    pub shadows: Arc<Shadows>,
    /// The runtime that they are sent on.
    pub runtime: Handle,
    /// The PEM file of those who may vouch for servers; `None` for those whom the system trusts.
    pub roots: Option<String>,
}

impl Shadower {
    pub(crate) fn new(config: &ShadowConfig, flags: Arc<RecordedFlagStore>) -> Self {
        let options = ConnectorOptions { ca_file: config.roots.clone(), ..ConnectorOptions::new(POOL) };
        Self { connector: Connector::new(Some(options)), flags, runtime: config.runtime.clone() }
    }

    /// Sends the copies of `original`, whose answer `stable` has given and the user has got.
    pub(crate) fn send(self: &Arc<Self>, original: Box<Original>, stable: Arc<Upstream>, request_id: String) {
        let shadower = Arc::clone(self);
        // What it holds is of some size, and lives for as long as the copy is under way.
        drop(self.runtime.spawn(async move { Box::pin(shadower.copy(*original, &stable, &request_id)).await }));
    }

    async fn copy(&self, original: Original, stable: &Upstream, request_id: &str) {
        let Original { entry, leave, canary, key, request, body, answer, answer_body } = original;
        let (Some(shadow), Some(request), Some(head)) = (&entry.flag.shadow, request, answer) else {
            return leave.end(CopyResult::SkippedUnanswered);
        };
        let body = match body {
            Kept::Whole(body) => Bytes::from(body),
            Kept::Nothing => Bytes::new(),
            Kept::TooLong => return leave.end(CopyResult::SkippedBody),
        };
        if !canary.is_available() || !self.wants(&entry.flag.key) {
            return leave.end(CopyResult::SkippedUnanswered);
        }
        let own = read(shadow, head, answer_body);
        if own.body == Body::TooLong {
            return leave.end(CopyResult::SkippedBody);
        }
        let ask = |upstream, copy: &'static str| {
            let (request, body) = (marked(&request, upstream, request_id, copy), body.clone());
            async move { self.ask(shadow, upstream, key, request?, body).await }
        };
        let once_more = async { if leave.is_for_noise() { Some(ask(stable, "stable").await) } else { None } };
        let (canarys, once_more) = tokio::join!(ask(&canary, "canary"), once_more);
        let canarys = match canarys {
            Ok(answer) => answer,
            Err(error) => {
                debug!(request_id, %error, "the canary did not answer a copy");
                return leave.end(CopyResult::Failed);
            }
        };
        let noise = once_more.and_then(Result::ok).map(|answer| compare(shadow, &own, &answer));
        let sample = Sample {
            request_id: request_id.to_owned(),
            at: format!("{:.3}", clock::wall()),
            stable_status: own.status,
            canary_status: canarys.status,
            place: String::new(),
            detail: String::new(),
            others: 0,
        };
        leave.found(&compare(shadow, &own, &canarys), noise.as_deref(), sample);
    }

    /// Whether the canary may still get copies: it may have been taken out while stable answered.
    fn wants(&self, key: &FlagKey) -> bool {
        self.flags.load().get(key).is_some_and(|entry| is_open(entry))
    }

    async fn ask(
        &self,
        shadow: &Shadow,
        upstream: &Upstream,
        key: Option<u64>,
        request: RequestHeader,
        body: Bytes,
    ) -> Result<Answer, Box<Error>> {
        let lease = upstream.pick(key, &Tried::default(), clock::now());
        let lease = lease.ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "the backend has no server"))?;
        let peer = lease.endpoint().peer();
        let timeouts = upstream.timeouts();
        let all = timeouts.total.unwrap_or(timeouts.connect + timeouts.read);
        let answer = timeout(all, self.exchange(shadow, peer, &request, body, timeouts.idle)).await;
        answer.unwrap_or_else(|_| Err(Error::explain(ErrorType::ReadTimedout, "the copy took too long")))
    }

    async fn exchange(
        &self,
        shadow: &Shadow,
        peer: &HttpPeer,
        request: &RequestHeader,
        body: Bytes,
        idle: Duration,
    ) -> Result<Answer, Box<Error>> {
        loop {
            let (mut session, reused) = self.connector.get_http_session(peer).await?;
            session.set_read_timeout(peer.options.read_timeout);
            session.set_write_timeout(peer.options.write_timeout);
            match head(shadow, &mut session, peer, request, body.clone()).await {
                Ok(head) => {
                    let (kept, whole) = rest(shadow, &mut session, &head).await?;
                    if whole {
                        self.connector.release_http_session(session, peer, Some(idle)).await;
                    } else {
                        session.shutdown().await;
                    }
                    return Ok(read(shadow, head, kept));
                }
                // A connection that the server had given up.
                Err(_) if reused && may_be_repeated(request) => session.shutdown().await,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the canary gets copies of requests of `entry`.
pub(crate) fn is_open(entry: &RecordedFlag) -> bool {
    entry.flag.shadow.is_some() && entry.rollout.enabled && entry.rollout.phase != Phase::RolledBack
}

/// The copy of `request` for `upstream`.
fn marked(
    request: &RequestHeader,
    upstream: &Upstream,
    request_id: &str,
    copy: &'static str,
) -> Result<RequestHeader, Box<Error>> {
    let mut request = request.clone();
    for name in &OF_CONNECTION {
        request.remove_header(name);
    }
    request.insert_header(SHADOW_HEADER, HeaderValue::from_static("1"))?;
    request.insert_header(VARIANT_HEADER, upstream.variant())?;
    request.insert_header(REQUEST_ID_HEADER, format!("{request_id}-shadow-{copy}"))?;
    Ok(request)
}

/// Sends `request` and reads the head of the answer.
async fn head(
    shadow: &Shadow,
    session: &mut HttpSession,
    peer: &HttpPeer,
    request: &RequestHeader,
    body: Bytes,
) -> Result<Head, Box<Error>> {
    let is_http2 = matches!(session, HttpSession::H2(_));
    let request = addressed(request, peer, is_http2, body.len())?;
    session.write_request_header(Box::new(request)).await?;
    if !body.is_empty() {
        session.write_request_body(body, false).await?;
    }
    session.finish_request_body().await?;
    for _ in 0..=MAX_INTERIM_ANSWERS {
        session.read_response_header().await?;
        match session.response_header() {
            Some(response) if !response.status.is_informational() => return Ok(Head::new(shadow, response)),
            _ => {}
        }
    }
    Err(Error::explain(ErrorType::InvalidHTTPHeader, "1xx without an end"))
}

/// Reads the body of an answer, and says whether that was all of it.
async fn rest(shadow: &Shadow, session: &mut HttpSession, head: &Head) -> Result<(Kept, bool), Box<Error>> {
    let mut kept = if head.form == Form::Other { Kept::Nothing } else { Kept::Whole(Vec::new()) };
    let mut read = 0;
    while let Some(bytes) = session.read_response_body().await? {
        read += bytes.len();
        kept.take(&bytes, shadow.max_body);
        if read > shadow.max_body {
            return Ok((kept, false));
        }
    }
    Ok((kept, true))
}

/// `request` in the form that the connection's version of HTTP wants it in.
fn addressed(
    request: &RequestHeader,
    peer: &HttpPeer,
    is_http2: bool,
    length: usize,
) -> Result<RequestHeader, Box<Error>> {
    let mut request = request.clone();
    let host = request.headers.get(HOST).map(|host| host.as_bytes().to_vec());
    let host = host.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec()));
    let host = host.unwrap_or_else(|| peer.sni.as_bytes().to_vec());
    let invalid = |_| Error::explain(ErrorType::InvalidHTTPHeader, "the copy has no target");
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri = if is_http2 {
        let scheme = if peer.sni.is_empty() { "http" } else { "https" };
        let uri = Uri::builder().scheme(scheme).authority(host.as_slice()).path_and_query(target);
        uri.build().map_err(invalid)?
    } else {
        Uri::builder().path_and_query(target).build().map_err(invalid)?
    };
    request.set_uri(uri);
    if is_http2 {
        request.remove_header(&HOST);
        request.set_version(Version::HTTP_2);
    } else {
        request.insert_header(HOST, host)?;
        request.set_version(Version::HTTP_11);
    }
    if length > 0 || !request.method.is_safe() {
        request.insert_header(CONTENT_LENGTH, length)?;
    }
    Ok(request)
}

/// The answer that has this head and body.
fn read(shadow: &Shadow, head: Head, kept: Kept) -> Answer {
    let body = match (head.form, kept) {
        (Form::Other, _) | (_, Kept::Nothing) => Body::Other,
        (Form::Opaque, _) => Body::Broken,
        (_, Kept::TooLong) => Body::TooLong,
        (Form::Json, Kept::Whole(bytes)) => json(&bytes),
        (Form::Packed(algorithm), Kept::Whole(bytes)) => unpack(algorithm, &bytes, shadow.max_body),
    };
    Answer { status: head.status, headers: head.headers, body }
}

fn json(bytes: &[u8]) -> Body {
    match serde_json::from_slice(bytes) {
        // An answer to HEAD, or one without content.
        _ if bytes.is_empty() => Body::Other,
        Ok(value) => Body::Json(value),
        Err(_) => Body::Broken,
    }
}

fn unpack(algorithm: Algorithm, bytes: &[u8], most: usize) -> Body {
    if bytes.is_empty() {
        return Body::Other;
    }
    let Some(mut decoder) = algorithm.decompressor(true) else { return Body::Broken };
    let mut unpacked = Vec::new();
    let pieces = bytes.len().div_ceil(PIECE);
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        match decoder.encode(piece, number + 1 == pieces) {
            Ok(more) if unpacked.len() + more.len() > most => return Body::TooLong,
            Ok(more) => unpacked.extend_from_slice(&more),
            Err(_) => return Body::Broken,
        }
    }
    json(&unpacked)
}
