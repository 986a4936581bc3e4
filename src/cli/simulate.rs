//! `tidegate simulate`: the judge on other programs' outcomes.

mod count;
mod protocol;

use std::io;

use crate::cli::SimulateArgs;

pub(crate) fn simulate(_args: &SimulateArgs) -> anyhow::Result<()> {
    protocol::serve(io::stdin().lock(), io::stdout().lock())
}
