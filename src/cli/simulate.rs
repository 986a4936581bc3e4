//! `tidegate simulate`: the judge on outcomes that are made up or come from another program.

mod count;
mod made_up;
mod protocol;

use std::io;

use crate::cli::SimulateArgs;

pub(crate) fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    if args.suite {
        made_up::suite(args)
    } else if let Some(canary) = args.canary_errors {
        made_up::describe(args, canary)
    } else {
        protocol::serve(io::stdin().lock(), io::stdout().lock())
    }
}
