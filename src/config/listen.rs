//! `[listen]`: where the gateway and the admin API listen.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::admin::Admin;
use crate::document::{Placed, Section, boolean, duration, parsed, string};
use crate::downstream::{CertificateFiles, ClientCertificates, Demand, Offer, TlsConfig};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The gateway's address.
    pub http: SocketAddr,
    /// Where it speaks TLS, if anywhere.
    pub https: Option<Https>,
    /// Whether trusted proxies say first whom they speak for, by the PROXY protocol.
    pub proxy_protocol: bool,
    /// The admin API's address, on loopback unless tokens are asked for.
    pub admin: SocketAddr,
    /// How long a stop waits for requests under way.
    pub drain: Duration,
    /// The Unix socket where another process of the same user may ask to take over.
    pub handover: Option<PathBuf>,
}

/// A second address of the gateway, where it speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    /// The address.
    pub address: SocketAddr,
    /// Certificates, and whether clients need some.
    pub tls: TlsConfig,
}

pub(crate) fn listen(mut section: Section<'_>, access: &Admin) -> Option<Listen> {
    let http = section.optional("http", parsed);
    let admin = section.optional("admin", parsed::<SocketAddr>);
    let drain = section.optional("drain", duration);
    let proxy_protocol = section.optional("proxy_protocol", boolean);
    let handover = section.optional("handover", string).map(|path| PathBuf::from(path.value));
    let https_place = section.place_of("https");
    let https = section.section("https").and_then(https);
    if let Some(Placed { value, place }) = &admin
        && !value.ip().is_loopback()
        && !access.is_guarded()
    {
        let message = format!(
            "`listen.admin`: {value} can be reached from outside, and without tokens whoever does may change rollouts; \
             name a `token_file` under `[admin]`, or use a loopback address like 127.0.0.1:8081"
        );
        section.problems().report(place, message);
    }
    section.finish();
    if https_place.is_some() && https.is_none() {
        return None;
    }
    Some(Listen {
        http: http?.value,
        https,
        proxy_protocol: proxy_protocol?.value,
        admin: admin?.value,
        drain: drain?.value,
        handover,
    })
}

fn https(mut section: Section<'_>) -> Option<Https> {
    let address = section.required("address", "\"0.0.0.0:8443\"", parsed::<SocketAddr>);
    let tls = tls(section, Offer::Both);
    Some(Https { address: address?.value, tls: tls? })
}

/// Certificates, and whom clients have to be vouched for by: all that `section` holds.
pub(crate) fn tls(mut section: Section<'_>, offer: Offer) -> Option<TlsConfig> {
    let first = files(&mut section);
    let others: Vec<_> = section
        .sections("certificates")
        .into_iter()
        .map(|mut section| {
            let files = files(&mut section);
            section.finish();
            files
        })
        .collect();
    let authorities = section.optional("client_ca", string);
    let demand = section.optional("client_certificate", parsed::<Demand>);
    if let (Some(demand), None) = (&demand, &authorities) {
        let message = "a client's certificate is checked against `client_ca = \"FILE\"`, which is missing";
        section.problems().report(&demand.place, message);
    }
    section.finish();
    let certificates: Option<Vec<_>> = std::iter::once(first).chain(others).collect();
    let clients = authorities.map(|authorities| ClientCertificates {
        authorities: authorities.value.into(),
        demand: demand.map_or(Demand::Required, |demand| demand.value),
    });
    Some(TlsConfig { certificates: certificates?, clients, offer })
}

fn files(section: &mut Section<'_>) -> Option<CertificateFiles> {
    let certificate = section.required("certificate", "\"cert.pem\"", string).map(|file| PathBuf::from(file.value));
    let key = section.required("key", "\"key.pem\"", string).map(|file| PathBuf::from(file.value));
    Some(CertificateFiles { certificate: certificate?, key: key? })
}
