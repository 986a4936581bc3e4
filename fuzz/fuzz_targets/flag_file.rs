//! A flag file of any text is read or refused with places that are in it; what is read decides about everyone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::flag::{EvaluationContext, Generation, Moment, Rollout, evaluate, explain};
use tidegate::flag_file::{Expectations, parse_text};

fuzz_target!(|text: &str| {
    let backends = ["sync", "async"].map(|name| name.parse().unwrap()).to_vec();
    match parse_text("fuzzed.toml".as_ref(), text.to_owned(), &Expectations { backends, flags: Vec::new() }) {
        Ok(definitions) => {
            for definition in definitions {
                let (flag, rollout) = (&definition.flag, Rollout::begin(&definition.flag, Generation::FIRST));
                for user in [None, Some("alice"), Some(text)] {
                    let context = EvaluationContext::of_key(user, Moment::from_unix_millis(0));
                    let explained = explain(flag, &rollout, &context);
                    assert_eq!(evaluate(flag, &rollout, &context), explained.evaluation);
                }
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.with_excerpt().is_empty());
            }
        }
    }
});
