//! The floor plan: each module uses only those it may name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules it may name, top floor first. A new edge belongs in a commit of its own.
const FLOOR_PLAN: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "access",
            "admin",
            "api",
            "backend",
            "clock",
            "config",
            "diagnostic",
            "flag",
            "flag_file",
            "judge",
            "notify",
            "proxy",
            "rollout",
            "server",
            "simulation",
            "telemetry",
            "token_file",
        ],
    ),
    (
        "server",
        &[
            "access",
            "admin",
            "api",
            "availability",
            "backend",
            "clock",
            "config",
            "diagnostic",
            "downstream",
            "flag",
            "flag_file",
            "flag_store",
            "notify",
            "proxy",
            "recorder",
            "remade",
            "rollout",
            "shadow",
            "store",
            "telemetry",
            "token_file",
        ],
    ),
    (
        "config",
        &[
            "access",
            "backend",
            "diagnostic",
            "document",
            "downstream",
            "flag",
            "flag_file",
            "notify",
            "proxy",
            "store",
            "telemetry",
            "token_file",
        ],
    ),
    (
        "admin",
        &[
            "access",
            "api",
            "availability",
            "clock",
            "diagnostic",
            "downstream",
            "flag",
            "notify",
            "outcome",
            "proxy",
            "recorder",
            "remade",
            "rollout",
            "shadow",
            "store",
            "telemetry",
        ],
    ),
    ("notify", &["api", "clock", "rollout", "store", "telemetry"]),
    (
        "rollout",
        &[
            "api",
            "availability",
            "clock",
            "diagnostic",
            "flag",
            "flag_file",
            "judge",
            "outcome",
            "recorder",
            "store",
            "telemetry",
        ],
    ),
    (
        "proxy",
        &[
            "access",
            "api",
            "availability",
            "clock",
            "downstream",
            "flag",
            "outcome",
            "recorder",
            "remade",
            "shadow",
            "telemetry",
        ],
    ),
    ("downstream", &["api", "clock", "remade", "telemetry"]),
    ("remade", &[]),
    ("flag_file", &["clock", "diagnostic", "document", "flag", "judge", "outcome"]),
    ("store", &["api", "flag"]),
    ("token_file", &["access", "diagnostic", "document"]),
    ("document", &["diagnostic"]),
    ("simulation", &["flag", "judge", "recorder"]),
    ("recorder", &["flag", "flag_store", "outcome"]),
    ("flag_store", &["flag"]),
    ("shadow", &["flag", "judge"]),
    ("availability", &["flag"]),
    ("api", &[]),
    ("diagnostic", &[]),
    ("telemetry", &[]),
    ("clock", &[]),
    ("access", &[]),
    ("flag", &[]),
    ("judge", &[]),
    ("outcome", &[]),
];

/// The island: it may name the clock, and only the composition root, the configuration and the commands name it.
const ISLAND: (&str, &[&str]) = ("backend", &["clock"]);

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Each module with the code of its files, tests aside.
fn modules() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for path in sources(&root) {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        let name = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        modules.entry(name).or_default().push_str(code);
    }
    modules
}

/// The modules of this crate that `code` names.
fn named(code: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for prefix in ["crate::", "tidegate::"] {
        for after in code.split(prefix).skip(1) {
            let listed = match after.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
                None => vec![after],
            };
            for item in listed {
                let word: String =
                    item.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                if known.contains(&word) {
                    names.insert(word);
                }
            }
        }
    }
    names
}

#[test]
fn each_module_names_only_those_below() {
    let modules = modules();
    let known: BTreeSet<_> = modules.keys().cloned().collect();
    let plan: BTreeMap<_, BTreeSet<String>> = FLOOR_PLAN
        .iter()
        .copied()
        .chain([ISLAND])
        .map(|(module, below)| (module.to_owned(), below.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    for (module, code) in modules.iter().filter(|(module, _)| *module != "lib") {
        let mut named = named(code, &known);
        named.remove(module);
        let allowed = plan.get(module).unwrap_or_else(|| panic!("`{module}` is not on the floor plan"));
        assert_eq!(&named, allowed, "`{module}`: left is what it names, right what the floor plan says");
    }
    for (position, (module, below)) in FLOOR_PLAN.iter().enumerate() {
        for name in below.iter().filter(|name| **name != ISLAND.0) {
            let floor = FLOOR_PLAN.iter().position(|(other, _)| other == name).unwrap();
            assert!(floor > position, "`{module}` stands above `{name}`");
        }
    }
}

#[test]
fn the_pure_core_knows_no_io_no_clock_and_no_serde() {
    let modules = modules();
    for module in ["flag", "judge", "outcome", "simulation"] {
        let code: String =
            modules[module].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for word in ["std::fs", "std::io", "std::net", "serde", "tokio", "tracing", "jiff", "Instant::now", "std::env"]
        {
            assert!(!code.contains(word), "`{module}` names {word}");
        }
    }
}
