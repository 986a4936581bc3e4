//! Which of a backend's servers gets the next request.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::proxy::upstream::endpoint::Endpoint;

/// The most servers that one request is tried on.
pub(crate) const MAX_TRIES: usize = 3;

/// How requests are spread over the servers of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// To each in turn.
    #[default]
    RoundRobin,
    /// To the one of two chosen at random that has fewer requests under way (Mitzenmacher, "The Power of Two Choices in
    /// Randomized Load Balancing", 2001).
    LeastLoaded,
    /// To the one that the targeting key stands highest with (rendezvous hashing; Thaler and Ravishankar, 1998): a server
    /// that comes or goes moves its own share of keys and no other.
    Hash,
}

/// A text that names no way to balance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are `round-robin`, `least-loaded` and `hash`")]
pub struct BalanceError;

impl FromStr for Balance {
    type Err = BalanceError;

    fn from_str(text: &str) -> Result<Self, BalanceError> {
        match text {
            "round-robin" => Ok(Self::RoundRobin),
            "least-loaded" => Ok(Self::LeastLoaded),
            "hash" => Ok(Self::Hash),
            _ => Err(BalanceError),
        }
    }
}

/// The servers that a request has been tried on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried {
    ids: [u64; MAX_TRIES],
    count: usize,
}

impl Tried {
    pub(crate) fn add(&mut self, endpoint: &Endpoint) {
        if let Some(place) = self.ids.get_mut(self.count) {
            *place = endpoint.id();
            self.count += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn holds(&self, endpoint: &Endpoint) -> bool {
        self.ids.iter().take(self.count).any(|id| *id == endpoint.id())
    }

    pub(crate) fn may_try_another(&self) -> bool {
        self.count < MAX_TRIES
    }
}

/// The endpoint for a request: of those that are well; if there is none, of those that are set aside; if there is none
/// either, of all, since a check may be wrong and a request that is not sent is lost for sure.
///
/// `turn` is another number for each request, `key` the hash of its targeting key.
pub(crate) fn pick<'e>(
    endpoints: &'e [Arc<Endpoint>],
    balance: Balance,
    turn: u64,
    key: Option<u64>,
    tried: &Tried,
    now: Instant,
) -> Option<&'e Arc<Endpoint>> {
    let untried = |endpoint: &&Arc<Endpoint>| !tried.holds(endpoint);
    let healthy = |endpoint: &&Arc<Endpoint>| untried(endpoint) && endpoint.is_healthy();
    let well = |endpoint: &&Arc<Endpoint>| healthy(endpoint) && !endpoint.is_ejected(now);
    choose(endpoints.iter().filter(well), balance, turn, key)
        .or_else(|| choose(endpoints.iter().filter(healthy), balance, turn, key))
        .or_else(|| choose(endpoints.iter().filter(untried), balance, turn, key))
}

fn choose<'e>(
    candidates: impl Iterator<Item = &'e Arc<Endpoint>> + Clone,
    balance: Balance,
    turn: u64,
    key: Option<u64>,
) -> Option<&'e Arc<Endpoint>> {
    let count = candidates.clone().count();
    let nth = |number: u64| {
        let place = number.checked_rem(count as u64).and_then(|place| usize::try_from(place).ok())?;
        candidates.clone().nth(place)
    };
    match (balance, key) {
        (Balance::Hash, Some(key)) => candidates.max_by_key(|endpoint| mix(key ^ endpoint.id())),
        (Balance::RoundRobin | Balance::Hash, _) => nth(turn),
        (Balance::LeastLoaded, _) => {
            let random = mix(turn);
            let first = nth(random >> 32)?;
            // The second is another one, if there is one.
            let others = (count as u64).saturating_sub(1).max(1);
            let second = nth((random >> 32) % count as u64 + 1 + (random & 0xffff_ffff) % others)?;
            Some(if second.in_flight() < first.in_flight() { second } else { first })
        }
    }
}

/// Spreads a number over all 64 bits (the finalizer of `SplitMix64`; Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use pingora_core::upstreams::peer::HttpPeer;

    use super::*;
    use crate::proxy::upstream::endpoint::{Ejection, Lease};

    fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
        let one = |number: usize| {
            let peer = HttpPeer::new("127.0.0.1:1", false, String::new());
            Arc::new(Endpoint::new(format!("server-{number}"), String::new(), peer, crate::clock::now()))
        };
        (0..count).map(one).collect()
    }

    fn name(endpoints: &[Arc<Endpoint>], balance: Balance, turn: u64, key: Option<u64>, tried: &Tried) -> String {
        pick(endpoints, balance, turn, key, tried, crate::clock::now()).unwrap().name().to_owned()
    }

    #[test]
    fn in_turn_and_past_those_that_are_not_well() {
        let endpoints = endpoints(3);
        let turns = |count: u64| -> Vec<_> {
            (0..count).map(|turn| name(&endpoints, Balance::RoundRobin, turn, None, &Tried::default())).collect()
        };
        assert_eq!(turns(4), ["server-0", "server-1", "server-2", "server-0"]);
        endpoints[1].set_healthy(false);
        assert_eq!(turns(3), ["server-0", "server-2", "server-0"]);
        let ejection = Ejection { after: 1, ..Ejection::default() };
        assert!(endpoints[0].failed(ejection, crate::clock::now()));
        assert_eq!(turns(2), ["server-2", "server-2"]);
        // Set aside is better than found unwell, and that is better than nothing.
        endpoints[2].set_healthy(false);
        assert_eq!(turns(2), ["server-0", "server-0"]);
        endpoints[0].set_healthy(false);
        assert_eq!(turns(3), ["server-0", "server-1", "server-2"]);
    }

    #[test]
    fn a_request_is_not_tried_twice_on_one() {
        let endpoints = endpoints(2);
        let mut tried = Tried::default();
        tried.add(&endpoints[0]);
        assert_eq!(name(&endpoints, Balance::RoundRobin, 0, None, &tried), "server-1");
        tried.add(&endpoints[1]);
        assert!(pick(&endpoints, Balance::RoundRobin, 0, None, &tried, crate::clock::now()).is_none());
        assert!(pick(&[], Balance::LeastLoaded, 0, None, &tried, crate::clock::now()).is_none());
    }

    #[test]
    fn the_less_loaded_of_two() {
        let endpoints = endpoints(2);
        let _busy = Lease::new(Arc::clone(&endpoints[0]));
        for turn in 0..20 {
            assert_eq!(name(&endpoints, Balance::LeastLoaded, turn, None, &Tried::default()), "server-1");
        }
        let many = self::endpoints(10);
        let chosen: HashMap<_, usize> = (0..10_000).fold(HashMap::new(), |mut chosen, turn| {
            *chosen.entry(name(&many, Balance::LeastLoaded, turn, None, &Tried::default())).or_default() += 1;
            chosen
        });
        assert!(chosen.len() == 10 && chosen.values().all(|count| (800..1200).contains(count)), "{chosen:?}");
    }

    #[test]
    fn a_key_stays_where_it_is_when_another_server_goes() {
        let endpoints = endpoints(5);
        let all = |endpoints: &[Arc<Endpoint>]| -> Vec<_> {
            (0..1000).map(|key| name(endpoints, Balance::Hash, 0, Some(mix(key)), &Tried::default())).collect()
        };
        let before = all(&endpoints);
        let after = all(&endpoints[..4]);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let of_the_last = before.iter().filter(|name| *name == "server-4").count();
        assert_eq!(moved, of_the_last);
        assert!((120..280).contains(&of_the_last), "{of_the_last} of 1000 on one of five");
    }
}
