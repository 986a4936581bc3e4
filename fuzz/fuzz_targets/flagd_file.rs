//! A file of flagd's flags is read or refused with places that are in it. What is read decides about everyone, and decides
//! the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::flag::{EvaluationContext, Generation, Moment, Rollout, evaluate};
use tidegate::flag_file::{Definition, Expectations, export, parse_text};

fn read(text: String) -> Option<Vec<Definition>> {
    let backends = ["sync", "async"].map(|name| name.parse().unwrap()).to_vec();
    match parse_text("fuzzed.flagd.json".as_ref(), text, &Expectations { backends, flags: Vec::new() }) {
        Ok(definitions) => Some(definitions),
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.with_excerpt().is_empty());
            }
            None
        }
    }
}

fuzz_target!(|text: &str| {
    let Some(definitions) = read(text.to_owned()) else { return };
    for Definition { flag, .. } in &definitions {
        let rollout = Rollout::begin(flag, Generation::FIRST);
        let exported = export([(flag, &rollout)]);
        let back = exported.unsaid.is_empty().then(|| read(exported.document.to_string()));
        let back = back.map(|back| back.expect("what is written can be read"));
        for user in [None, Some("alice"), Some("user-1"), Some("user-2"), Some("user-3"), Some("user-4")] {
            let context = EvaluationContext::of_key(user, Moment::from_unix_millis(0));
            let arm = evaluate(flag, &rollout, &context).arm;
            if let Some(back) = &back {
                let began = Rollout::begin(&back[0].flag, Generation::FIRST);
                let again = evaluate(&back[0].flag, &began, &context).arm;
                assert_eq!(back[0].flag.backend(again), flag.backend(arm), "{user:?} {}", exported.document);
            }
        }
    }
});
