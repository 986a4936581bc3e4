//! `tidegate approvals`, `approve FLAG ID` and `withdraw`: changes that wait for a second operator.

use crate::api::{Approval, ApprovalList};
use crate::cli::client::Client;
use crate::cli::output::{print, print_json, table};
use crate::cli::show::{act, show_change};
use crate::cli::{ApprovalsArgs, ApproveArgs, WithdrawArgs};

pub(crate) fn approvals(args: &ApprovalsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    let list = client.approvals(args.flag.as_ref())?;
    if client.json {
        return print_json(&list);
    }
    let ApprovalList { approvals } = list;
    if approvals.is_empty() {
        return print("nothing waits for a second operator");
    }
    let head = ["id", "flag", "what", "change", "who", "until", "why"].map(str::to_owned).to_vec();
    let row = |approval: &Approval| {
        let Approval { id, flag, action, from_percentage, percentage, actor, reason, expires, .. } = approval.clone();
        let change = format!("{from_percentage} % → {percentage} %");
        vec![id, flag, action, change, actor, expires, reason.unwrap_or_default()]
    };
    print(&table(&std::iter::once(head).chain(approvals.iter().map(row)).collect::<Vec<_>>(), 7))
}

/// Opens the ramp's gate, or approves what another operator asked for.
pub(crate) fn approve(args: &ApproveArgs) -> anyhow::Result<()> {
    let ApproveArgs { flag, id, change } = args;
    let Some(id) = id else { return act("approve", flag, change) };
    let client = Client::new(&change.admin)?;
    show_change(&client, &client.approve(flag, id, change.reason.as_deref(), change.actor.as_deref())?)
}

pub(crate) fn withdraw(args: &WithdrawArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.admin)?;
    client.withdraw(&args.flag, &args.id, args.actor.as_deref())?;
    print(&format!("{} is withdrawn", args.id))
}
