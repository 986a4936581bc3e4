//! The `[ramp]` of a flag file.

use std::time::Duration;

use crate::document::{Placed, Section, Value, duration, duration_in, integer, placed_strings};
use crate::flag::{Percentage, Ramp, RampError, RampStep};

/// How long a ramp waits for evidence on a step before it pauses: a day has every kind of traffic in it.
const MAX_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// How many requests of the canary a step has to see: fewer would not even show a canary that fails one in thirty.
const MIN_REQUESTS: u64 = 100;

/// The longest list of steps that people may write; more are a mistake.
const MAX_STEPS: usize = 100;

/// What a person opens.
const GATE: &str = "approve";

pub(crate) fn ramp(mut section: Section<'_>) -> Option<Ramp> {
    let steps = section.required("steps", "[\"1% 10m\", \"10% approve\", \"100%\"]", placed_strings);
    let max_hold = section.or("max_hold", duration, MAX_HOLD);
    let min_requests = section.or("min_requests", requests, MIN_REQUESTS);
    let problems = section.problems();
    section.finish();

    let Placed { value: steps, place } = steps?;
    if steps.len() > MAX_STEPS {
        problems.report(&place, format!("`ramp.steps`: {} steps are too many; at most {MAX_STEPS}", steps.len()));
        return None;
    }
    let read = |placed: &Placed<String>| match step(&placed.value) {
        Ok(step) => Some(step),
        Err(message) => {
            problems.report(&placed.place, format!("`ramp.steps`: \"{}\": {message}", placed.value));
            None
        }
    };
    // All of them are read, so that all problems are told.
    let read: Vec<_> = steps.iter().map(read).collect();
    let read = read.into_iter().collect::<Option<Vec<_>>>()?;
    let wrong = |error| {
        let index = match error {
            RampError::NotRising(index) | RampError::OverMaxHold(index) => Some(index),
            RampError::NoEnd => steps.len().checked_sub(1),
        };
        let place = index.and_then(|index| steps.get(index)).map_or(&place, |step| &step.place);
        problems.report(place, format!("`ramp.steps`: {error}"));
    };
    Ramp::new(read, max_hold, min_requests).map_err(wrong).ok()
}

/// A step as people write it: a percentage, then for how long, then whether a person lets it go on; the last two as needed.
fn step(text: &str) -> Result<RampStep, String> {
    let usage = || "a step is a percentage and then what it waits for: \"5% 30m\", \"10% approve\", \"50% 1h approve\"";
    let mut words = text.split_whitespace();
    let share = words.next().filter(|word| word.ends_with('%')).ok_or_else(usage)?;
    let percentage: Percentage = share.parse().map_err(|error| format!("{error}"))?;
    let mut step = RampStep { percentage, hold: Duration::ZERO, approve: false };
    let mut word = words.next();
    if let Some(hold) = word.filter(|word| *word != GATE) {
        step.hold = duration_in(hold)?;
        word = words.next();
    }
    if word.is_some() {
        step.approve = true;
    }
    match (word, words.next()) {
        (None | Some(GATE), None) => Ok(step),
        _ => Err(usage().to_owned()),
    }
}

fn requests(value: &Value) -> Result<u64, String> {
    integer(value).and_then(|number: u64| if number > 0 { Ok(number) } else { Err("wants at least 1".to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(f64, u64, bool)>) {
        let seen = step(text).ok();
        let seen = seen.map(|step| (step.percentage.as_percent(), step.hold.as_secs(), step.approve));
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn steps_as_people_write_them() {
        check("1% 10m", Some((1.0, 600, false)));
        check(" 0.5%   1h30m ", Some((0.5, 5400, false)));
        check("10% approve", Some((10.0, 0, true)));
        check("10% 2h approve", Some((10.0, 7200, true)));
        check("100%", Some((100.0, 0, false)));
        for wrong in ["", "1", "10 10m", "101% 1m", "5% soon", "5% approve 1m", "5% 1m aprove", "5% 1m approve now"] {
            check(wrong, None);
        }
    }
}
