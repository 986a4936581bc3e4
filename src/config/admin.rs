//! `[admin]`: who may use the admin API.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::{Access, Certificate, RateLimit, Role, Subject, Token, TokenName};
use crate::config::limits::count;
use crate::config::listen::tls;
use crate::config::read::some_time;
use crate::diagnostic::{Diagnostic, Place};
use crate::document::{Section, Value, boolean, parsed, string};
use crate::downstream::{Offer, TlsConfig};
use crate::flag::{Percentage, PercentageError, SecondOperator};
use crate::token_file;

/// More requests a second than the control plane's threads could answer.
const MAX_RATE: i64 = 1_000_000;

/// How long a change waits for a second operator: until somebody else has come back to their desk.
const EXPIRES: Duration = Duration::from_secs(60 * 60);

/// Where something stands, which makes no difference to what it means.
#[derive(Debug, Clone)]
pub struct Where(Place);

impl PartialEq for Where {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Where {}

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
    /// Which changes take a second operator, if any do.
    pub second_operator: Option<(SecondOperator, Where)>,
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
        if !self.is_guarded() && self.second_operator.is_none() {
            return Ok(Access::open());
        }
        let in_file = self.token_file.as_deref().map_or_else(|| Ok(Vec::new()), token_file::load)?;
        let tokens: Vec<_> = self.tokens.iter().cloned().chain(in_file).collect();
        if let Some((_, Where(place))) = &self.second_operator {
            let tokens = tokens.iter().map(|token| (&token.name, token.role));
            let all = tokens.chain(self.certificates.iter().map(|certificate| (&certificate.name, certificate.role)));
            let operators: BTreeSet<_> =
                all.filter(|(_, role)| *role == Role::Operator).map(|(name, _)| name).collect();
            if operators.len() < 2 {
                let message = "two operators are needed where one approves what another asks for, and there are not as many \
                               under other names; `tidegate token new NAME --role operator` makes one";
                return Err(vec![Diagnostic::new(place.clone(), message)]);
            }
        }
        let access = Access::guarded(tokens);
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
    let second_operator = section.section("second_operator").and_then(second_operator);
    section.finish();
    Admin { tokens, token_file, tls, certificates, second_operator, rate_limit }
}

fn second_operator(mut section: Section<'_>) -> Option<(SecondOperator, Where)> {
    let place = section.place().clone();
    let promote = section.or("promote", boolean, false);
    let above = section.or("above", share_of_users, Percentage::FULL);
    let expires = section.or("expires", some_time, EXPIRES);
    if !promote && above == Percentage::FULL {
        let message = "this asks for no second operator: say `promote = true`, `above = \"25%\"` or both";
        section.problems().report(&place, message);
    }
    section.finish();
    Some((SecondOperator { promote, above, expires }, Where(place)))
}

/// A share of users, written `"25%"`.
fn share_of_users(value: &Value) -> Result<Percentage, String> {
    let text = string(value).map_err(|_| "wants a percentage, such as \"25%\"".to_owned())?;
    text.parse().map_err(|error: PercentageError| error.to_string())
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
