//! How a backend's servers prove who they are, how the gateway does to them, and which HTTP they speak together.

use std::str::FromStr;
use std::sync::Arc;

use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::parse_x509_certificate;

use crate::proxy::upstream::Server;

/// The version of HTTP that a backend's servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2, also without TLS ("prior knowledge", RFC 9113, section 3.3).
    H2,
    /// What they choose by ALPN; HTTP/1.1 without TLS.
    Auto,
}

/// A text that names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are `h1`, `h2` and `auto`")]
pub struct ProtocolError;

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        match text {
            "h1" => Ok(Self::H1),
            "h2" => Ok(Self::H2),
            "auto" => Ok(Self::Auto),
            _ => Err(ProtocolError),
        }
    }
}

/// How servers and gateway prove who they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// The certificates, in DER, of those who may vouch for a server; empty for those whom the system trusts.
    pub roots: Vec<Vec<u8>>,
    /// The gateway's own certificates, leaf first, and their key, in DER.
    pub identity: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    /// The name that a server's certificate has to have; by default its host.
    pub server_name: Option<String>,
}

/// Why a text holds no certificate or key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It is not PEM, or holds something else.
    #[error("is no PEM file: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// There is nothing in it.
    #[error("holds no certificate")]
    Empty,
    /// A certificate in it cannot be read.
    #[error("holds a certificate that cannot be read")]
    Certificate,
}

impl TlsConfig {
    /// The certificates of a PEM file.
    ///
    /// # Errors
    ///
    /// If it is none, or a certificate in it cannot be read.
    pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, TlsError> {
        let mut found = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(TlsError::Pem)?.to_vec();
            parse_x509_certificate(&certificate).map_err(|_| TlsError::Certificate)?;
            found.push(certificate);
        }
        if found.is_empty() { Err(TlsError::Empty) } else { Ok(found) }
    }

    /// The private key of a PEM file.
    ///
    /// # Errors
    ///
    /// If it holds none.
    pub fn key(pem: &[u8]) -> Result<Vec<u8>, TlsError> {
        Ok(PrivateKeyDer::from_pem_slice(pem).map_err(TlsError::Pem)?.secret_der().to_vec())
    }
}

/// What a connection to a backend's servers takes, made once.
#[derive(Debug)]
pub(crate) struct PeerTls {
    roots: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
    server_name: Option<String>,
}

impl PeerTls {
    pub(crate) fn new(config: &TlsConfig) -> Self {
        let roots: Vec<_> = config.roots.iter().map(|root| WrappedX509::new(root.clone(), parse_x509)).collect();
        let identity = config.identity.as_ref().map(|(certificates, key)| {
            // Both were read where the file was, so that pingora finds nothing to panic about.
            Arc::new(CertKey::new(certificates.clone(), key.clone()))
        });
        let roots = (!roots.is_empty()).then(|| Arc::from(roots));
        Self { roots, identity, server_name: config.server_name.clone() }
    }

    pub(crate) fn apply(&self, peer: &mut HttpPeer, server: &Server, protocol: Protocol) {
        peer.options.alpn = match (protocol, server.tls) {
            (Protocol::H1, _) | (Protocol::Auto, false) => ALPN::H1,
            (Protocol::H2, _) => ALPN::H2,
            (Protocol::Auto, true) => ALPN::H2H1,
        };
        if server.tls {
            // Never empty: pingora checks no certificate for an empty name.
            peer.sni = self.server_name.clone().or_else(|| server.host()).unwrap_or_else(|| "localhost".to_owned());
            peer.options.ca = self.roots.clone();
            peer.client_cert_key = self.identity.clone();
        }
    }
}
