//! `[admin]`: who may use the admin API.

use std::path::{Path, PathBuf};

use crate::access::{Access, Token};
use crate::diagnostic::Diagnostic;
use crate::document::{Section, string};
use crate::token_file;

/// Who may use the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// The tokens in tidegate.toml itself.
    pub tokens: Vec<Token>,
    /// The file of further tokens, which is read anew when it changes.
    pub token_file: Option<PathBuf>,
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
    section.finish();
    Admin { tokens, token_file }
}
