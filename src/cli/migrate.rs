//! `tidegate migrate`.

use crate::backend;
use crate::cli::output::print;
use crate::cli::{MigrateArgs, serve};

pub(crate) fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let url = match args.database {
        Some(url) => url,
        None => serve::load(args.config.config.as_deref())?.database.url,
    };
    let done = backend::migrate(&url)?;
    let told = if args.json {
        format!("{{\"migrations\":{},\"questions\":{}}}", done.migrations, done.questions)
    } else if done.migrations == 0 && done.questions == 0 {
        "the database is up to date; nothing was changed".to_owned()
    } else {
        format!("applied {} migrations and added {} questions", done.migrations, done.questions)
    };
    print(&told)
}
