//! The gateways that share a store.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A gateway, as it tells the others that share its store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its number, new at every start.
    pub id: String,
    /// Its machine and port.
    pub name: String,
    /// The version of Tidegate.
    pub version: String,
    /// The version of its flag files.
    pub flag_set_version: String,
    /// Since when it runs, in RFC 3339.
    pub started: String,
    /// How long ago it was last heard of, in milliseconds, by the store's clock.
    pub lag_ms: u64,
    /// Whether that is not too long ago.
    pub alive: bool,
}

/// The gateways that share a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// The one that answers.
    pub this: String,
    /// All of them, by name.
    pub instances: Vec<Instance>,
}
