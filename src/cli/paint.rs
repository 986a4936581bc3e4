//! Colours on a terminal, as its escape sequences have them (ECMA-48, 8.3.117).

use std::io::{self, IsTerminal as _};

/// Whether texts get colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// They do.
    On,
    /// They stay as they are.
    Off,
}

/// What a text is coloured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// Something is wrong.
    Bad,
    /// What is looked for first.
    Strong,
    /// What matters least.
    Faint,
}

impl Paint {
    /// Colours where standard output is a terminal, unless they are unwanted.
    pub(crate) fn of_stdout(unwanted: bool) -> Self {
        if !unwanted && io::stdout().is_terminal() { Self::On } else { Self::Off }
    }

    pub(crate) fn text(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Strong => 1,
            Tone::Faint => 2,
        };
        match self {
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Off => text.to_owned(),
        }
    }

    /// A rollout's phase.
    pub(crate) fn phase(self, phase: &str) -> String {
        match phase {
            "rolled_back" => self.text(Tone::Bad, phase),
            "paused" | "disabled" => self.text(Tone::Warning, phase),
            "ramping" | "promoted" => self.text(Tone::Good, phase),
            _ => phase.to_owned(),
        }
    }
}
