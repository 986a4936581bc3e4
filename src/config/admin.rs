//! `[admin]`: who may use the admin API.

use std::path::{Path, PathBuf};

use crate::access::{Access, Certificate, RateLimit, Role, Subject, Token, TokenName};
use crate::config::limits::count;
use crate::config::listen::tls;
use crate::diagnostic::Diagnostic;
use crate::document::{Section, parsed, string};
use crate::downstream::{Offer, TlsConfig};
use crate::token_file;

/// More requests a second than the control plane's threads could answer.
const MAX_RATE: i64 = 1_000_000;

/// Who may use the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// The tokens in tidegate.toml itself.
    pub tokens: Vec<Token>,
    /// The file of further tokens, which is read anew when it changes.
    pub token_file: Option<PathBuf>,
    /// What TLS it speaks, if any.
    pub tls: Option<TlsConfig>,
    /// Whom certificates of clients stand for.
    pub certificates: Vec<Certificate>,
    /// How many requests each token, or each address where none is shown, may make.
    pub rate_limit: RateLimit,
}

impl Admin {
    /// Whether anybody needs a token or a certificate.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        !self.tokens.is_empty() || self.token_file.is_some() || !self.certificates.is_empty()
    }

    /// The tokens in force at the start.
    ///
    /// # Errors
    ///
    /// If the file of tokens cannot be used.
    pub fn access(&self) -> Result<Access, Vec<Diagnostic>> {
        if !self.is_guarded() {
            return Ok(Access::open());
        }
        let in_file = self.token_file.as_deref().map_or_else(|| Ok(Vec::new()), token_file::load)?;
        let access = Access::guarded(self.tokens.iter().cloned().chain(in_file).collect());
        access.certify(self.certificates.clone());
        Ok(access)
    }

    /// The file of tokens, if there is one.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }
}

pub(crate) fn admin(mut section: Section<'_>) -> Admin {
    let tokens = token_file::tokens(&mut section);
    let token_file = section.optional("token_file", string).map(|file| PathBuf::from(file.value));
    let rate_limit = section.section("rate_limit").map(rate_limit).unwrap_or_default();
    let tls = section.section("tls").and_then(|section| tls(section, Offer::Http1));
    let place = section.place_of("certificates");
    let certificates = certificates(&mut section);
    if let (Some(place), false) = (place, tls.as_ref().is_some_and(|tls| tls.clients.is_some())) {
        let message = "clients show certificates over TLS alone: name those who vouch for them, as `client_ca` of \
                       `[admin.tls]`";
        section.problems().report(&place, message);
    }
    section.finish();
    Admin { tokens, token_file, tls, certificates, rate_limit }
}

/// The certificates under `certificates`, each with the name that it stands for.
fn certificates(section: &mut Section<'_>) -> Vec<Certificate> {
    let mut certificates: Vec<Certificate> = Vec::new();
    for (name, mut table) in section.named_sections("certificates") {
        let problems = table.problems();
        let read: Result<TokenName, _> = name.value.parse();
        if let Err(error) = &read {
            problems.report(&name.place, format!("`{}`: {error}", name.value));
        }
        let role = table.required("role", "\"operator\"", parsed::<Role>);
        let mut told = [
            table.optional("common_name", string).map(|text| text.map(Subject::CommonName)),
            table.optional("dns", string).map(|text| text.map(|text| Subject::Dns(text.to_ascii_lowercase()))),
            table.optional("email", string).map(|text| text.map(Subject::Email)),
            table.optional("uri", string).map(|text| text.map(Subject::Uri)),
        ]
        .into_iter()
        .flatten();
        let (subject, second) = (told.next(), told.next());
        let message = match (&subject, &second) {
            (Some(subject), None) if certificates.iter().any(|other| other.subject == subject.value) => {
                Some(format!("{} stands for somebody else already", subject.value))
            }
            (Some(_), None) => None,
            _ => Some("a certificate is known by one of `common_name`, `dns`, `email` and `uri`".to_owned()),
        };
        if let Some(message) = message {
            problems.report(&name.place, format!("`{}`: {message}", name.value));
        }
        table.finish();
        if let (Ok(name), Some(role), Some(subject)) = (read, role, subject) {
            certificates.push(Certificate { name, role: role.value, subject: subject.value });
        }
    }
    certificates
}

fn rate_limit(mut section: Section<'_>) -> RateLimit {
    let RateLimit { per_second, burst } = RateLimit::default();
    let per_second = section.or("per_second", count(1..=MAX_RATE), per_second);
    let burst = section.or("burst", count(1..=MAX_RATE), burst);
    section.finish();
    RateLimit { per_second, burst }
}
