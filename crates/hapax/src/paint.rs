//! Colour, on a terminal only, and never where `NO_COLOR` is set.

use std::io::IsTerminal;

/// What a text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Nothing in particular.
    Plain,
    /// All is well.
    Good,
    /// Somebody should look.
    Warning,
    /// Something is wrong.
    Bad,
}

impl Colour {
    /// The colour of a record's state.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "completed" | "rejected" => Self::Good,
            "outstanding" | "vacant" => Self::Warning,
            "unknown" => Self::Bad,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
        }
    }
}

/// The text in its colour, where standard output shows colours.
pub(crate) fn paint(colour: Colour, text: &str) -> String {
    let is_shown = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    painted(colour, text, is_shown)
}

fn painted(colour: Colour, text: &str, is_shown: bool) -> String {
    if is_shown && colour != Colour::Plain {
        format!("\x1b[{}m{text}\x1b[0m", colour.code())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_around_the_text_or_nowhere() {
        assert_eq!(painted(Colour::Bad, "x", true), "\x1b[31mx\x1b[0m");
        assert_eq!(painted(Colour::Bad, "x", false), "x");
        assert_eq!(painted(Colour::Plain, "x", true), "x");
    }
}
