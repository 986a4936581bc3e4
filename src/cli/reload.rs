//! `tidegate reload`.

use crate::cli::ReloadArgs;
use crate::cli::client::Client;
use crate::cli::output::{print, print_json};

pub(crate) fn reload(args: &ReloadArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    let reloaded = client.reload(args.actor.as_deref())?;
    if client.json {
        return print_json(&reloaded);
    }
    match reloaded.changed.as_slice() {
        [] => print("the configuration says what is in force"),
        changed => print(&format!("in force from now on: {}", changed.join(", "))),
    }
}
