//! The built-in backends over real HTTP: both modes answer alike, leave the same rows, and lose no update.

mod assistant;
mod fault;
mod load;
mod outage;
mod parity;
mod proof;
mod questions;
mod random;
mod running;
mod sessions;
mod start;
mod tls;
