//! `tidegate completions` and `tidegate man`: what shells and readers of manuals are told of the commands.

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::cli::output::print;

/// What the command is called in a shell.
const NAME: &str = "tidegate";

pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(String::from_utf8(script)?.trim_end())
}

/// The page of one command, or of all.
pub(crate) fn man(command: Option<&str>) -> anyhow::Result<()> {
    let mut all = Cli::command();
    all.build();
    let shown = match command {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).cloned();
            found.with_context(|| format!("there is no command `{name}`; `tidegate --help` lists them"))?
        }
    };
    let title = shown.get_display_name().unwrap_or(NAME).to_owned();
    let mut page = Vec::new();
    Man::new(shown).title(title).render(&mut page)?;
    print(String::from_utf8(page)?.trim_end())
}
