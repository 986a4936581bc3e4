//! Whom the command line believes to be a gateway, and what it shows itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::cli::AdminArgs;

/// The TLS to ask an admin API with, if it speaks any.
///
/// # Errors
///
/// If a file cannot be used, or the system trusts nobody and no file says whom to trust.
pub(crate) fn tls(args: &AdminArgs) -> anyhow::Result<Option<TlsConfig>> {
    if !args.admin.starts_with("https://") {
        return Ok(None);
    }
    let roots = match &args.admin_ca {
        Some(path) => certificates(path)?,
        None => match rustls_native_certs::load_native_certs() {
            Ok(roots) if !roots.is_empty() => roots.iter().map(owned).collect(),
            _ => bail!("the system has no certificates to trust; `--admin-ca FILE` names those who vouch for gateways"),
        },
    };
    let shown = args.admin_cert.as_deref().zip(args.admin_key.as_deref());
    let shown = shown.map(|(certificate, key)| client(certificate, key)).transpose()?;
    Ok(Some(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).client_cert(shown).build()))
}

fn client(certificate: &Path, key: &Path) -> anyhow::Result<ClientCert> {
    let chain = certificates(certificate)?;
    let pem = fs::read(key).with_context(|| format!("{}: cannot read", key.display()))?;
    let no_key = || anyhow!("{}: holds no private key in PEM", key.display());
    let parsed = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| no_key())?;
    let key_pem = PrivateKey::from_pem(&pem).map_err(|_| no_key())?;
    // The client takes whatever it is given, and panics when it connects: what cannot be shown is told here.
    let ders = chain.iter().map(|certificate| CertificateDer::from_slice(certificate.der()).into_owned()).collect();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_root_certificates(RootCertStore::empty()).with_client_auth_cert(ders, parsed))
        .map_err(|error| anyhow!("{} cannot be shown with {}: {error}", certificate.display(), key.display()))?;
    Ok(ClientCert::new_with_certs(&chain, key_pem))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| anyhow!("{}: is no PEM file: {error}", path.display()))?;
    if found.is_empty() {
        bail!("{}: holds no certificate", path.display());
    }
    Ok(found.iter().map(owned).collect())
}

fn owned(certificate: &CertificateDer<'_>) -> Certificate<'static> {
    Certificate::from_der(certificate).to_owned()
}
