//! What the bound on false rollbacks rests on, checked without chance where that is possible.

use std::time::Duration;

use proptest::prelude::*;

use crate::judge::mixture::{HIGHEST_ALLOWED, alternatives};
use crate::judge::stream::{likelihood_ratio, log_factor};
use crate::judge::{
    Absolute, Aside, Counts, MAX_STRATA, Outlook, Rate, Sample, Settings, Stream, StreamSettings, Tolerance, Trial,
};

const TICK: Duration = Duration::from_millis(100);

fn counts(requests: u64, failures: u64) -> Counts {
    Counts { requests, failures }
}

fn settings(tolerance: Tolerance, max_error_rate: Option<f64>) -> Settings {
    let of = |stream, tolerance| StreamSettings { stream, tolerance, history: counts(20_000, 21) };
    Settings {
        false_rollback: Rate::from_share(0.001).unwrap(),
        streams: vec![of(Stream::Errors, tolerance), of(Stream::LatencyP99, Tolerance::STRICT)],
        max_error_rate: max_error_rate.and_then(Rate::from_share),
        ..Settings::default()
    }
}

/// The probability that `failures` of `requests` fail.
fn probability(requests: u64, failures: u64, rate: f64) -> f64 {
    let ways = (0..failures).fold(1.0, |ways, taken| ways * (requests - taken) as f64 / (taken + 1) as f64);
    ways * rate.powf(failures as f64) * (1.0 - rate).powf((requests - failures) as f64)
}

/// The mean of a block's factor, over all outcomes that the block can have.
fn mean_factor(
    tolerance: Tolerance,
    (p0, p1): (f64, f64),
    (stable, canary): (f64, f64),
    (n_s, n_c): (u64, u64),
) -> f64 {
    let mut mean = 0.0;
    for x_s in 0..=n_s {
        for x_c in 0..=n_c {
            let factor = log_factor(tolerance, p0, p1, counts(n_s, x_s), counts(n_c, x_c)).exp();
            mean += factor * probability(n_s, x_s, stable) * probability(n_c, x_c, canary);
        }
    }
    mean
}

#[test]
fn no_bet_is_worth_more_than_its_stake_while_the_canary_is_as_good_as_allowed() {
    let sizes = [1, 2, 5, 9];
    let mut worst: f64 = 0.0;
    for (points, factor) in [(0.0, 1.0), (0.002, 1.25), (0.0, 1.5), (0.05, 1.0), (0.002, 1.0)] {
        let tolerance = Tolerance::new(points, factor).unwrap();
        for p0 in [1e-6, 0.001, 0.03, 0.4, 0.7] {
            let allowed = tolerance.allowed(p0);
            for p1 in alternatives(allowed).into_iter().filter(|_| allowed <= HIGHEST_ALLOWED) {
                // Stable's true rate has nothing to do with the guess, and everything up to the boundary is allowed.
                for stable in [0.0, 1e-5, 0.001, 0.02, 0.1, 0.3, 0.6, 0.9, 1.0] {
                    for part in [0.0, 0.5, 1.0] {
                        let canary = (part * tolerance.allowed(stable)).min(1.0);
                        for n_s in sizes {
                            for n_c in sizes {
                                worst = worst.max(mean_factor(tolerance, (p0, p1), (stable, canary), (n_s, n_c)));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(worst <= 1.0 + 1e-9, "a bet returns {worst} of its stake");
    assert!(worst > 0.999, "the bound is not sharp: {worst}");
}

#[test]
fn a_failure_that_was_certain_is_worth_no_more_than_what_is_set_aside_for_it() {
    let mut worst: f64 = 0.0;
    for (points, factor) in [(0.0, 1.0), (0.002, 1.25), (0.05, 1.0)] {
        let tolerance = Tolerance::new(points, factor).unwrap();
        for p0 in [1e-6, 0.001, 0.03, 0.4] {
            let allowed = tolerance.allowed(p0);
            for p1 in alternatives(allowed) {
                let price = p1 * (1.0 - allowed) / (allowed * (1.0 - p1));
                for stable in [0.0, 0.001, 0.02, 0.3, 0.9, 1.0] {
                    let canary = tolerance.allowed(stable).min(1.0);
                    for (n_s, n_c) in [(1, 1), (9, 1), (2, 5), (9, 9)] {
                        let mut mean = 0.0;
                        for x_s in 0..=n_s {
                            for others in 0..n_c {
                                let of_canary = counts(n_c, others + 1);
                                let factor = log_factor(tolerance, p0, p1, counts(n_s, x_s), of_canary).exp();
                                mean += factor * probability(n_s, x_s, stable) * probability(n_c - 1, others, canary);
                            }
                        }
                        worst = worst.max(mean / price);
                    }
                }
            }
        }
    }
    assert!(worst <= 1.0 + 1e-9, "it is worth {worst} of the price");
    assert!(worst > 0.5, "the price is far too high: {worst}");
}

#[test]
fn one_failure_more_is_needed_where_one_is_set_aside() {
    let stops = |aside| {
        let mut trial = Trial::new(&Settings { aside, ..settings(Tolerance::default(), Some(0.05)) });
        (1..100).find(|tick| {
            let sample = Sample { stream: Stream::Errors, share: 0.1, stable: counts(9, 0), canary: counts(1, 1) };
            trial.observe(TICK * *tick, &[sample]);
            trial.observe_canary(Absolute::Errors, sample.canary);
            trial.is_worse()
        })
    };
    let (without, with) = (stops(Aside::default()).unwrap(), stops(Aside::ONE_USER).unwrap());
    assert!(without < with && with <= without + 2, "{without} {with}");
}

#[test]
fn no_bet_for_a_canary_is_worth_more_than_its_stake_while_it_is_worse_by_what_matters() {
    let mut worst: f64 = 0.0;
    for (points, factor) in [(0.0, 1.8), (0.0036, 2.25), (0.09, 1.8), (0.3, 1.0)] {
        let margin = Tolerance::new(points, factor).unwrap();
        for p0 in [1e-6, 0.001, 0.03, 0.2] {
            for part in [0.03, 0.3, 0.55, 0.75] {
                let p1 = part * margin.allowed(p0);
                for stable in [0.0, 1e-5, 0.001, 0.02, 0.1, 0.3] {
                    let least = margin.allowed(stable);
                    for canary in [least, f64::midpoint(least, 1.0), 1.0] {
                        for (n_s, n_c) in [(1, 1), (1, 7), (5, 2), (9, 1), (9, 9)] {
                            worst = worst.max(mean_factor(margin, (p0, p1), (stable, canary), (n_s, n_c)));
                        }
                    }
                }
            }
        }
    }
    assert!(worst <= 1.0 + 1e-9, "a bet returns {worst} of its stake");
    assert!(worst > 0.999, "the bound is not sharp: {worst}");
}

#[test]
fn a_good_canary_is_soon_shown_not_to_be_much_worse_and_a_bad_one_never() {
    let after = |failing: u64, ticks: u32| {
        let mut trial = Trial::new(&settings(Tolerance::default(), None));
        assert!(trial.assurance().is_some_and(|(value, limit)| value.abs() < 1e-12 && limit > 2.9));
        for tick in 0..ticks {
            let canary = counts(50, failing);
            let sample = Sample { stream: Stream::Errors, share: 0.1, stable: counts(450, 0), canary };
            trial.observe(TICK * tick, &[sample]);
        }
        trial
    };
    let mut good = after(0, 40);
    assert!(good.is_assured(), "2,000 requests without a failure: {:?}", good.assurance());
    assert!(!after(0, 4).is_assured(), "200 are too few");
    good.ask_for_assurance();
    assert!(!good.is_assured(), "each step asks anew");
    assert!(after(1, 400).assurance().unwrap().0 < 0.0);
}

#[test]
fn no_bet_against_the_absolute_limit_is_worth_more_than_its_stake_below_it() {
    for limit in [1e-6, 0.01, 0.05, 0.5, 0.9] {
        for p1 in alternatives(limit) {
            for part in [0.0, 0.3, 0.8, 1.0] {
                for requests in [1, 3, 20] {
                    let outcomes = (0..=requests).map(|failures| {
                        let factor = likelihood_ratio(counts(requests, failures), p1, limit).exp();
                        factor * probability(requests, failures, part * limit)
                    });
                    let mean: f64 = outcomes.sum();
                    assert!(mean <= 1.0 + 1e-9, "{limit} {p1} {part} {requests}: {mean}");
                }
            }
        }
    }
}

#[test]
fn evidence_starts_at_one_and_without_canary_traffic_stays_there() {
    let mut trial = Trial::new(&settings(Tolerance::default(), Some(0.05)));
    assert!(trial.log_evidence().abs() < 1e-12);
    for tick in 0..5_000 {
        let failures = if tick % 7 < 3 { 40 } else { 0 };
        let sample =
            Sample { stream: Stream::Errors, share: 0.1, stable: counts(50, failures), canary: Counts::default() };
        trial.observe(TICK * tick, &[sample]);
        trial.observe_canary(Absolute::Errors, Counts::default());
    }
    assert!(trial.log_evidence().abs() < 1e-12 && !trial.is_worse());
    assert_eq!(trial.report().outlook, Outlook::Inconclusive { canary_requests: None });
}

#[test]
fn a_block_without_one_arm_is_given_up() {
    let sample = |stable, canary| Sample { stream: Stream::Errors, share: 0.5, stable, canary };
    let mut trial = Trial::new(&settings(Tolerance::STRICT, None));
    trial.observe(Duration::ZERO, &[sample(Counts::default(), counts(500, 500))]);
    let mut in_time = trial.clone();
    in_time.observe(Duration::from_secs(29), &[sample(counts(500, 0), Counts::default())]);
    assert!(in_time.is_worse());
    trial.observe(Duration::from_secs(30), &[sample(counts(500, 0), Counts::default())]);
    assert!(trial.log_evidence().abs() < 1e-12, "what lacked stable for 30 s is worth nothing");
}

#[test]
fn strata_are_bounded() {
    let mut trial = Trial::new(&settings(Tolerance::STRICT, None));
    for share in 0..1_000_u32 {
        let (stable, canary) = (counts(10, 0), Counts::default());
        trial.observe(TICK, &[Sample { stream: Stream::Errors, share: f64::from(share), stable, canary }]);
    }
    assert_eq!(trial.state().streams[0].1.gathering.len(), MAX_STRATA);
}

#[test]
fn a_verdict_says_what_it_rests_on() {
    let sample = |stable, canary| [Sample { stream: Stream::Errors, share: 0.1, stable, canary }];
    let errors_only = |max_error_rate| {
        let mut settings = settings(Tolerance::default(), max_error_rate);
        settings.streams.truncate(1);
        Trial::new(&settings)
    };
    let mut trial = errors_only(None);
    let mut needed = u64::MAX;
    for tick in 0..100 {
        trial.observe(TICK * tick, &sample(counts(900, 1), counts(100, 0)));
        let Outlook::Inconclusive { canary_requests: Some(left) } = trial.report().outlook else { break };
        needed = left;
    }
    assert!(needed < 10_000, "{needed}");
    for tick in 100..600 {
        trial.observe(TICK * tick, &sample(counts(900, 1), counts(100, 0)));
    }
    assert_eq!(trial.report().outlook, Outlook::Healthy);
    for tick in 600..640 {
        trial.observe(TICK * tick, &sample(counts(900, 1), counts(100, 30)));
    }
    let report = trial.report();
    let Outlook::Worse { cause } = report.outlook else { panic!("{report:?}") };
    assert_eq!(cause.as_str(), "error_rate");
    assert_eq!(report.streams[0].canary, counts(64_000, 1_200));

    let mut limited = errors_only(Some(0.05));
    for _ in 0..100 {
        limited.observe_canary(Absolute::Errors, counts(20, 1));
    }
    assert!(!limited.is_worse());
    for _ in 0..60 {
        limited.observe_canary(Absolute::Errors, counts(20, 4));
    }
    let Outlook::Worse { cause } = limited.report().outlook else { panic!("{:?}", limited.report()) };
    assert_eq!(cause.as_str(), "max_error_rate");
}

/// What happens in a tick: samples of two shares and two streams.
fn tick() -> impl Strategy<Value = Vec<Sample>> {
    let arm = |most: u64| {
        (0..=most, 0..=most).prop_map(|(requests, failures): (u64, u64)| counts(requests, failures.min(requests)))
    };
    let sample = (any::<bool>(), any::<bool>(), arm(40), arm(12)).prop_map(|(errors, ten, stable, canary)| Sample {
        stream: if errors { Stream::Errors } else { Stream::LatencyP99 },
        share: if ten { 0.1 } else { 0.5 },
        stable,
        canary,
    });
    prop::collection::vec(sample, 0..6)
}

fn observe(trial: &mut Trial, from: u32, ticks: &[Vec<Sample>]) {
    for (at, samples) in (from..).zip(ticks) {
        trial.observe(TICK * at, samples);
        trial.observe_canary(
            Absolute::Errors,
            samples.iter().fold(Counts::default(), |sum, sample| sum.plus(sample.canary)),
        );
    }
}

proptest! {
    #[test]
    fn a_restored_trial_goes_on_as_if_nothing_had_happened(
        before in prop::collection::vec(tick(), 0..40), after in prop::collection::vec(tick(), 0..40),
    ) {
        let settings = settings(Tolerance::default(), Some(0.05));
        let mut trial = Trial::new(&settings);
        observe(&mut trial, 0, &before);
        let mut restored = Trial::resume(&settings, trial.state());
        prop_assert_eq!(&restored, &trial);
        observe(&mut trial, 1_000, &after);
        observe(&mut restored, 1_000, &after);
        prop_assert_eq!(restored.log_evidence().to_bits(), trial.log_evidence().to_bits());
        prop_assert_eq!(restored, trial);
    }

    #[test]
    fn who_counted_makes_no_difference(ticks in prop::collection::vec(tick(), 0..40)) {
        // One gateway counted everything of a share, or several did and are heard in any order.
        let settings = settings(Tolerance::default(), None);
        let (mut as_is, mut merged) = (Trial::new(&settings), Trial::new(&settings));
        for (at, samples) in (0..).zip(&ticks) {
            let mut sums: Vec<Sample> = Vec::new();
            for sample in samples {
                let same = |sum: &&mut Sample| sum.stream == sample.stream && sum.share.to_bits() == sample.share.to_bits();
                match sums.iter_mut().find(same) {
                    Some(sum) => {
                        sum.stable = sum.stable.plus(sample.stable);
                        sum.canary = sum.canary.plus(sample.canary);
                    }
                    None => sums.push(*sample),
                }
            }
            as_is.observe(TICK * at, samples);
            merged.observe(TICK * at, &sums);
        }
        prop_assert_eq!(as_is, merged);
    }

    #[test]
    fn evidence_is_a_number_whatever_is_counted(
        blocks in prop::collection::vec((any::<[u64; 4]>(), 0_u32..64), 1..20),
        points in 0.0_f64..0.999, factor in 1.0_f64..100.0,
    ) {
        let mut trial = Trial::new(&settings(Tolerance::new(points, factor).unwrap(), Some(points)));
        for (at, ([n_s, x_s, n_c, x_c], shift)) in (0..).zip(blocks) {
            let (stable, canary) = (counts(n_s >> shift, x_s >> shift), counts(n_c >> shift, x_c >> shift));
            trial.observe(TICK * at, &[Sample { stream: Stream::Errors, share: 0.5, stable, canary }]);
            trial.observe_canary(Absolute::Errors, canary);
            prop_assert!(trial.log_evidence().is_finite() && trial.log_surplus().is_finite());
        }
    }

    #[test]
    fn another_failure_of_the_canary_never_speaks_for_it(
        n_s in 1_u64..200, n_c in 1_u64..200, x_s in 0_u64..200, x_c in 0_u64..200,
    ) {
        let after = |failures| {
            let mut trial = Trial::new(&settings(Tolerance::default(), None));
            let (stable, canary) = (counts(n_s, x_s.min(n_s)), counts(n_c, failures));
            trial.observe(TICK, &[Sample { stream: Stream::Errors, share: 0.5, stable, canary }]);
            trial.log_evidence()
        };
        let failures = x_c.min(n_c - 1);
        prop_assert!(after(failures) <= after(failures + 1) + 1e-12);
    }
}
