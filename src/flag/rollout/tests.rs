//! Every change of a rollout, from every state.

use std::time::Duration;

use proptest::prelude::*;

use crate::flag::Flag;
use crate::flag::bucket::{Bucketer, HashVersion};
use crate::flag::percentage::Percentage;
use crate::flag::ramp::{Onward, Ramp, RampAction, RampStep, Stay};
use crate::flag::rollout::{Adoption, Generation, Phase, RampState, Refusal, Rollout};
use crate::flag::rule::Rules;

fn flag(release: &str, percent: f64, enabled: bool) -> Flag {
    Flag {
        key: "async-database".parse().unwrap(),
        description: String::new(),
        owner: String::new(),
        enabled,
        release: release.to_owned(),
        stable: "sync".parse().unwrap(),
        canary: "async".parse().unwrap(),
        percentage: percent_of(percent),
        bucketer: Bucketer::new(HashVersion::FlagdV2, "async-database"),
        beta: std::iter::empty::<&str>().collect(),
        rules: Rules::default(),
        ramp: None,
        shadow: None,
    }
}

fn percent_of(percent: f64) -> Percentage {
    Percentage::from_percent(percent).unwrap()
}

fn state(phase: Phase, percent: f64) -> Rollout {
    let mut rollout = Rollout::begin(&flag("1", 10.0, true), Generation::new(5));
    rollout.phase = phase;
    rollout.percentage = percent_of(percent);
    rollout
}

#[track_caller]
fn check(result: Result<Rollout, Refusal>, expected: Result<(Phase, f64, u64), Refusal>) {
    let seen = result.map(|rollout| (rollout.phase, rollout.percentage.as_percent(), rollout.generation.get()));
    assert_eq!(seen, expected);
}

#[test]
fn changes_by_people() {
    check(state(Phase::Manual, 10.0).set(percent_of(25.0)), Ok((Phase::Manual, 25.0, 6)));
    check(state(Phase::Manual, 10.0).set(percent_of(10.0)), Ok((Phase::Manual, 10.0, 5)));
    check(state(Phase::Paused, 10.0).set(percent_of(25.0)), Ok((Phase::Paused, 25.0, 6)));
    check(state(Phase::Promoted, 100.0).set(percent_of(50.0)), Ok((Phase::Manual, 50.0, 6)));
    check(state(Phase::RolledBack, 10.0).set(percent_of(25.0)), Err(Refusal::RolledBack));

    check(state(Phase::Manual, 10.0).pause(), Ok((Phase::Paused, 10.0, 6)));
    check(state(Phase::Paused, 10.0).pause(), Ok((Phase::Paused, 10.0, 5)));
    check(state(Phase::RolledBack, 10.0).pause(), Err(Refusal::RolledBack));
    check(state(Phase::Promoted, 100.0).pause(), Err(Refusal::Promoted));

    check(state(Phase::Paused, 10.0).resume(None, None), Ok((Phase::Manual, 10.0, 6)));
    check(state(Phase::RolledBack, 10.0).resume(None, None), Ok((Phase::Manual, 10.0, 6)));
    check(state(Phase::RolledBack, 10.0).resume(Some(percent_of(1.0)), None), Ok((Phase::Manual, 1.0, 6)));
    check(
        state(Phase::RolledBack, 10.0).resume(Some(percent_of(11.0)), None),
        Err(Refusal::ResumeHigher(percent_of(10.0))),
    );
    check(state(Phase::Manual, 10.0).resume(None, None), Err(Refusal::NothingToResume));

    check(state(Phase::Paused, 10.0).promote(), Ok((Phase::Promoted, 100.0, 6)));
    check(state(Phase::RolledBack, 10.0).promote(), Err(Refusal::RolledBack));

    check(Ok(state(Phase::Promoted, 100.0).roll_back()), Ok((Phase::RolledBack, 100.0, 6)));
    check(Ok(state(Phase::RolledBack, 10.0).roll_back()), Ok((Phase::RolledBack, 10.0, 5)));
}

#[track_caller]
fn check_file(before: &Rollout, file: &Flag, adoptions: &[Adoption], phase: Phase, in_force: f64) {
    let (after, seen) = before.adopt(file, None);
    assert_eq!(seen, adoptions);
    assert_eq!((after.phase, after.in_force()), (phase, percent_of(in_force)));
    assert_eq!(after.generation > before.generation, !adoptions.is_empty());
    assert_eq!(after.adopt(file, Some(file)), (after.clone(), vec![]), "reading the same file again is no change");
}

#[test]
fn changes_by_the_file() {
    let set = state(Phase::Manual, 25.0);
    check_file(&set, &flag("1", 10.0, true), &[], Phase::Manual, 25.0);
    check_file(&set, &flag("1", 50.0, true), &[Adoption::Percentage], Phase::Manual, 50.0);
    check_file(&set, &flag("1", 10.0, false), &[Adoption::Enabled], Phase::Manual, 0.0);
    check_file(&set, &flag("2", 10.0, true), &[Adoption::Release], Phase::Manual, 10.0);

    let latched = state(Phase::RolledBack, 25.0);
    check_file(&latched, &flag("1", 10.0, true), &[], Phase::RolledBack, 0.0);
    check_file(&latched, &flag("1", 50.0, true), &[Adoption::PercentageUnderLatch], Phase::RolledBack, 0.0);
    check_file(&latched, &flag("1", 10.0, false), &[Adoption::Enabled], Phase::RolledBack, 0.0);
    check_file(&latched, &flag("2", 50.0, true), &[Adoption::Release], Phase::Manual, 50.0);
}

#[test]
fn a_latch_survives_the_kill_switch_and_edits_made_under_it() {
    let latched = state(Phase::RolledBack, 25.0);
    let (off, _) = latched.adopt(&flag("1", 10.0, false), None);
    let (edited, _) = off.adopt(&flag("1", 100.0, true), None);
    assert_eq!((edited.phase, edited.in_force()), (Phase::RolledBack, Percentage::ZERO));
    check(edited.resume(None, None), Ok((Phase::Manual, 25.0, 8)));
}

#[test]
fn other_arms_are_another_generation() {
    let before = flag("1", 10.0, true);
    let mut after = before.clone();
    after.bucketer = Bucketer::new(HashVersion::FlagdV2, "other users first");
    let (_, adoptions) = state(Phase::Manual, 25.0).adopt(&after, Some(&before));
    assert_eq!(adoptions, [Adoption::Arms]);
}
fn ramp() -> Ramp {
    let step = |share, seconds, approve| RampStep {
        percentage: percent_of(share),
        hold: Duration::from_secs(seconds),
        approve,
    };
    let steps = vec![step(1.0, 10, false), step(5.0, 0, true), step(25.0, 20, false), step(100.0, 0, false)];
    Ramp::new(steps, Duration::from_secs(100), 10).unwrap()
}

fn with_ramp(release: &str, percent: f64) -> Flag {
    Flag { ramp: Some(ramp()), ..flag(release, percent, true) }
}

/// A rollout that has been on its ramp for a while.
fn ramping(phase: Phase, percent: f64) -> Rollout {
    let held = RampState { held: Duration::from_secs(7), requests: 70, ..RampState::RUNNING };
    Rollout {
        phase,
        percentage: percent_of(percent),
        ramp: Some(held),
        ..Rollout::begin(&with_ramp("1", 0.0), Generation::new(5))
    }
}

const NOTHING: Stay = Stay { held: Duration::ZERO, requests: 0, not_worse: false };

#[test]
fn a_release_begins_on_the_first_step() {
    let begun = Rollout::begin(&with_ramp("1", 50.0), Generation::FIRST);
    assert_eq!(
        (begun.phase, begun.percentage, begun.ramp),
        (Phase::Ramping, percent_of(1.0), Some(RampState::RUNNING))
    );
    let (next, _) = ramping(Phase::RolledBack, 25.0).adopt(&with_ramp("2", 0.0), None);
    assert_eq!((next.phase, next.percentage, next.ramp), (Phase::Ramping, percent_of(1.0), Some(RampState::RUNNING)));
}

#[track_caller]
fn check_ramp(result: Result<Rollout, Refusal>, expected: Result<(Phase, f64, bool, u64), Refusal>) {
    let seen = result.map(|rollout| {
        let ramp = rollout.ramp.unwrap();
        (rollout.phase, rollout.percentage.as_percent(), ramp.active, ramp.held.as_secs())
    });
    assert_eq!(seen, expected);
}

#[test]
fn people_and_the_ramp() {
    let (steps, on) = (ramp(), |phase| ramping(phase, 5.0));
    let some = Some(&steps);
    check_ramp(on(Phase::Ramping).set(percent_of(5.0)), Ok((Phase::Manual, 5.0, false, 0)));
    check_ramp(on(Phase::Paused).set(percent_of(2.0)), Ok((Phase::Paused, 2.0, false, 0)));
    check_ramp(on(Phase::Ramping).pause(), Ok((Phase::Paused, 5.0, true, 7)));
    check_ramp(on(Phase::Paused).resume(None, some), Ok((Phase::Ramping, 5.0, true, 7)));
    check_ramp(on(Phase::Paused).resume(Some(percent_of(1.0)), some), Ok((Phase::Ramping, 1.0, true, 0)));
    check_ramp(on(Phase::RolledBack).resume(None, some), Ok((Phase::Ramping, 5.0, true, 0)));
    check_ramp(on(Phase::Ramping).resume(None, some), Err(Refusal::NothingToResume));
    check_ramp(on(Phase::Ramping).promote(), Ok((Phase::Promoted, 100.0, false, 0)));
    check_ramp(Ok(on(Phase::Ramping).roll_back()), Ok((Phase::RolledBack, 5.0, true, 0)));

    check_ramp(on(Phase::Ramping).skip(some), Ok((Phase::Ramping, 25.0, true, 0)));
    check_ramp(on(Phase::Paused).skip(some), Ok((Phase::Ramping, 25.0, true, 0)));
    check_ramp(ramping(Phase::Ramping, 25.0).skip(some), Ok((Phase::Promoted, 100.0, false, 0)));
    check_ramp(on(Phase::RolledBack).skip(some), Err(Refusal::RolledBack));
    check_ramp(on(Phase::Promoted).skip(some), Err(Refusal::NotRamping));

    check_ramp(on(Phase::Ramping).approve(some, NOTHING), Ok((Phase::Ramping, 25.0, true, 0)));
    check_ramp(ramping(Phase::Ramping, 1.0).approve(some, NOTHING), Err(Refusal::NothingToApprove));
    check_ramp(on(Phase::Paused).approve(some, NOTHING), Err(Refusal::NotRamping));
}

#[test]
fn who_takes_over_a_rollout_gives_it_back_by_resuming() {
    let (steps, taken) = (ramp(), ramping(Phase::Ramping, 5.0).set(percent_of(10.0)).unwrap());
    let some = Some(&steps);
    check_ramp(taken.skip(some), Err(Refusal::NotRamping));
    check_ramp(taken.resume(None, some), Ok((Phase::Ramping, 10.0, true, 0)));
    check_ramp(taken.resume(Some(percent_of(11.0)), some), Err(Refusal::ResumeHigher(percent_of(10.0))));
    check_ramp(taken.set(Percentage::ZERO).unwrap().resume(None, some), Ok((Phase::Ramping, 1.0, true, 0)));
    let paused = taken.pause().unwrap();
    check_ramp(paused.resume(None, some), Ok((Phase::Manual, 10.0, false, 0)));
    check_ramp(taken.promote().unwrap().resume(None, some), Err(Refusal::NothingToResume));
}

#[test]
fn the_ramp_moves_only_what_it_is_on() {
    let on = ramping(Phase::Ramping, 1.0);
    check_ramp(Ok(on.follow(RampAction::Go(Onward::Climb(percent_of(5.0))))), Ok((Phase::Ramping, 5.0, true, 0)));
    check_ramp(Ok(on.follow(RampAction::Go(Onward::Promote))), Ok((Phase::Promoted, 100.0, false, 0)));
    let given_up = on.follow(RampAction::GiveUp);
    check_ramp(Ok(given_up.clone()), Ok((Phase::Paused, 1.0, true, 7)));
    assert!(given_up.ramp.unwrap().inconclusive);
    check_ramp(given_up.resume(None, Some(&ramp())), Ok((Phase::Ramping, 1.0, true, 0)));
    for phase in [Phase::Manual, Phase::Paused, Phase::RolledBack, Phase::Promoted] {
        let other = ramping(phase, 1.0);
        assert_eq!(other.follow(RampAction::Go(Onward::Promote)), other);
        assert_eq!(other.follow(RampAction::GiveUp), other);
    }
}

#[test]
fn files_and_the_ramp() {
    let on = ramping(Phase::Ramping, 5.0);
    check_file(&on, &with_ramp("1", 0.0), &[], Phase::Ramping, 5.0);
    check_file(&on, &with_ramp("1", 30.0), &[Adoption::Percentage], Phase::Manual, 30.0);
    check_file(&on, &flag("1", 0.0, true), &[Adoption::RampRemoved], Phase::Manual, 5.0);
    check_file(&state(Phase::Manual, 10.0), &with_ramp("1", 10.0), &[Adoption::RampAdded], Phase::Ramping, 10.0);
    check_file(&state(Phase::Manual, 0.0), &with_ramp("1", 0.0), &[Adoption::RampAdded], Phase::Ramping, 1.0);
    check_file(&state(Phase::Paused, 10.0), &with_ramp("1", 10.0), &[Adoption::RampAdded], Phase::Paused, 10.0);
    check_file(&state(Phase::RolledBack, 10.0), &with_ramp("1", 10.0), &[Adoption::RampAdded], Phase::RolledBack, 0.0);
    check_file(&state(Phase::Promoted, 100.0), &with_ramp("1", 10.0), &[Adoption::RampAdded], Phase::Promoted, 100.0);
    let (off, _) = on.adopt(&Flag { enabled: false, ..with_ramp("1", 0.0) }, None);
    let (again, _) = off.adopt(&with_ramp("1", 0.0), None);
    assert_eq!(
        (again.phase, again.ramp),
        (Phase::Ramping, on.ramp),
        "the kill switch takes nothing of the step's time"
    );
}

proptest! {
    #[test]
    fn nothing_but_people_and_the_file_lowers_or_raises_a_rollout_off_its_ramp(
        phase in prop::sample::select(Phase::ALL.to_vec()), share in 0_u32..=100_000, held in 0_u64..200,
        requests in 0_u64..20, not_worse: bool,
    ) {
        let percentage = Percentage::from_thousandths(share).unwrap();
        let rollout = Rollout { phase, percentage, ..ramping(phase, 1.0) };
        let action = ramp().act(percentage, Stay { held: Duration::from_secs(held), requests, not_worse });
        let next = rollout.follow(action);
        prop_assert!(next.percentage >= rollout.percentage);
        prop_assert!(next == rollout || (phase == Phase::Ramping && next.generation > rollout.generation));
        prop_assert!(next.percentage == rollout.percentage || not_worse, "never up without evidence");
    }
}
