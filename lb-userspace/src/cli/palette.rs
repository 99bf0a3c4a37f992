//! Colour, unless the operator or the terminal does not want it.

use std::{
    env,
    io::{self, IsTerminal},
};

/// The meaning of a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    #[default]
    Plain,
    Heading,
    Good,
    /// The operator should look at it.
    Warning,
    Bad,
    /// Of little importance.
    Faint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    coloured: bool,
}

impl Palette {
    pub const PLAIN: Self = Self { coloured: false };
    pub const COLOURED: Self = Self { coloured: true };

    /// For standard output: coloured on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    pub fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// The same for standard error.
    pub fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        // no-color.org: set and not empty.
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { coloured: terminal && !refused && !dumb }
    }

    pub const fn is_coloured(self) -> bool {
        self.coloured
    }

    pub fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Plain => None,
            Paint::Heading => Some("1"),
            Paint::Good => Some("32"),
            Paint::Warning => Some("33"),
            Paint::Bad => Some("31"),
            Paint::Faint => Some("2"),
        };
        match code {
            Some(code) if self.coloured && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            Some(_) | None => text.to_owned(),
        }
    }
}
