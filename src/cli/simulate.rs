//! `tidegate simulate`: the judge on outcomes that are made up or come from another program.

mod count;
mod made_up;
mod protocol;
mod replay;

use std::io;

use anyhow::bail;

use crate::cli::SimulateArgs;

pub(crate) fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    if let Some(flag) = &args.replay {
        return replay::run(args, flag);
    }
    if args.admin.json || args.release.is_some() {
        bail!("`--json` and `--release` go with `--replay`");
    }
    if args.suite {
        made_up::suite(args)
    } else if args.canary_errors.is_some() || args.slower.is_some() {
        made_up::describe(args)
    } else {
        protocol::serve(io::stdin().lock(), io::stdout().lock())
    }
}
