//! `[store]`: where rollouts and the audit trail are kept.

use crate::document::{Placed, Section, string};
use crate::store;

pub(crate) fn store(mut section: Section<'_>) -> Option<store::Config> {
    let url = section.optional("url", string);
    if let Some(Placed { value, place }) = &url
        && !store::Config::is_known(value)
    {
        let message =
            "`store.url`: a store is sqlite:// and the path of a file, or postgres://USER:PASSWORD@HOST/DATABASE";
        section.problems().report(place, message);
    }
    section.finish();
    Some(store::Config { url: url?.value })
}
