//! What a beta list of five million keys costs: to load, to load again, to hold and to ask.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, and prints what it found"
)]

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use tidegate::clock;
use tidegate::flag::KeyLines;
use tidegate::flag_file::{Expectations, Loader};

const KEYS: u32 = 5_000_000;

const ASKED: u32 = 1_000_000;

const FLAG: &str =
    "release = \"1\"\nstable = \"sync\"\ncanary = \"async\"\npercentage = 0\n[beta]\nusers_file = \"list.txt\"\n";

fn timed<R>(what: &str, action: impl FnOnce() -> R) -> (R, Duration) {
    let begun = clock::now();
    let result = action();
    let took = begun.elapsed();
    println!("{what}: {:.0} ms", took.as_secs_f64() * 1000.0);
    (result, took)
}

fn main() {
    // The keys of most systems: a prefix and a number, or a UUID.
    measure("user-0123456", |number| format!("user-{number:07}"));
    measure("UUIDs", |number| {
        // Scattered like random ones, and the same in every run.
        let high = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high >> 4 & 0xfff,
            high & 0xfff,
            high >> 16
        )
    });
}

fn measure(name: &str, key: impl Fn(u32) -> String) {
    println!("\n{KEYS} keys like {name}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    let mut text = String::new();
    for number in 0..KEYS {
        writeln!(text, "{}", key(number)).unwrap();
    }
    fs::write(&path, &text).unwrap();
    fs::write(directory.path().join("big.toml"), FLAG).unwrap();
    let backends = vec!["sync".parse().unwrap(), "async".parse().unwrap()];
    let mut loader = Loader::new(directory.path().to_owned(), Expectations { backends, flags: Vec::new() });

    let (loaded, _) = timed("load", || loader.load().unwrap());
    let beta = loaded[0].flag.beta.clone();
    assert_eq!(beta.len(), KEYS as usize);
    timed("load again, nothing changed", || loader.load().unwrap());
    fs::write(&path, format!("{text}one-more\n")).unwrap();
    timed("load again, one key more", || loader.load().unwrap());

    let keys = KeyLines::new(text).unwrap();
    let bytes = keys.size_bytes() as f64 / f64::from(KEYS);
    println!("held in {bytes:.1} bytes a key, of which {:.1} are text", keys.text().len() as f64 / f64::from(KEYS));
    // Far apart in the list, so that the cache does not help more than it would a gateway.
    let members: Vec<_> = (0..ASKED).map(|number| key((number * 7919) % KEYS)).collect();
    let strangers: Vec<_> = (0..ASKED).map(|number| format!("{}-", key(number))).collect();
    for (what, asked) in [("members", &members), ("strangers", &strangers)] {
        let begun = clock::now();
        let found = asked.iter().filter(|key| black_box(&beta).contains(key)).count();
        let took = begun.elapsed();
        println!("{found} of {} {what} found, {:.0} ns each", asked.len(), took.as_secs_f64() * 1e9 / f64::from(ASKED));
    }
}
