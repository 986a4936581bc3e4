//! Has the crate compiled again when a migration comes or goes: they are embedded, and cargo does not see them.
#![expect(clippy::print_stdout, reason = "it is how a build script talks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
