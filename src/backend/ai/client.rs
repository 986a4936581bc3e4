//! One request to the endpoint: blocking, and not.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::ai::endpoint::{Endpoint, Trust};
use crate::backend::ai::{AiConfig, Failure};

/// The largest reply that is read, in bytes.
const MAX_REPLY: usize = 1 << 20;

/// A request to the endpoint.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) config: AiConfig,
    pub(crate) trust: Trust,
    pub(crate) body: String,
}

/// Asks and blocks until the reply is there or the time is over.
pub(crate) fn ask_sync(call: &Call) -> Result<String, Failure> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(call.config.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(call.trust.blocking())
        .build()
        .new_agent();
    let mut request = agent.post(endpoint(&call.config)).header(CONTENT_TYPE, "application/json");
    if let Some(token) = bearer(&call.config)? {
        request = request.header(AUTHORIZATION, token);
    }
    let mut reply = request.send(call.body.as_str()).map_err(Failure::passing)?;
    if reply.status() != 200 {
        return Err(Failure::of_status(reply.status().as_u16()));
    }
    let limit = u64::try_from(MAX_REPLY).unwrap_or(u64::MAX);
    reply.body_mut().with_config().limit(limit).read_to_string().map_err(Failure::passing)
}

/// Asks without blocking.
pub(crate) async fn ask_async(call: &Call) -> Result<String, Failure> {
    match timeout(call.config.timeout, exchange(call)).await {
        Ok(reply) => reply,
        Err(elapsed) => Err(Failure::passing(elapsed)),
    }
}

async fn exchange(call: &Call) -> Result<String, Failure> {
    let at = Endpoint::of(&call.config.url).map_err(Failure::lasting)?;
    let stream = TcpStream::connect(at.address()).await.map_err(Failure::passing)?;
    if !at.tls {
        return send(call, &at, stream).await;
    }
    let name = ServerName::try_from(at.host.to_owned()).map_err(Failure::lasting)?;
    let connector = call.trust.connector().map_err(Failure::lasting)?;
    send(call, &at, connector.connect(name, stream).await.map_err(Failure::passing)?).await
}

async fn send<S>(call: &Call, at: &Endpoint<'_>, stream: S) -> Result<String, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Failure::passing)?;
    let _connection = Aborted(tokio::spawn(async move { drop(connection.await) }));
    let mut request =
        Request::post(endpoint(&call.config)).header(HOST, at.authority).header(CONTENT_TYPE, "application/json");
    if let Some(token) = bearer(&call.config)? {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Full::new(Bytes::from(call.body.clone()))).map_err(Failure::lasting)?;
    let reply = sender.send_request(request).await.map_err(Failure::passing)?;
    if reply.status() != 200 {
        return Err(Failure::of_status(reply.status().as_u16()));
    }
    let body = Limited::new(reply.into_body(), MAX_REPLY).collect().await.map_err(Failure::passing)?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(Failure::passing)
}

/// A task that ends with its owner.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn endpoint(config: &AiConfig) -> String {
    format!("{}/chat/completions", config.url.trim_end_matches('/'))
}

fn bearer(config: &AiConfig) -> Result<Option<HeaderValue>, Failure> {
    let Some(key) = &config.key else { return Ok(None) };
    let mut token = HeaderValue::from_str(&format!("Bearer {key}")).map_err(Failure::lasting)?;
    token.set_sensitive(true);
    Ok(Some(token))
}
