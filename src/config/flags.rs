//! `[flags]`: where the flags are.

use std::path::PathBuf;

use crate::document::{Section, boolean, string};

/// Where the flags are, and who is told about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// The directory of flag files.
    pub path: PathBuf,
    /// Whether clients are told their variant.
    pub expose_variant: bool,
}

pub(crate) fn flags(mut section: Section<'_>) -> Option<Flags> {
    let path = section.optional("path", string);
    let expose_variant = section.optional("expose_variant", boolean);
    section.finish();
    Some(Flags { path: path?.value.into(), expose_variant: expose_variant?.value })
}
