//! What users of Tidegate touch, driven from outside: sockets, files, the admin API and the command line.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::float_cmp, reason = "percentages and counts are exact, and so are the comparisons")]

mod admin;
mod backend;
mod cli;
mod flags;
mod harness;
mod layering;
mod postgres;
mod proxying;
mod rescue;
mod rollback;
mod schema;
mod simulate;
mod stop;
mod store;
mod upstream;
