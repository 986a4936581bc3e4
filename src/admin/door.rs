//! Where people and their tools come in: connections to the admin API, over TLS or not, and who is at their other end.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;
use tracing::warn;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::access::Subject;
use crate::downstream::Tls;

/// How long it is waited after the system refused a connection, most likely for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Handshakes under way: each has its time, and more people than this never come at once.
const HANDSHAKES: usize = 1024;

/// Who is connected.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(crate) address: SocketAddr,
    /// What the certificate tells that was shown, if any was; `None` without TLS.
    tls: Option<Arc<[Subject]>>,
}

impl Peer {
    /// Somebody at `address`, without TLS.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Whether nobody on the way can listen.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// What a certificate that was vouched for tells of them.
    pub(crate) fn subjects(&self) -> &[Subject] {
        self.tls.as_deref().unwrap_or_default()
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listening socket of the admin API.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    closed: watch::Receiver<bool>,
    shaking: JoinSet<Option<(Stream, Peer)>>,
}

impl Door {
    /// Takes the connections of `listener`, and speaks TLS with those who make them if there is any to speak. While it is
    /// `closed`, new ones are left to whoever else listens there.
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Arc<Tls>>, closed: watch::Receiver<bool>) -> Self {
        Self { listener, tls, closed, shaking: JoinSet::new() }
    }
}

impl Listener for Door {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        loop {
            let has_place = !*self.closed.borrow_and_update() && self.shaking.len() < HANDSHAKES;
            let accepted = tokio::select! {
                Some(shaken) = self.shaking.join_next() => match shaken {
                    Ok(Some(connection)) => return connection,
                    _ => continue,
                },
                Ok(()) = self.closed.changed() => continue,
                accepted = self.listener.accept(), if has_place => accepted,
                else => pending().await,
            };
            match (accepted, &self.tls) {
                (Ok((socket, address)), None) => return (Stream::Plain(socket), Peer::plain(address)),
                (Ok((socket, address)), Some(tls)) => {
                    drop(self.shaking.spawn(shake_hands(Arc::clone(tls), socket, address)));
                }
                (Err(error), _) => {
                    warn!(%error, "the system gives the admin API no connection; trying again");
                    sleep(BREATH).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer::plain)
    }
}

async fn shake_hands(tls: Arc<Tls>, socket: TcpStream, address: SocketAddr) -> Option<(Stream, Peer)> {
    match tls.shake_hands(socket).await {
        Ok(stream) => {
            let tls = Some(subjects(&stream).into());
            Some((Stream::Tls(Box::new(stream)), Peer { address, tls }))
        }
        Err(error) => {
            warn!(client = %address.ip(), %error, "a TLS handshake with the admin API failed");
            None
        }
    }
}

/// What a client's certificate tells.
fn subjects(stream: &TlsStream<TcpStream>) -> Vec<Subject> {
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let Some(Ok((_, certificate))) = leaf.map(|leaf| parse_x509_certificate(leaf)) else { return Vec::new() };
    let common_names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut subjects: Vec<_> = common_names.map(|name| Subject::CommonName(name.to_owned())).collect();
    let others = certificate.subject_alternative_name().ok().flatten();
    let others = others.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    subjects.extend(others.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(Subject::Dns(name.to_ascii_lowercase())),
        GeneralName::RFC822Name(name) => Some(Subject::Email((*name).to_owned())),
        GeneralName::URI(name) => Some(Subject::Uri((*name).to_owned())),
        _ => None,
    }));
    subjects
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
