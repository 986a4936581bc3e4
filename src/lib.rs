//! Tidegate, a canary gateway.
//!
//! It stands in front of two implementations of one service, sends each request to one of them as a hot-reloadable set
//! of flags says, records how every request ended, and takes the canary out of traffic when it is worse.
//!
//! The modules are grouped by floor, top floor first. A module uses only modules on lower floors; `tests/it/layering.rs`
//! holds them to that.

pub mod cli;

pub mod server;

pub mod config;

pub mod admin;
pub mod downstream;
pub mod flag_file;
pub mod notify;
pub mod proxy;
pub mod rollout;
pub mod store;
pub mod token_file;

pub mod api;
pub mod availability;
pub mod clock;
pub mod diagnostic;
pub mod document;
pub mod flag_store;
pub mod recorder;
pub mod remade;
pub mod shadow;
pub mod telemetry;

pub mod simulation;

pub mod access;
pub mod flag;
pub mod judge;
pub mod outcome;

pub mod backend;
