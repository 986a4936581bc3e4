//! The built-in backends over real HTTP: both modes answer alike, leave the same rows, and lose no update.

mod fault;
mod load;
mod outage;
mod parity;
mod questions;
mod running;
mod sessions;
mod start;
