//! `tidegate compare`.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Site, stderr, stdout};
use crate::upstream::Upstream;

const QUICK: [&str; 8] =
    ["compare", "--duration", "400ms", "--warmup", "100ms", "--rounds", "2", "--database=sqlite://interview.db"];

#[tokio::test]
async fn the_built_in_variants_are_compared_in_a_closed_loop() {
    let site = Site::builtin();
    let options = ["--concurrency", "1,3", "--query", "2ms", "--svg", "c.svg", "--output", "c.json"];
    let output = site.run(&[QUICK.as_slice(), &options].concat()).await;
    let table = stdout(&output);
    for word in ["clients", "variant", "answers/s", "p99.9", "memory", "3 clients: async answers"] {
        assert!(table.contains(word), "{table}");
    }
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("compare: 3 clients, round 2 of 2: sync"), "{progress}");

    let report: Value = serde_json::from_slice(&std::fs::read(site.path().join("c.json")).unwrap()).unwrap();
    assert_eq!((&report["mode"], &report["stopped_early"]), (&"closed".into(), &false.into()));
    let measured = report["measured"].as_array().unwrap();
    let order: Vec<_> = measured.iter().map(|cell| (cell["concurrency"].as_u64(), cell["variant"].as_str())).collect();
    assert_eq!(
        order,
        [(Some(1), Some("sync")), (Some(1), Some("async")), (Some(3), Some("sync")), (Some(3), Some("async"))]
    );
    for cell in measured {
        assert_eq!((&cell["errors"], &cell["rounds"]), (&0.into(), &2.into()), "{cell}");
        let figure = |name: &str| cell[name].as_f64().unwrap_or_else(|| panic!("{name}: {cell}"));
        assert!(figure("requests") > 0.0 && figure("memory_mib") > 1.0 && figure("connections") >= 1.0, "{cell}");
        assert!(figure("p50_ms") >= 2.0, "the slow query is in it: {cell}");
        assert!(figure("p50_ms") <= figure("p99_ms") && figure("p99_ms") <= figure("p999_ms"), "{cell}");
        assert!(figure("closed_loop_corrected_p99_ms") >= figure("p50_ms"), "{cell}");
        assert!(figure("per_second_half_interval") >= 0.0 && figure("cpu_ms_per_request") >= 0.0, "{cell}");
    }
    assert_eq!(report["factors"].as_array().unwrap().len(), 2);
    let svg = std::fs::read_to_string(site.path().join("c.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    assert_eq!(svg.matches("<polyline").count(), 4);
}

#[tokio::test]
async fn services_of_ones_own_are_compared_in_an_open_loop() {
    let (stable, canary) = (Upstream::start().await, Upstream::start().await);
    let site = Site::builtin();
    let (one, other) = (format!("http://{}", stable.address()), format!("http://{}", canary.address()));
    let arguments = ["compare", "--stable", &one, "--canary", &other, "--path", "/api/v1/x", "--rate", "100"];
    let rest = ["--concurrency", "2", "--duration", "500ms", "--warmup", "0ms", "--rounds", "1", "--json", "--quiet"];
    let output = site.run(&[arguments.as_slice(), &rest].concat()).await;
    assert!(output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&report["mode"], &report["variants"]), (&"open".into(), &serde_json::json!(["stable", "canary"])));
    for cell in report["measured"].as_array().unwrap() {
        // As many as were due, however long each took.
        assert_eq!((&cell["requests"], &cell["errors"]), (&50.into(), &0.into()), "{cell}");
        assert!(cell["memory_mib"].is_null() && cell["closed_loop_corrected_p99_ms"].is_null(), "{cell}");
    }
    assert!(stderr(&site.run(&["compare", "--stable", &one]).await, 2).contains("--canary"));
}

#[tokio::test]
async fn an_interrupt_keeps_what_was_measured() {
    let site = Site::builtin();
    let mut command: Command =
        site.command(&[QUICK.as_slice(), &["--concurrency", "1,2,3,4,5,6,7,8", "--json"]].concat());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(process.stderr.take().unwrap()).lines();
    loop {
        let line = timeout(DEADLINE, progress.next_line()).await.unwrap().unwrap().unwrap();
        if line.contains("2 clients, round 1") {
            break;
        }
    }
    let id = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    let mut text = String::new();
    let mut stdout = process.stdout.take().unwrap();
    timeout(DEADLINE, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(timeout(DEADLINE, process.wait()).await.unwrap().unwrap().success());
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["stopped_early"], true);
    let measured = report["measured"].as_array().unwrap();
    assert!(measured.iter().filter(|cell| cell["concurrency"] == 1).count() == 2, "{text}");
    assert!(measured.iter().all(|cell| cell["concurrency"].as_u64().unwrap() <= 2), "{text}");
}
