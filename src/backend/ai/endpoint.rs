//! Where the endpoint is, and who may vouch for it.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::backend::ai::AiConfig;

/// An endpoint's address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint<'u> {
    /// Host and port as the URL has them.
    pub(crate) authority: &'u str,
    /// The host.
    pub(crate) host: &'u str,
    /// The port, if it is not that of the scheme.
    pub(crate) port: Option<u16>,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

impl<'u> Endpoint<'u> {
    /// The address in this URL, or what is wrong with it.
    pub(crate) fn of(url: &'u str) -> Result<Self, &'static str> {
        const FORM: &str = "write it like http://127.0.0.1:11434/v1 or https://host/v1";
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(FORM),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| FORM)?)),
            _ => (authority, None),
        };
        if host.is_empty() || authority.contains(['@', '?', '#', ' ']) {
            return Err(FORM);
        }
        Ok(Self { authority, host: host.trim_matches(['[', ']']), port, tls })
    }

    /// Host and port to connect to.
    pub(crate) fn address(&self) -> (&'u str, u16) {
        (self.host, self.port.unwrap_or(if self.tls { 443 } else { 80 }))
    }
}

/// Who may vouch for an endpoint that speaks TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Arc<Vec<CertificateDer<'static>>>);

impl Trust {
    /// Those who were named, or else whom the system trusts. With nobody, every endpoint is refused.
    pub(crate) fn of(config: &AiConfig) -> Self {
        if !config.url.starts_with("https://") {
            return Self::default();
        }
        if !config.authorities.is_empty() {
            return Self(Arc::new(config.authorities.iter().cloned().map(CertificateDer::from).collect()));
        }
        match rustls_native_certs::load_native_certs() {
            Ok(found) => Self(Arc::new(found)),
            Err(error) => {
                tracing::warn!(%error, "whom the system trusts cannot be read; name `ai.ca` for an https:// endpoint");
                Self::default()
            }
        }
    }

    /// For requests that block.
    pub(crate) fn blocking(&self) -> ureq::tls::TlsConfig {
        let roots: Vec<_> = self.0.iter().map(|root| ureq::tls::Certificate::from_der(root).to_owned()).collect();
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::Specific(Arc::new(roots))).build()
    }

    /// For requests that do not.
    pub(crate) fn connector(&self) -> Result<TlsConnector, tokio_rustls::rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.0.iter().cloned());
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        for (url, address) in [
            ("http://127.0.0.1:11434/v1", Some(("127.0.0.1", 11434))),
            ("https://models.example/v1", Some(("models.example", 443))),
            ("http://[::1]/v1", Some(("::1", 80))),
            ("https://[::1]:8443", Some(("::1", 8443))),
            ("ftp://h/v1", None),
            ("http://", None),
            ("https://u:secret@h/v1", None),
            ("http://h:port/v1", None),
        ] {
            let found = Endpoint::of(url);
            assert_eq!(found.as_ref().ok().map(Endpoint::address), address, "{url}: {found:?}");
        }
    }
}
