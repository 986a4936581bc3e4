//! `[admin]`: who may use the admin API.

use std::path::{Path, PathBuf};

use crate::access::{Access, RateLimit, Token};
use crate::config::limits::count;
use crate::diagnostic::Diagnostic;
use crate::document::{Section, string};
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
    /// How many requests each token, or each address where none is shown, may make.
    pub rate_limit: RateLimit,
}

impl Admin {
    /// Whether anybody needs a token.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        !self.tokens.is_empty() || self.token_file.is_some()
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
        Ok(Access::guarded(self.tokens.iter().cloned().chain(in_file).collect()))
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
    section.finish();
    Admin { tokens, token_file, rate_limit }
}

fn rate_limit(mut section: Section<'_>) -> RateLimit {
    let RateLimit { per_second, burst } = RateLimit::default();
    let per_second = section.or("per_second", count(1..=MAX_RATE), per_second);
    let burst = section.or("burst", count(1..=MAX_RATE), burst);
    section.finish();
    RateLimit { per_second, burst }
}
