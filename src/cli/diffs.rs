//! `tidegate diffs`.

use std::fmt::Write as _;

use crate::api::{Diffs, PlaceDiff};
use crate::cli::DiffsArgs;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, share, table};

pub(crate) fn diffs(args: &DiffsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    let diffs = client.diffs(&args.flag)?;
    if client.json { print_json(&diffs) } else { print(&text(&diffs)) }
}

fn text(diffs: &Diffs) -> String {
    let Diffs { flag, release, stable, canary, results, .. } = diffs;
    let mut text = format!("{flag}, release {release}: ");
    let _ = match diffs.state.as_str() {
        "copying" => write!(text, "{} % of what {stable} answers is copied to {canary}", diffs.percentage),
        "off" => write!(text, "nothing is copied to {canary}; `[shadow]` in the flag file turns it on"),
        "disabled" => write!(text, "nothing is copied to {canary}, since the flag is switched off"),
        "rolled_back" => write!(text, "nothing is copied to {canary}, since it is rolled back"),
        _ => write!(text, "nothing is copied to {canary}, since none of its servers can be used"),
    };
    let copied = results.same + results.noise + results.different + results.failed;
    let skipped = results.skipped_in_flight + results.skipped_body + results.skipped_unanswered;
    if copied + skipped == 0 {
        text.push_str("\n  no request was copied yet");
        return text;
    }
    let _ = write!(
        text,
        "\n  copied: {copied} requests; {canary} answered {} the same, {} otherwise, {} otherwise only where {stable} does so \
         by itself, and {} not at all",
        results.same, results.different, results.noise, results.failed
    );
    if skipped > 0 {
        let _ = write!(
            text,
            "\n  not copied: {} while too many copies were under way, {} with a body that is too long or cannot be read, {} \
             that {stable} did not answer to the end or after {canary} was taken out",
            results.skipped_in_flight, results.skipped_body, results.skipped_unanswered
        );
    }
    let _ = write!(
        text,
        "\n  {stable} was asked once more for {} of them, to see what changes by itself",
        diffs.compared_noise
    );
    if diffs.compared == 0 {
        return text;
    }
    if diffs.differences.is_empty() {
        text.push_str("\nno difference was found");
        return text;
    }
    let head = ["where", "what differs", "verdict", canary, &format!("{stable} itself")];
    let rows = diffs.differences.iter().map(|place| row(place, diffs));
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
    let _ = write!(text, "\n\n{}", table(&rows, 3));
    if diffs.left_out > 0 {
        let _ =
            write!(text, "\n{} differences at further places; `ignore` leaves out what says nothing", diffs.left_out);
    }
    let _ = write!(
        text,
        "\n\nOf two things under \"what differs\", the first is {stable}'s. different: {canary} differs there more often than \
         {stable} does\nfrom itself. noise: {stable} differs from itself there. unclear: too little was compared to be sure."
    );
    if !diffs.samples.is_empty() {
        let head = ["when", "request", "statuses", "where", "what differs", "more places"].map(str::to_owned).to_vec();
        let rows = diffs.samples.iter().map(|sample| {
            vec![
                sample.at.clone(),
                sample.request_id.clone(),
                format!("{} {}", sample.stable_status, sample.canary_status),
                sample.place.clone(),
                sample.detail.clone(),
                sample.others.to_string(),
            ]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let _ = write!(text, "\n\n{}", table(&rows, 5));
    }
    text
}

fn row(place: &PlaceDiff, diffs: &Diffs) -> Vec<String> {
    let of = |count: u64, all: u64, rate: f64| format!("{count} of {all} ({})", share(rate));
    vec![
        place.place.clone(),
        place.detail.clone(),
        place.verdict.clone(),
        of(place.requests, diffs.compared, place.rate),
        of(place.noise_requests, diffs.compared_noise, place.noise_rate),
    ]
}
