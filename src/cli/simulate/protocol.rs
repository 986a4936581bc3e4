//! The judge for other programs: JSON lines in, JSON lines out.
//!
//! A run is started, gets its outcomes in batches of rows, and is ended. Runs have ids and may be interleaved. Each line
//! of rows is answered by one line, flushed, that says at which tick the run was stopped, if it was. The first bad line
//! ends it all, since whatever follows it would be judged on a false picture.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::cli::simulate::count::Count;
use crate::judge::{Counts, Rate, Sample, Settings, Stream, StreamSettings, Tolerance, Trial};

/// A line from the other program.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Message {
    Start {
        run: String,
        #[serde(default)]
        config: RunConfig,
    },
    Batches {
        run: String,
        rows: Vec<Row>,
    },
    End {
        run: String,
    },
}

/// What a run is judged by. What is left out is as in a flag file.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RunConfig {
    /// The probability of a false stop, above 0 and below 1.
    alpha: f64,
    /// The tolerance in points, as a share. It holds for every stream of the run.
    delta: f64,
    /// The tolerance as a factor, 1 or more.
    rho: f64,
    streams: Vec<RunStream>,
    /// The length of a tick, in milliseconds.
    tick_ms: f64,
    history: History,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            alpha: 0.001,
            delta: 0.002,
            rho: 1.25,
            streams: vec![RunStream::Fail],
            tick_ms: 100.0,
            history: History::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RunStream {
    Fail,
    Slow,
}

/// What stable did before the canary.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct History {
    n: Count,
    fail: Count,
    slow: Count,
}

/// Tick, gateway, share, then requests, failures and slow answers of stable and of the canary.
#[derive(Debug, Deserialize)]
struct Row(Count, IgnoredAny, f64, Count, Count, Count, Count, Count, Count);

/// The answer to a line of rows.
#[derive(Debug, Serialize)]
struct Reply<'a> {
    run: &'a str,
    /// The first tick at which the canary was to be taken out.
    stop: Option<u64>,
    /// ln M at that tick, or now.
    log_e: f64,
}

#[derive(Debug)]
struct Run {
    trial: Trial,
    streams: Vec<RunStream>,
    tick: Duration,
    /// The tick of the last row.
    at: u64,
    stop: Option<u64>,
    /// What the rows of a tick come to, kept to be used again.
    samples: Vec<Sample>,
}

/// Answers line by line until the input ends.
///
/// # Errors
///
/// If a line is not as agreed, with its number, or if reading or writing fails.
pub(crate) fn serve(input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    let mut runs = HashMap::new();
    for (index, line) in input.lines().enumerate() {
        let number = index + 1;
        let line = line.with_context(|| format!("line {number}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let reply = answer(&mut runs, &line).with_context(|| format!("line {number}"))?;
        if let Some(reply) = reply {
            match writeln!(output, "{reply}").and_then(|()| output.flush()) {
                // A reader that has had enough is no error.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
    }
    Ok(())
}

fn answer(runs: &mut HashMap<String, Run>, line: &str) -> anyhow::Result<Option<String>> {
    match serde_json::from_str(line)? {
        Message::Start { run, config } => {
            ensure!(!runs.contains_key(&run), "the run `{run}` is under way already");
            runs.insert(run, Run::start(config)?);
            Ok(None)
        }
        Message::Batches { run, rows } => {
            let Some(under_way) = runs.get_mut(&run) else { bail!("no run `{run}` is under way; start it first") };
            under_way.take(&rows)?;
            let Run { ref trial, stop, .. } = *under_way;
            Ok(Some(serde_json::to_string(&Reply { run: &run, stop, log_e: trial.log_evidence() })?))
        }
        Message::End { run } => {
            ensure!(runs.remove(&run).is_some(), "no run `{run}` is under way");
            Ok(None)
        }
    }
}

impl Run {
    fn start(config: RunConfig) -> anyhow::Result<Self> {
        let RunConfig { alpha, delta, rho, streams, tick_ms, history } = config;
        ensure!(alpha > 0.0 && alpha < 1.0, "`alpha` is a probability above 0 and below 1, not {alpha}");
        ensure!(!streams.is_empty(), "`streams` names nothing to judge; there are \"fail\" and \"slow\"");
        let false_rollback = Rate::from_share(alpha).context("`alpha` is no probability")?;
        let tolerance = Tolerance::new(delta, rho)
            .with_context(|| format!("`delta` is a share below 1 and `rho` 1 or more, not {delta} and {rho}"))?;
        let tick = Duration::try_from_secs_f64(tick_ms / 1000.0).ok().filter(|tick| !tick.is_zero());
        let tick = tick.with_context(|| format!("`tick_ms` is a length of time, not {tick_ms}"))?;
        let mut kinds: Vec<RunStream> = Vec::new();
        let mut settings = Settings { false_rollback, ..Settings::default() };
        for kind in streams {
            ensure!(!kinds.contains(&kind), "`streams` names one twice");
            let bad = match kind {
                RunStream::Fail => history.fail,
                RunStream::Slow => history.slow,
            };
            let history = counts(history.n, bad).context("`history`")?;
            settings.streams.push(StreamSettings { stream: kind.stream(), tolerance, history });
            kinds.push(kind);
        }
        Ok(Self { trial: Trial::new(&settings), streams: kinds, tick, at: 0, stop: None, samples: Vec::new() })
    }

    /// Judges the rows tick by tick, up to the one that stops the run.
    ///
    /// The end of the line is the end of its last tick: what a later line has for the same tick is bet on by itself, so
    /// that no answer takes back what an earlier one said.
    fn take(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        for (index, Row(tick, _, share, n_stable, fail_stable, slow_stable, n_canary, fail_canary, slow_canary)) in
            rows.iter().enumerate()
        {
            let place = || format!("row {}", index + 1);
            let tick = tick.0;
            ensure!(tick >= self.at, "{}: tick {tick} comes after tick {}; ticks never decrease", place(), self.at);
            ensure!(share.is_finite() && *share >= 0.0, "{}: {share} is no share", place());
            if tick > self.at {
                self.judge();
                self.at = tick;
            }
            for kind in &self.streams {
                let (bad_stable, bad_canary) = match kind {
                    RunStream::Fail => (*fail_stable, *fail_canary),
                    RunStream::Slow => (*slow_stable, *slow_canary),
                };
                let stable = counts(*n_stable, bad_stable).with_context(place)?;
                let canary = counts(*n_canary, bad_canary).with_context(place)?;
                self.samples.push(Sample { stream: kind.stream(), share: *share, stable, canary });
            }
        }
        self.judge();
        Ok(())
    }

    /// Judges what was gathered for the tick; nothing any more once the run is stopped.
    fn judge(&mut self) {
        if self.stop.is_none() && !self.samples.is_empty() {
            let at = Duration::try_from_secs_f64(self.tick.as_secs_f64() * self.at as f64).unwrap_or(Duration::MAX);
            self.trial.observe(at, &self.samples);
            self.stop = self.trial.is_worse().then_some(self.at);
        }
        self.samples.clear();
    }
}

impl RunStream {
    fn stream(self) -> Stream {
        match self {
            Self::Fail => Stream::Errors,
            // Which quantile it is makes no difference: alone beside errors, it has latency's whole weight.
            Self::Slow => Stream::LatencyP99,
        }
    }
}

fn counts(requests: Count, failures: Count) -> anyhow::Result<Counts> {
    let (requests, failures) = (requests.0, failures.0);
    ensure!(failures <= requests, "{failures} of {requests} requests is more than all");
    Ok(Counts { requests, failures })
}
