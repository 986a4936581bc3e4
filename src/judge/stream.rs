//! The test of one stream of outcomes: is the canary's rate above what stable's rate allows?
//!
//! Outcomes are gathered into blocks that hold both arms, each block is a bet, and the bets multiply to the evidence M.
//! While the canary is no worse than allowed, no bet is worth more than its stake on average, whatever stable's rate does,
//! so M reaches `1 / alpha` with a probability of at most alpha, ever (Ville's inequality). The bets are the e-variables of
//! Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping";
//! their product is what became of Wald's sequential probability ratio when neither rate is known.

use std::time::Duration;

use crate::judge::Counts;
use crate::judge::assurance::{Assurance, AssuranceState, BETTER};
use crate::judge::baseline::{Baseline, Memory};
use crate::judge::mixture::{ALTERNATIVES, HIGHEST_ALLOWED, Mixture, Stake, alternatives};
use crate::judge::tolerance::Tolerance;

/// A block that lacks an arm for this long is given up: what stable did long ago says little about the canary now.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How many blocks are gathered at a time.
///
/// A stratum for each step of a ramp, with a fleet in the middle of a step, needs
/// far fewer; past it the oldest block is given up, which costs power and nothing else.
pub const MAX_STRATA: usize = 64;

/// How many requests of the rarer arm are to be expected in a block.
///
/// Measured with `tidegate simulate --suite` at 10 requests a second: with 0 a regression from 0.1 to 5 % takes 1.6 W, with
/// 0.75 it takes 1.45 W; with 1 and more, a canary that fails always is seen later.
const ENOUGH: f64 = 0.75;

/// With as many requests of each arm a block is enough whatever was expected, so that a share that has just grown does not
/// hold blocks up.
const PLENTY: u64 = 4;

/// A block in the making.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gathering {
    /// The share of requests that was to go to the canary when these were routed. It only keeps strata apart.
    pub share: f64,
    /// When the first of them were seen, since the trial began.
    pub since: Duration,
    /// Stable's outcomes.
    pub stable: Counts,
    /// The canary's outcomes.
    pub canary: Counts,
}

/// All that a stream's test remembers. Its parts are plain numbers, so that it can be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    /// What stable's rate is believed to be.
    pub slow: Memory,
    /// What that is compared with.
    pub fast: Memory,
    /// The bets.
    pub stakes: [Stake; ALTERNATIVES],
    /// The blocks in the making, at most [`MAX_STRATA`], oldest first.
    pub gathering: Vec<Gathering>,
    /// Stable's outcomes that were bet on, so far.
    pub stable: Counts,
    /// The canary's.
    pub canary: Counts,
    /// The canary's share of the requests lately, 0 to 1; 0 before the first block.
    pub recent_share: f64,
    /// The evidence for the canary.
    pub assurance: AssuranceState,
}

/// How many requests [`StreamState::recent_share`] reaches back.
const RECENT: f64 = 2e4;

/// The test of one stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StreamTest {
    tolerance: Tolerance,
    baseline: Baseline,
    mixture: Mixture,
    gathering: Vec<Gathering>,
    stable: Counts,
    canary: Counts,
    recent_share: f64,
    assurance: Assurance,
}

impl StreamTest {
    /// A test that has seen nothing but what stable did before the canary came, and whose evidence is to hold without any
    /// `aside` failures of the canary.
    pub(crate) fn new(tolerance: Tolerance, aside: u64, history: Counts) -> Self {
        let Baseline { slow, fast } = Baseline::new(history);
        let (stable, canary) = (Counts::default(), Counts::default());
        let stakes = [Stake::START; ALTERNATIVES];
        let gathering = Vec::new();
        let (recent_share, assurance) = (0.0, [0.0; BETTER]);
        let state = StreamState { slow, fast, stakes, gathering, stable, canary, recent_share, assurance };
        Self::resume(tolerance, aside, state)
    }

    /// The test that was in this state.
    pub(crate) fn resume(tolerance: Tolerance, aside: u64, state: StreamState) -> Self {
        let StreamState { slow, fast, stakes, gathering, stable, canary, recent_share, assurance } = state;
        let (baseline, mixture) = (Baseline { slow, fast }, Mixture::new(stakes, aside));
        let assurance = Assurance::new(tolerance, assurance);
        Self { tolerance, baseline, mixture, gathering, stable, canary, recent_share, assurance }
    }

    pub(crate) fn state(&self) -> StreamState {
        StreamState {
            slow: self.baseline.slow,
            fast: self.baseline.fast,
            stakes: self.mixture.stakes(),
            gathering: self.gathering.clone(),
            stable: self.stable,
            canary: self.canary,
            recent_share: self.recent_share,
            assurance: self.assurance.state(),
        }
    }

    pub(crate) fn log_evidence(&self) -> f64 {
        self.mixture.log_evidence()
    }

    /// ln of the evidence for the canary: that it is not worse by the smallest regression that matters.
    pub(crate) fn log_assurance(&self) -> f64 {
        self.assurance.log_evidence()
    }

    /// Asks for that evidence anew. The evidence against the canary stays.
    pub(crate) fn ask_for_assurance(&mut self) {
        self.assurance.begin_anew();
    }

    pub(crate) fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    /// What stable's rate is believed to be.
    pub(crate) fn believed(&self) -> f64 {
        self.baseline.rate()
    }

    /// The canary's share of the requests lately, between 0 and 1; nothing before the first block.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.recent_share > 0.0).then_some(self.recent_share)
    }

    /// Stable's and the canary's outcomes that were bet on, so far.
    pub(crate) fn counts(&self) -> (Counts, Counts) {
        (self.stable, self.canary)
    }

    /// Gives up the blocks that have lacked an arm for too long at `at`. Comes before what is new at that time.
    pub(crate) fn give_up(&mut self, at: Duration) {
        let baseline = &mut self.baseline;
        self.gathering.retain(|block| {
            let whole = block.stable.requests > 0 && block.canary.requests > 0;
            let fresh = whole || at.saturating_sub(block.since) < PATIENCE;
            if !fresh {
                baseline.learn(block.stable);
            }
            fresh
        });
    }

    /// Adds outcomes to the block of their stratum.
    pub(crate) fn gather(&mut self, at: Duration, share: f64, stable: Counts, canary: Counts) {
        if stable.requests == 0 && canary.requests == 0 {
            return;
        }
        let same = |block: &&mut Gathering| block.share.to_bits() == share.to_bits();
        if let Some(block) = self.gathering.iter_mut().find(same) {
            block.stable = block.stable.plus(stable);
            block.canary = block.canary.plus(canary);
            return;
        }
        if self.gathering.len() >= MAX_STRATA {
            let oldest = self.gathering.remove(0);
            self.baseline.learn(oldest.stable);
        }
        self.gathering.push(Gathering { share, since: at, stable: stable.sound(), canary: canary.sound() });
        // Of those that began at the same time, whichever was heard first must make no difference.
        self.gathering.sort_by(|a, b| a.since.cmp(&b.since).then(a.share.total_cmp(&b.share)));
    }

    /// Bets on every block that is whole at `at`. Comes once a tick, after all that is new.
    ///
    /// Which ones are whole is settled before the first bet, and they are bet on by share: the order in which gateways are
    /// heard must make no difference.
    pub(crate) fn settle(&mut self, at: Duration) {
        let gathering = std::mem::take(&mut self.gathering);
        let (mut whole, rest): (Vec<_>, Vec<_>) = gathering.into_iter().partition(|block| self.is_whole(block, at));
        self.gathering = rest;
        whole.sort_by(|a, b| a.share.total_cmp(&b.share));
        for block in whole {
            self.bet(block.stable, block.canary);
        }
    }

    /// Whether a block is to be bet on: it holds both arms, and enough requests for the rarer one to be expected in it, or
    /// has waited long enough for them.
    ///
    /// A block that ended with the first request of the rarer arm would often hold far less of the other than usual, and be
    /// worth less for it. How many requests are enough is known from earlier blocks, four of each arm always are, and the
    /// outcomes have no say in it.
    fn is_whole(&self, block: &Gathering, at: Duration) -> bool {
        let requests = block.stable.requests.saturating_add(block.canary.requests) as f64;
        let rarer = self.recent_share.min(1.0 - self.recent_share);
        let fewer = block.stable.requests.min(block.canary.requests);
        let enough = requests * rarer >= ENOUGH || fewer >= PLENTY || at.saturating_sub(block.since) >= PATIENCE;
        block.stable.requests > 0 && block.canary.requests > 0 && (enough || self.recent_share <= 0.0)
    }

    fn bet(&mut self, stable: Counts, canary: Counts) {
        let p0 = self.baseline.rate();
        let allowed = self.tolerance.allowed(p0);
        if allowed <= HIGHEST_ALLOWED {
            let tolerance = self.tolerance;
            self.mixture
                .bet(canary, allowed, alternatives(allowed), |p1| log_factor(tolerance, p0, p1, stable, canary));
        }
        self.assurance.bet(p0, stable, canary);
        self.baseline.learn(stable);
        self.stable = self.stable.plus(stable);
        self.canary = self.canary.plus(canary);
        let requests = stable.requests as f64 + canary.requests as f64;
        let kept = if self.recent_share > 0.0 { (-requests / RECENT).exp() } else { 0.0 };
        self.recent_share = self.recent_share * kept + canary.requests as f64 / requests * (1.0 - kept);
    }
}

/// The logarithm of a block's factor: how much likelier its outcomes are under the rates `p0` and `p1` than in the allowed
/// world that is nearest to those.
///
/// With the share of the canary in the block itself, the factor of one request is 1 on average on the boundary of what is
/// allowed and less inside; that a block of many with fixed arms has at most 1 too follows from the weighted inequality of
/// arithmetic and geometric means. It is not capped: with a cap of 3.45 nats a block, which would be
/// valid too, three times as many cases of `tidegate simulate --suite --quick` miss the goal. A share that was merely configured would not do: routing may lag behind it.
pub(crate) fn log_factor(tolerance: Tolerance, p0: f64, p1: f64, stable: Counts, canary: Counts) -> f64 {
    let (stable_requests, canary_requests) = (stable.requests as f64, canary.requests as f64);
    let q = tolerance.nearest(canary_requests / (stable_requests + canary_requests), p0, p1);
    likelihood_ratio(canary, p1, tolerance.allowed(q)) + likelihood_ratio(stable, p0, q)
}

/// The logarithm of how much likelier the counts are under the rate `p` than under `q`. Both must lie between 0 and 1.
pub(crate) fn likelihood_ratio(counts: Counts, p: f64, q: f64) -> f64 {
    let failures = counts.failures as f64;
    let successes = counts.requests as f64 - failures;
    let failed = if counts.failures > 0 { failures * (p / q).ln() } else { 0.0 };
    failed + successes * ((q - p) / (1.0 - q)).ln_1p()
}
