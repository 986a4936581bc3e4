//! `tidegate notify`: tries whether notifications arrive.

use anyhow::bail;

use crate::cli::output::print;
use crate::cli::{NotifyArgs, NotifyCommand, check};
use crate::clock;
use crate::config::{Config, environment};
use crate::notify::{Delivery, send, test_notice};

pub(crate) fn notify(args: &NotifyArgs) -> anyhow::Result<()> {
    let NotifyCommand::Test { channel: name, config } = &args.command;
    let channels = match Config::load(config.config.as_deref(), &environment()) {
        Ok(config) => config.notify,
        Err(problems) => {
            check::tell(&problems)?;
            bail!("the configuration cannot be used; mend what is named above");
        }
    };
    let Some(channel) = channels.iter().find(|channel| channel.name == *name) else {
        let names: Vec<_> = channels.iter().map(|channel| channel.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("the configuration has no channel `{name}`; it has {names}");
    };
    match send(channel, &test_notice(channel), clock::wall()) {
        Delivery::Sent(status) => print(&format!("`{name}` took a test notification: it answered {status}")),
        Delivery::Failed(why) => bail!("`{name}` did not take a test notification, and would be asked again: {why}"),
        Delivery::Refused(why) => bail!("`{name}` refused a test notification: {why}"),
    }
}
