//! `tidegate explain`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::api::{ConditionFinding, Explanation, RuleFinding};
use crate::cli::ExplainArgs;
use crate::cli::check::tell;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, table};
use crate::clock;
use crate::config::{Config, environment};
use crate::diagnostic::Diagnostic;
use crate::flag::{Generation, Moment, Rollout};
use crate::flag_file::load_flag;
use crate::proxy::Identity;
use crate::rollout::{AskedRequest, explanation};

/// What an explanation without a gateway cannot know.
const OFFLINE: &str =
    "from the files alone, as a new rollout: a gateway may have moved it, paused it or rolled it back";

pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let parts = parts(args)?;
    let explanation = if args.offline {
        offline(args, AskedRequest::from_parts(parts)?)?
    } else {
        Client::new(&args.admin)?.explain(&args.flag, &parts)?
    };
    if args.admin.json {
        return print_json(&explanation);
    }
    let mut text = text(&explanation);
    if args.offline {
        let _ = write!(text, "\n{OFFLINE}");
    }
    print(&text)
}

/// What is asked, in the words of the admin API; what stands on the command line goes over what the file says.
fn parts(args: &ExplainArgs) -> anyhow::Result<Vec<(String, String)>> {
    let mut parts = match &args.request {
        Some(path) => head(&read(path)?).with_context(|| format!("{} is no request head", path.display()))?,
        None => Vec::new(),
    };
    // The first header of a name counts, so those of the command line go first.
    let headers = args.header.iter().map(|header| ("header".to_owned(), header.clone()));
    parts.splice(0..0, headers);
    for (part, value) in [
        ("user", args.user.clone()),
        ("method", args.method.clone()),
        ("path", args.path.clone()),
        ("host", args.host.clone()),
        ("client", args.client.map(|client| client.to_string())),
    ] {
        parts.extend(value.map(|value| (part.to_owned(), value)));
    }
    Ok(parts)
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return io::read_to_string(io::stdin()).context("cannot read standard input");
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The parts of a request's head as it is sent: a request line and header lines, up to the first empty line.
fn head(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut lines = text.lines().map(|line| line.trim_end_matches('\r')).take_while(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("its first line is not like `GET /path HTTP/1.1`");
    };
    let mut parts = vec![("method".to_owned(), method.to_owned())];
    match target.split_once("://") {
        // The form that is sent to proxies: RFC 9112, section 3.2.2.
        Some((_, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            parts.push(("host".to_owned(), host.to_owned()));
            parts.push(("path".to_owned(), if path.is_empty() { "/".to_owned() } else { path.to_owned() }));
        }
        None => parts.push(("path".to_owned(), target.to_owned())),
    }
    for line in lines {
        if !line.contains(':') {
            bail!("`{line}` is no header; write `name: value`");
        }
        parts.push(("header".to_owned(), line.to_owned()));
    }
    Ok(parts)
}

fn offline(args: &ExplainArgs, mut asked: AskedRequest) -> anyhow::Result<Explanation> {
    let refused = |problems: Vec<Diagnostic>| -> anyhow::Error {
        let told = tell(&problems);
        told.err().map_or_else(|| anyhow::anyhow!("nothing can be explained before this is mended"), Into::into)
    };
    let config = Config::load(args.config.config.as_deref(), &environment()).map_err(refused)?;
    if asked.user.is_none() {
        let identity = Identity::look(config.identity.clone()).map_err(anyhow::Error::msg)?;
        asked.user = identity.targeting_key(&asked.headers, &asked.path, asked.client);
    }
    let mut expected = config.expectations();
    expected.flags.clear();
    let directory = args.flags.as_ref().unwrap_or(&config.flags.path);
    let Some(definition) = load_flag(directory, &args.flag, &expected).map_err(refused)? else {
        bail!("there is no flag `{}`: no file in {} has it", args.flag, directory.display());
    };
    let rollout = Rollout::begin(&definition.flag, Generation::FIRST);
    let now = Moment::from_unix_millis(clock::wall().as_millisecond());
    Ok(explanation(&definition.flag, &rollout, &definition, &asked.context(now)))
}

fn text(explanation: &Explanation) -> String {
    let Explanation { user, variant, arm, reason, .. } = explanation;
    let who = user.as_ref().map_or_else(|| "a request without a targeting key".to_owned(), |user| format!("`{user}`"));
    let mut text = format!("{who} is served by {variant} ({arm}): {reason}\n");
    let rows: Vec<_> = explanation
        .steps
        .iter()
        .map(|step| {
            let mark = if step.decided { "→" } else { " " };
            let place = match (&step.file, step.line) {
                (Some(file), Some(line)) if step.decided => format!("{} ({file}:{line})", step.detail),
                _ => step.detail.clone(),
            };
            vec![format!(" {mark}"), step.layer.clone(), place]
        })
        .collect();
    text.push_str(&table(&rows, 3));
    for rule in &explanation.rules {
        push_rule(&mut text, rule);
    }
    if explanation.canary_unavailable && explanation.arm == "canary" {
        text.push_str("\ncanary unavailable: none of its servers can be used, stable serves");
    }
    if let Some(bucket) = explanation.bucket {
        let _ = write!(text, "\nbucket {bucket} of 100000");
    }
    let _ = write!(
        text,
        "\nflag {}, release {}, {}, canary at {} %, generation {}",
        explanation.flag, explanation.release, explanation.phase, explanation.percentage, explanation.generation
    );
    text
}

fn push_rule(text: &mut String, rule: &RuleFinding) {
    let RuleFinding { rule: number, line, serve, matched, conditions } = rule;
    let matched = if *matched { "matches" } else { "does not match" };
    let _ = write!(text, "\nrule {number} on line {line}, which serves {serve}, {matched}");
    for condition in conditions {
        push_condition(text, condition, 1);
    }
}

fn push_condition(text: &mut String, finding: &ConditionFinding, depth: usize) {
    let ConditionFinding { condition, line, value, held, parts } = finding;
    let (indent, mark) = ("  ".repeat(depth), if *held { '✓' } else { '✗' });
    let _ = write!(text, "\n{indent}{mark} {condition}");
    match value {
        Some(value) => {
            let _ = write!(text, ": it is `{value}`");
        }
        None if parts.is_empty() => text.push_str(": it is missing"),
        None => {}
    }
    let _ = write!(text, " (line {line})");
    for part in parts {
        push_condition(text, part, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let parts = head(text).unwrap();
        let parts: Vec<_> = parts.iter().map(|(part, value)| (part.as_str(), value.as_str())).collect();
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_request_head_is_read_as_it_is_sent() {
        check(
            "POST /a?b=c HTTP/1.1\r\nHost: a.test\r\nCookie: a=b\r\n\r\nbody: none",
            &[("method", "POST"), ("path", "/a?b=c"), ("header", "Host: a.test"), ("header", "Cookie: a=b")],
        );
        check("GET http://a.test:80 HTTP/1.1\n", &[("method", "GET"), ("host", "a.test:80"), ("path", "/")]);
        assert!(head("").is_err());
        assert!(head("GET / HTTP/1.1\nnonsense\n").is_err());
    }
}
