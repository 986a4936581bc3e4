//! Has the crate compiled again when a migration comes or goes: they are embedded, and cargo does not see them.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
