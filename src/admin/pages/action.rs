//! What an operator does on a page: what it is called, when it is offered, and what it would do.

use crate::admin::pages::form::Form;
use crate::admin::pages::text::percent;
use crate::admin::problem::AdminError;
use crate::admin::{beta_users, checked};
use crate::api::FlagStatus;
use crate::rollout::Command;

/// A change that a page offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Another percentage.
    Set,
    /// Another beta list.
    Beta,
    /// Hold it.
    Pause,
    /// Go on.
    Resume,
    /// Let the ramp go on.
    Approve,
    /// Go on to the ramp's next step.
    Skip,
    /// Everyone on canary.
    Promote,
    /// Everyone on stable.
    RollBack,
}

impl Action {
    const ALL: [Self; 8] =
        [Self::Set, Self::Beta, Self::Pause, Self::Resume, Self::Approve, Self::Skip, Self::Promote, Self::RollBack];

    /// As paths have it, and the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Beta => "beta",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Skip => "skip",
            Self::Promote => "promote",
            Self::RollBack => "rollback",
        }
    }

    /// The action of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// What its button says.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Set => "Set percentage",
            Self::Beta => "Change beta list",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Approve => "Approve next step",
            Self::Skip => "Skip to next step",
            Self::Promote => "Promote",
            Self::RollBack => "Roll back",
        }
    }

    /// Whether it takes the canary away from everybody.
    pub(crate) fn is_grave(self) -> bool {
        self == Self::RollBack
    }

    /// The actions with a button of their own that a flag is in a state for.
    pub(crate) fn offered(flag: &FlagStatus) -> Vec<Self> {
        let ramp = flag.ramp.as_ref();
        let on_ramp = ramp.is_some_and(|ramp| ramp.active);
        let waits = ramp.is_some_and(|ramp| ramp.waits_for.as_deref() == Some("approval"));
        // A flag that is switched off is in a phase all the same; the API says which of these it then refuses.
        let offered = |action: &Self| match (*action, flag.phase.as_str()) {
            (Self::Set | Self::Beta, _) => false,
            (Self::Pause, phase) => matches!(phase, "manual" | "ramping"),
            (Self::Resume, "manual") => ramp.is_some() && !on_ramp,
            (Self::Resume, phase) => matches!(phase, "paused" | "rolled_back"),
            (Self::Approve, _) => waits,
            (Self::Skip, phase) => on_ramp && matches!(phase, "ramping" | "paused"),
            (Self::Promote, phase) => !matches!(phase, "rolled_back" | "promoted"),
            (Self::RollBack, phase) => phase != "rolled_back",
        };
        Self::ALL.into_iter().filter(offered).collect()
    }

    /// The command that a form asks for.
    ///
    /// # Errors
    ///
    /// If what it holds is no such command.
    pub(crate) fn command(self, form: &Form) -> Result<Command, AdminError> {
        let percentage = || match form.get("percentage") {
            Some(text) => {
                let number = text.trim_end_matches('%').trim().parse::<f64>().ok();
                let invalid = || AdminError::Invalid(format!("`{text}` is no percentage; give a number from 0 to 100"));
                checked(number.ok_or_else(invalid)?).map(Some)
            }
            None => Ok(None),
        };
        Ok(match self {
            Self::Set => {
                let missing =
                    || AdminError::Invalid("the percentage is missing; give a number from 0 to 100".to_owned());
                Command::Set(percentage()?.ok_or_else(missing)?)
            }
            Self::Beta => {
                // Users that are typed are parted; those that a page names are as they are.
                let named = |field| form.all(field).map(str::to_owned);
                let (mut add, mut remove): (Vec<_>, Vec<_>) = (named("add").collect(), named("remove").collect());
                add.extend(form.typed("add_typed"));
                remove.extend(form.typed("remove_typed"));
                beta_users(&add, &remove)?;
                Command::Beta { percentage: None, add, remove }
            }
            Self::Pause => Command::Pause,
            Self::Resume => Command::Resume(percentage()?),
            Self::Approve => Command::Approve,
            Self::Skip => Command::Skip,
            Self::Promote => Command::Promote,
            Self::RollBack => Command::RollBack,
        })
    }
}

/// What a command would do to a flag, in a sentence or two.
pub(crate) fn effect(command: &Command, flag: &FlagStatus) -> String {
    let now = flag.percentage;
    match command {
        Command::Set(to) => {
            let to = to.as_percent();
            let moved = percent((to - now).abs());
            let ramp = if flag.ramp.as_ref().is_some_and(|ramp| ramp.active) { " The ramp stops." } else { "" };
            let (from, to_text) = (percent(now), percent(to));
            if to > now {
                format!("From {from} to {to_text}: {moved} of users move to canary. Nobody leaves it.{ramp}")
            } else if to < now {
                format!("From {from} to {to_text}: {moved} of users move back to stable. Nobody else moves.{ramp}")
            } else {
                format!("It stays at {to_text}.{ramp}")
            }
        }
        Command::Beta { add, remove, .. } => {
            let part = |verb: &str, users: &[String]| match users {
                [] => None,
                users if users.len() <= 10 => Some(format!("{verb} {}.", users.join(", "))),
                users => Some(format!("{verb} {} users.", users.len())),
            };
            [part("Adds", add), part("Removes", remove)].into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
        Command::Pause => format!(
            "Holds the canary at {}. Neither ramp nor flag file move it until it is resumed; it is still judged.",
            percent(now)
        ),
        Command::Resume(to) => {
            let back = to.map_or_else(|| flag.resume_percentage.unwrap_or(now), |to| to.as_percent());
            let lifted = if flag.rollback.is_some() { "Lifts the rollback: " } else { "" };
            let ramp = if flag.ramp.is_some() { ", and the ramp goes on from there" } else { "" };
            format!("{lifted}the canary goes from {} to {} of users{ramp}.", percent(now), percent(back))
        }
        Command::Approve | Command::Skip | Command::Follow(_) => {
            let next = flag.ramp.as_ref().and_then(|ramp| ramp.next_percentage);
            match next {
                Some(next) => format!("The ramp goes on from {} to {} of users.", percent(now), percent(next)),
                None => "The ramp goes on to its next step.".to_owned(),
            }
        }
        Command::Promote => format!("From {} to 100 %: everyone is on canary, for good.", percent(now)),
        Command::RollBack => format!(
            "From {} to 0 %: everyone is on stable, beta users too, until somebody resumes it or the flag file names a new \
             release.",
            percent(now)
        ),
    }
}
