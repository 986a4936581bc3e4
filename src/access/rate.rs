//! How many requests whoever is let in may make.

/// How many requests one asker may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// A second, for as long as they like.
    pub per_second: u32,
    /// At once, after they have made none for a while.
    pub burst: u32,
}

impl Default for RateLimit {
    /// More than a script that looks all the time, and too few to keep the judge from its work.
    fn default() -> Self {
        Self { per_second: 500, burst: 1000 }
    }
}
