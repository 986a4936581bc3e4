//! What users of Tidegate touch, driven from outside: sockets, files, the admin API and the command line.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::float_cmp, reason = "percentages and counts are exact, and so are the comparisons")]

/// The same test on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(crate::store::Kind::Sqlite).await; })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name(crate::store::Kind::Postgres).await; })*
        }
    };
}

mod admin;
mod admin_tls;
mod audit;
mod backend;
mod bad_requests;
mod beta;
mod cli;
mod compare;
mod dashboard;
mod direct;
mod faults;
mod flagd;
mod flags;
mod fleet;
mod framing;
mod framing2;
mod guards;
mod harness;
mod identity;
mod latency;
mod layering;
mod leaks;
mod limits;
mod manners;
mod notify;
mod openapi;
mod postgres;
mod protocols;
mod proxying;
mod ramp;
mod reload;
mod replay;
mod rescue;
mod rollback;
mod schema;
mod second;
mod seeing;
mod servers;
mod shadow;
mod simulate;
mod stop;
mod store;
mod takeover;
mod terminal;
mod tls;
mod tokens;
mod upstream;
mod why;
