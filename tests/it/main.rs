//! What users of Tidegate touch, driven from outside: sockets, files, the admin API and the command line.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backend;
