//! What a gateway has under way.

use std::sync::Arc;

use tokio::runtime::RuntimeMetrics;

use crate::downstream::Seats;
use crate::proxy::InFlight;

/// What a gateway has under way. Without traffic it comes back to where it was at the start: what does not was leaked.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// The requests.
    pub in_flight: Arc<InFlight>,
    /// The clients' connections.
    pub seats: Arc<Seats>,
    /// The tasks, by what the runtime that they are on is for.
    pub runtimes: Vec<(&'static str, RuntimeMetrics)>,
}
