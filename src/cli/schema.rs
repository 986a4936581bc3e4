//! `tidegate schema`.

use crate::cli::output::print;

/// A JSON Schema of the flag file. It is written by hand: the reader walks the document itself, to tell every problem
/// with its place, so there is no type to derive a schema from. A test holds both to each other, key by key.
const FLAG_FILE: &str = include_str!("../../flags/flag.schema.json");

pub(crate) fn schema() -> anyhow::Result<()> {
    print(FLAG_FILE.trim_end())
}
