//! Where clients meet the gateway: each request is given to the loop that is to carry it out, on the one connection.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use pingora_core::apps::{HttpServerApp as _, ServerApp as _};
use pingora_core::protocols::Shutdown;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use crate::downstream::{Connection, Next, Serve, Timer, Transport};
use crate::proxy::Gateway;
use crate::proxy::direct::{After, Streams};

/// The data plane, as clients meet it.
pub struct Front {
    gateway: Gateway,
    phases: Arc<HttpProxy<Gateway>>,
    streams: Arc<Streams>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl Front {
    /// What `gateway` does, where need be by `phases`.
    #[must_use]
    pub fn new(gateway: Gateway, phases: Arc<HttpProxy<Gateway>>) -> Self {
        let streams = Arc::new(Streams::new(gateway.clone(), Arc::clone(&phases)));
        Self { gateway, phases, streams }
    }

    /// Lets go of those connections that pingora has.
    pub async fn cleanup(&self) {
        self.phases.cleanup().await;
    }

    /// Has pingora handle the next request. Afterwards the connection is back, if it goes on.
    async fn by_phases<S: Transport>(
        &self,
        connection: Box<Connection<S>>,
        stopping: &watch::Receiver<bool>,
    ) -> Option<Box<Connection<S>>> {
        let mut session = ServerSession::new_http1(connection);
        // The connection itself watches how long it waits.
        session.set_keepalive(if *stopping.borrow() { None } else { Some(0) });
        let (stream, _) = self.phases.process_new_http(session, stopping).await?.consume();
        stream.into_any().downcast().ok()
    }
}

impl Serve for Front {
    async fn serve<S: Transport>(&self, mut connection: Box<Connection<S>>, mut stopping: watch::Receiver<bool>) {
        let watched = stopping.clone();
        if connection.is_http2() {
            drop(self.streams.process_new(connection, &watched).await);
            return;
        }
        let mut timer = Timer::default();
        let mut stop = pin!(stopping.wait_for(|stop| *stop));
        loop {
            let next = poll_fn(|task| match connection.poll_next(task) {
                // A request whose head is there is still answered, and who is refused hears it.
                Poll::Pending if !connection.is_busy() && stop.as_mut().poll(task).is_ready() => Poll::Ready(Next::End),
                next => next,
            });
            let goes_on = match next.await {
                Next::Whole(request) => self.gateway.handle_request(&mut connection, &mut timer, request).await,
                Next::Other => After::Elsewhere,
                Next::End => return,
            };
            match goes_on {
                After::Keep => {}
                After::Close => return Shutdown::shutdown(&mut *connection).await,
                After::Break => return,
                After::Elsewhere => match Box::pin(self.by_phases(connection, &watched)).await {
                    Some(back) => connection = back,
                    None => return,
                },
            }
        }
    }
}
