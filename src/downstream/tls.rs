//! TLS for clients: certificates that are chosen by the name that a client asks for, and made anew when their files change.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora_core::protocols::tls::SslDigest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::downstream::Limits;
use crate::downstream::connection::Speaks;
use crate::remade::{Changing, Remade};

/// What ALPN calls the versions of HTTP (RFC 7301, section 6; RFC 9113, section 3.2), best first.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// A certificate and its key, in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate in PEM, and after it those that lead to one whom clients trust.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Clients that prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// A PEM file of those who may vouch for clients.
    pub authorities: PathBuf,
    /// Whether a client may come without.
    pub demand: Demand,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Whoever shows none is no client.
    Required,
    /// One that is shown has to be good.
    Optional,
}

/// Why a text is no [`Demand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write \"required\" or \"optional\"")]
pub struct DemandError;

impl std::str::FromStr for Demand {
    type Err = DemandError;

    fn from_str(text: &str) -> Result<Self, DemandError> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err(DemandError),
        }
    }
}

/// Which versions of HTTP are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2, and HTTP/1.1.
    Both,
    /// HTTP/1.1.
    Http1,
}

impl Offer {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Both => vec![HTTP2.to_vec(), HTTP1.to_vec()],
            Self::Http1 => vec![HTTP1.to_vec()],
        }
    }
}

/// How clients are spoken to in TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificates; the first is for clients that ask for no name, or for one that none has.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients prove who they are.
    pub clients: Option<ClientCertificates>,
    /// What is spoken in it.
    pub offer: Offer,
}

/// How many handshakes ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handshakes {
    /// The connection began.
    pub completed: u64,
    /// Client and gateway did not agree, or the client left.
    pub failed: u64,
    /// It took longer than it may.
    pub timed_out: u64,
}

/// Speaks TLS with clients.
#[derive(Debug)]
pub struct Tls {
    made: Arc<Remade<Made>>,
    /// How many handshakes may be under way.
    places: Semaphore,
    time: Duration,
    completed: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
}

/// What is made of the files.
#[derive(Debug)]
struct Made {
    config: Arc<ServerConfig>,
    expiries: Vec<(PathBuf, i64)>,
}

impl Tls {
    /// What `config` says, with the files that it names.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used; names it.
    pub fn open(config: TlsConfig, limits: &Limits) -> Result<Self, String> {
        let mut paths = Vec::new();
        for files in &config.certificates {
            paths.extend([files.certificate.clone(), files.key.clone()]);
        }
        paths.extend(config.clients.as_ref().map(|clients| clients.authorities.clone()));
        let made = Remade::open(paths, move |contents| make(&config, contents))?;
        Ok(Self {
            made: Arc::new(made),
            places: Semaphore::new(limits.handshakes),
            time: limits.handshake_timeout,
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        })
    }

    /// The files, to be looked at for changes.
    pub fn changing(&self) -> Arc<dyn Changing> {
        Arc::clone(&self.made) as _
    }

    /// Until when each certificate in force is valid, in seconds since 1970.
    #[must_use]
    pub fn expiries(&self) -> Vec<(PathBuf, i64)> {
        self.made.load().expiries.clone()
    }

    /// How handshakes ended up to now.
    #[must_use]
    pub fn handshakes(&self) -> Handshakes {
        // Relaxed: these are counted and nothing follows from them.
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Handshakes { completed: count(&self.completed), failed: count(&self.failed), timed_out: count(&self.timed_out) }
    }

    /// Agrees on keys with a client. One that waits for others to do so has no more time for it than they.
    pub(crate) async fn shake_hands(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let shaken = timeout(self.time, async {
            // Nobody closes it.
            let _place = self.places.acquire().await.map_err(io::Error::other)?;
            TlsAcceptor::from(Arc::clone(&self.made.load().config)).accept(socket).await
        });
        let (counter, shaken) = match shaken.await {
            Ok(Ok(stream)) => (&self.completed, Ok(stream)),
            Ok(Err(error)) => (&self.failed, Err(error)),
            Err(_) => (&self.timed_out, Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))),
        };
        // Relaxed: see `handshakes`.
        counter.fetch_add(1, Ordering::Relaxed);
        shaken
    }
}

/// What was agreed on with a client.
pub(crate) fn agreed(stream: &TlsStream<TcpStream>) -> (SslDigest, Speaks) {
    let (_, connection) = stream.get_ref();
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
    let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown");
    let speaks = match connection.alpn_protocol() {
        Some(HTTP2) => Speaks::Http2,
        Some(HTTP1) => Speaks::Http1,
        _ => Speaks::Either,
    };
    (SslDigest::new(cipher, version, None, None, Vec::new()), speaks)
}

fn make(config: &TlsConfig, contents: &[Vec<u8>]) -> Result<Made, String> {
    let provider = Arc::new(default_provider());
    let mut contents = contents.iter().map(Vec::as_slice);
    let mut next = || contents.next().unwrap_or_default();
    let mut chosen = ByName::default();
    let mut expiries = Vec::new();
    for files in &config.certificates {
        let (names, expires, certified) = certified(files, next(), next(), &provider)?;
        expiries.push((files.certificate.clone(), expires));
        chosen.add(names, certified);
    }
    let refused = |error: &dyn std::fmt::Display| format!("TLS cannot be set up: {error}");
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?;
    let builder = match &config.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                authorities(&clients.authorities, next())?.into(),
                provider,
            );
            let verifier = match clients.demand {
                Demand::Required => verifier,
                Demand::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(&error))?)
        }
    };
    let mut server = builder.with_cert_resolver(Arc::new(chosen));
    server.alpn_protocols = config.offer.protocols();
    // New ones each time: whoever was let in by another file of authorities proves anew who they are.
    server.ticketer = Ticketer::new().map_err(|error| refused(&error))?;
    Ok(Made { config: Arc::new(server), expiries })
}

/// A certificate with its key, the names that it is for, and until when it is valid.
fn certified(
    files: &CertificateFiles,
    certificate: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<(Vec<String>, i64, CertifiedKey), String> {
    let CertificateFiles { certificate: path, key: key_path } = files;
    let chain = chain(path, certificate)?;
    let (names, expires) = chain.first().map_or(Ok((Vec::new(), 0)), |leaf| read(path, leaf))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        format!("{}: holds no private key in PEM; one that is encrypted cannot be used", key_path.display())
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("{}: is not the key of {}: {error}", key_path.display(), path.display()))?;
    Ok((names, expires, certified))
}

/// The certificates of a PEM file, leaf first.
fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("{}: is no PEM file: {error}", path.display()))?;
    if chain.is_empty() { Err(format!("{}: holds no certificate", path.display())) } else { Ok(chain) }
}

/// The names that a certificate is for, and until when it is valid.
fn read(path: &Path, certificate: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let unreadable = || format!("{}: holds a certificate that cannot be read", path.display());
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    let names = certificate.subject_alternative_name().map_err(|_| unreadable())?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok((names.collect(), certificate.validity().not_after.timestamp()))
}

/// Those who may vouch for clients.
fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in chain(path, pem)? {
        roots
            .add(authority)
            .map_err(|error| format!("{}: holds an authority that cannot be used: {error}", path.display()))?;
    }
    Ok(roots)
}

/// Chooses a certificate by the name that a client asks for (RFC 6066, section 3).
#[derive(Debug, Default)]
struct ByName {
    /// By name; `*.` stands for one label (RFC 6125, section 6.4.3). Several are for clients that know other algorithms.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For whoever asks for no name, or for one that none has.
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    fn add(&mut self, names: Vec<String>, certified: CertifiedKey) {
        let certified = Arc::new(certified);
        for name in names {
            self.named.entry(name).or_default().push(Arc::clone(&certified));
        }
        self.first.get_or_insert(certified);
    }

    fn for_name(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let found = self.named.get(&name).or_else(|| self.named.get(&format!("*.{}", name.split_once('.')?.1)));
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().map(|name| self.for_name(name)).unwrap_or_default();
        let usable = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(hello.signature_schemes()).is_some();
        named.iter().find(usable).or(named.first()).or(self.first.as_ref()).cloned()
    }
}
