//! What users of Tidegate touch, driven from outside: sockets, files, the admin API and the command line.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::float_cmp, reason = "percentages and counts are exact, and so are the comparisons")]

mod admin;
mod backend;
mod cli;
mod flagd;
mod flags;
mod framing;
mod guards;
mod harness;
mod latency;
mod layering;
mod limits;
mod postgres;
mod proxying;
mod ramp;
mod rescue;
mod rollback;
mod schema;
mod simulate;
mod stop;
mod store;
mod tokens;
mod upstream;
