//! The audit trail: page by page, as a stream, and checked.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as Message, KeepAlive};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::timeout;

use crate::admin::problem::AdminError;
use crate::admin::{AdminState, Shared, flag_key};
use crate::api::{ChainReport, Event, EventList};
use crate::flag::FlagKey;
use crate::store::Page;

/// How many events are given without being asked for a number, and at most.
const DEFAULT_EVENTS: u32 = 50;
const MAX_EVENTS: u32 = 1000;

/// How many events a stream fetches at a time.
const STREAMED: u32 = 100;

/// How often a stream looks for events that it was not told of: those of other gateways.
const POLL: Duration = Duration::from_secs(1);

/// How often a stream says that it is alive.
const ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    flag: Option<String>,
    limit: Option<u32>,
    before: Option<i64>,
    after: Option<i64>,
}

pub(crate) async fn events(
    State(state): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventList>, AdminError> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(DEFAULT_EVENTS);
    if !(1..=MAX_EVENTS).contains(&limit) {
        return Err(AdminError::Invalid(format!("`limit` is from 1 to {MAX_EVENTS}")));
    }
    let page = match (query.before, query.after) {
        (None, None) => Page::Newest,
        (Some(id), None) => Page::Before(id),
        (None, Some(id)) => Page::After(id),
        (Some(_), Some(_)) => {
            return Err(AdminError::Invalid(
                "`before` and `after` ask for different pages; give one of them".to_owned(),
            ));
        }
    };
    // A flag whose file is gone still has its history, so the flag need not be in force.
    let flag = query.flag.as_deref().map(flag_key).transpose()?;
    let events = state.rollouts.events(flag.as_ref(), page, limit).await?;
    let full = usize::try_from(limit).is_ok_and(|limit| events.len() == limit);
    let next = events.last().filter(|_| full).map(|last| {
        let direction = if matches!(page, Page::After(_)) { "after" } else { "before" };
        let flag = flag.map(|flag| format!("&flag={flag}")).unwrap_or_default();
        format!("/api/v1/events?{direction}={}&limit={limit}{flag}", last.id)
    });
    Ok(Json(EventList { events, next }))
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyQuery {
    hash: Option<String>,
}

pub(crate) async fn verify(
    State(state): Shared,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<ChainReport>, AdminError> {
    let Query(VerifyQuery { hash }) = query?;
    if hash.as_ref().is_some_and(|hash| hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(AdminError::Invalid("`hash` is the hash of an event: 64 hexadecimal digits".to_owned()));
    }
    Ok(Json(state.rollouts.verify(hash).await?))
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamQuery {
    flag: Option<String>,
}

/// Where a stream stands.
struct Position {
    state: AdminState,
    flag: Option<FlagKey>,
    after: i64,
    written: tokio::sync::watch::Receiver<u64>,
}

/// Every event from now on, or from after the one that `Last-Event-ID` names, as server-sent events.
pub(crate) async fn stream(
    State(state): Shared,
    headers: HeaderMap,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, AdminError> {
    let Query(query) = query?;
    let flag = query.flag.as_deref().map(flag_key).transpose()?;
    let written = state.rollouts.written();
    let after = match headers.get("last-event-id") {
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.parse().ok());
            id.ok_or_else(|| AdminError::Invalid("`Last-Event-ID` is the number of an event".to_owned()))?
        }
        None => state.rollouts.events(None, Page::Newest, 1).await?.first().map_or(0, |event| event.id),
    };
    let begin = Position { state, flag, after, written };
    let pages = stream::unfold(begin, |mut position| async {
        let events = position.next().await?;
        Some((stream::iter(events), position))
    });
    let messages = pages.flatten().map(|event| {
        let data = serde_json::to_string(&event).unwrap_or_default();
        Ok(Message::default().event("change").id(event.id.to_string()).data(data))
    });
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(ALIVE)))
}

impl Position {
    /// The next events, once there are any; `None` when the gateway stops.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            self.written.mark_unchanged();
            // A store that fails now may be back by the next look.
            let found = self.state.rollouts.events(self.flag.as_ref(), Page::After(self.after), STREAMED).await;
            let events = found.unwrap_or_default();
            if let Some(last) = events.last() {
                self.after = last.id;
                return Some(events);
            }
            tokio::select! {
                _ = self.state.stopping.wait_for(|stop| *stop) => return None,
                _ = timeout(POLL, self.written.changed()) => {}
            }
        }
    }
}
