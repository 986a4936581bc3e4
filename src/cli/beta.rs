//! `tidegate beta`.

use crate::api::{BetaEdit, BetaUser, Changed};
use crate::cli::client::Client;
use crate::cli::output::{print, print_json};
use crate::cli::{BetaArgs, BetaCommand, BetaEditArgs, BetaListArgs};

pub(crate) fn beta(args: &BetaArgs) -> anyhow::Result<()> {
    match &args.command {
        BetaCommand::Add(args) => edit(args, BetaEdit { add: args.user.clone(), remove: Vec::new() }),
        BetaCommand::Remove(args) => edit(args, BetaEdit { add: Vec::new(), remove: args.user.clone() }),
        BetaCommand::List(args) => list(args),
    }
}

fn edit(args: &BetaEditArgs, edit: BetaEdit) -> anyhow::Result<()> {
    let BetaEditArgs { flag, change, .. } = args;
    let client = Client::new(&change.admin)?;
    let changed = client.edit_beta(flag, edit, change.reason.as_deref(), change.actor.as_deref())?;
    if client.json {
        return print_json(&changed);
    }
    let Changed { flag, .. } = changed;
    print(&format!(
        "{} has {} beta users, {} added and {} removed at runtime, generation {}",
        flag.key, flag.beta_users, flag.beta_added, flag.beta_removed, flag.generation
    ))
}

fn list(args: &BetaListArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    let mut cursor = args.cursor.clone();
    loop {
        let page = client.beta(&args.flag, cursor.as_deref(), args.limit)?;
        if client.json {
            print_json(&page)?;
        } else {
            page.users.iter().try_for_each(|user| print(&row(user)))?;
        }
        match page.next {
            Some(next) if args.all => cursor = Some(next),
            Some(next) if !client.json => {
                return print(&format!("{} users in all; the next page: --cursor '{next}'", page.beta_users));
            }
            _ => return Ok(()),
        }
    }
}

fn row(user: &BetaUser) -> String {
    let BetaUser { user, source, by, at } = user;
    match (source.as_str(), by, at) {
        (done, Some(by), Some(at)) => format!("{user}  {done} by {by} at {at}"),
        (file, ..) => format!("{user}  {}", file.replace('_', " ")),
    }
}
