//! Proves what the control plane promises, on the real gateway and a real `PostgreSQL`: how soon a change is in force everywhere, that
//! evidence of five gateways weighs as much as one's, and that kills and a failing database cost no acknowledged change, no
//! request and no count.
//!
//! Run it with `cargo bench --bench control -- PROOF`, and with `--profile dist --features mimalloc` for what is shipped:
//!
//! - `propagate [GATEWAYS [CHANGES]]`: from the acknowledgement of a change to the last request decided the old way;
//! - `evidence [GATEWAYS [ROUNDS]]`: how much a failing canary gets before a fleet takes it out, beside a single gateway;
//! - `kills [SECONDS [GATEWAYS]]`: gateways killed and started anew at random, and the database now and then;
//! - `crash [COUNT [sqlite|postgres]]`: a gateway killed in the middle of changes, again and again;
//! - `database [restarted|stopped|hung|full]`: the database under one of these, or under all in turn.
//!
//! Each prints a table, and fails with exit code 1 if a promise is broken. `TIDEGATE_BINARY` names another binary to prove.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a proof fails by panicking")]
#![expect(clippy::print_stdout, reason = "a proof prints its figures")]

mod cluster;
mod crash;
mod database;
mod evidence;
mod figures;
mod gateway;
mod kills;
mod load;
mod propagate;
mod upstream;

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::time::{interval, timeout};

/// Long enough for anything that works, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |index: usize, default: usize| words.get(index).map_or(default, |text| text.parse().unwrap());
    let broken = match words.first() {
        Some(&"propagate") => propagate::prove(number(1, 2), number(2, 200)),
        Some(&"evidence") => evidence::prove(number(1, 5), number(2, 15)),
        Some(&"kills") => kills::prove(Duration::from_secs(number(1, 600) as u64), number(2, 3)),
        Some(&"crash") => crash::prove(number(1, 1000), words.get(2).copied().unwrap_or("sqlite")),
        Some(&"database") => database::prove(words.get(1).copied()),
        _ => {
            println!(
                "say what to prove: propagate, evidence, kills, crash or database; benches/control/main.rs tells how"
            );
            return ExitCode::SUCCESS;
        }
    };
    for promise in &broken {
        println!("BROKEN: {promise}");
    }
    if broken.is_empty() {
        println!("kept: {}", arguments.join(" "));
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::disallowed_methods, reason = "a proof reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` holds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waited = async {
        let mut looks = interval(Duration::from_millis(10));
        loop {
            looks.tick().await;
            if condition().await {
                return;
            }
        }
    };
    timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Numbers that look like chance and are the same for the same seed: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// A time between these, in milliseconds.
    fn pause(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
