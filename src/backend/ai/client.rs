//! One request to the endpoint: blocking, and not.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::ai::{AiConfig, Failure};

/// The largest reply that is read, in bytes.
const MAX_REPLY: usize = 1 << 20;

/// A request to the endpoint.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) config: AiConfig,
    pub(crate) body: String,
}

/// Asks and blocks until the reply is there or the time is over.
pub(crate) fn ask_sync(call: &Call) -> Result<String, Failure> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(call.config.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
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
    let address = call.config.address().map_err(Failure::lasting)?;
    let stream = TcpStream::connect(&address).await.map_err(Failure::passing)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Failure::passing)?;
    let _connection = Aborted(tokio::spawn(async move { drop(connection.await) }));
    let mut request =
        Request::post(endpoint(&call.config)).header(HOST, address).header(CONTENT_TYPE, "application/json");
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
