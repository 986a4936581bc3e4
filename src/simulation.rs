//! Made-up releases: what would the judge have done, and what would others?
//!
//! Pure like the judge: chance is a seed, and the same seed gives the same figures.

mod chance;
mod contender;
mod crowd;
mod race;
mod replay;
mod suite;
mod world;

pub use chance::Chance;
pub use contender::{METHODS, Method};
pub use race::{Delay, Lineup, Race, Tries};
pub use replay::{ReplaySecond, Stop, replay, replay_rival};
pub use suite::{Calm, Change, Size, calms, changes};
pub use world::{TICK, Traffic, World, history, slow_rates};
