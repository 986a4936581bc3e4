//! `[store]`: where rollouts and the audit trail are kept.

use crate::document::{Placed, Section, string};
use crate::store;

pub(crate) fn store(mut section: Section<'_>) -> Option<store::Config> {
    let url = section.optional("url", string);
    if let Some(Placed { value, place }) = &url
        && !value.starts_with("sqlite:")
    {
        let message = format!("`store.url`: only sqlite:// is supported yet in this version, not \"{value}\"");
        section.problems().report(place, message);
    }
    section.finish();
    Some(store::Config { url: url?.value })
}
