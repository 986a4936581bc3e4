//! The conditions of a rule, of any text, on a request of any parts: what decides and what explains say the same.
//!
//! The input is a condition as a flag file has it and then, line by line, the user, a header, a cookie, a query, a path and
//! a host.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use tidegate::flag::{Attributes, EvaluationContext, Generation, Moment, Rollout, evaluate, explain};
use tidegate::flag_file::{Expectations, parse_text};

#[derive(Debug)]
struct Asked<'t> {
    header: Option<&'t str>,
    cookie: Option<&'t str>,
    query: Option<&'t str>,
    path: Option<&'t str>,
    host: Option<&'t str>,
}

impl Attributes for Asked<'_> {
    fn header(&self, _: &str) -> Option<&str> {
        self.header
    }

    fn cookie(&self, _: &str) -> Option<&str> {
        self.cookie
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn path(&self) -> Option<&str> {
        self.path
    }

    fn method(&self) -> Option<&str> {
        Some("GET")
    }

    fn host(&self) -> Option<&str> {
        self.host
    }

    fn client(&self) -> Option<IpAddr> {
        self.host.and_then(|host| host.parse().ok())
    }
}

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let condition = lines.next().unwrap_or_default();
    let user = lines.next();
    let asked = Asked {
        header: lines.next(),
        cookie: lines.next(),
        query: lines.next(),
        path: lines.next(),
        host: lines.next(),
    };
    let file = format!(
        "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 0\n[[rules]]\nserve = \"canary\"\nwhen = [{condition}]\n"
    );
    let backends = ["sync", "async"].map(|name| name.parse().unwrap()).to_vec();
    let read = parse_text("fuzzed.toml".as_ref(), file, &Expectations { backends, flags: Vec::new() });
    let Ok(definitions) = read else { return };
    for definition in definitions {
        let rollout = Rollout::begin(&definition.flag, Generation::FIRST);
        let context = EvaluationContext { targeting_key: user, now: Moment::from_unix_millis(1), attributes: &asked, chosen: None };
        let explained = explain(&definition.flag, &rollout, &context);
        assert_eq!(evaluate(&definition.flag, &rollout, &context), explained.evaluation);
    }
});
