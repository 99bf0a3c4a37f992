//! Replays over a stream of lines.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, Read},
};

use super::{run::Replay, unfit::Unfit};
use crate::journal::line::{self, LineError};

/// A line with the members of a service with 16 384 backends is about half as long.
const LONGEST: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{place}: {error}")]
    Line { place: String, error: LineError },
    #[error("{place}: {error}")]
    Unfit { place: String, error: Unfit },
    #[error("cannot read {name}")]
    Io { name: String, source: io::Error },
}

impl InputError {
    /// The remedy.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Line { error, .. } => Some(&error.help),
            Self::Unfit { error, .. } => Some(&error.help),
            Self::Io { .. } => None,
        }
    }
}

/// Whether the caller wants more lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// The caller does not want the rest.
    Stop,
}

/// Gives all lines of `input` to all `replays`. Errors call the input `name`, and each replay by its own
/// name. After each line, `each` may take the records. Its second argument says that no further line is there
/// yet.
pub fn read<R: Read, E: From<InputError>>(
    name: &str,
    input: &mut BufReader<R>,
    replays: &mut [(Option<&str>, Replay)],
    mut each: impl FnMut(&mut [(Option<&str>, Replay)], bool) -> Result<Then, E>,
) -> Result<(), E> {
    let failed = |source| InputError::Io { name: name.to_owned(), source };
    let mut bytes = Vec::new();
    let mut number = 0u64;
    loop {
        bytes.clear();
        number += 1;
        if Read::by_ref(input).take(LONGEST).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            return Ok(());
        }
        if number == 1 && bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(.."\u{feff}".len());
        }
        let too_long = bytes.len() as u64 == LONGEST && bytes.last() != Some(&b'\n');
        let parsed = if too_long { Err(endless()) } else { line::parse(&bytes) };
        let parsed = parsed.map_err(|error| {
            let place = format!("{name}:{number}:{}", error.column);
            InputError::Line { place, error }
        })?;
        let Some(line) = parsed else { continue };
        for (called, replay) in &mut *replays {
            replay.take(&line).map_err(|error| {
                let with = called.map_or(Cow::Borrowed(""), |called| format!(" with {called}").into());
                InputError::Unfit { place: format!("{name}:{number}{with}"), error }
            })?;
        }
        let idle = input.buffer().is_empty();
        if each(replays, idle)? == Then::Stop {
            return Ok(());
        }
    }
}

fn endless() -> LineError {
    LineError {
        column: LONGEST as usize,
        message: format!("the line is longer than {} MiB", LONGEST >> 20),
        help: "is this the right file? Each event stands on a line of its own".to_owned(),
    }
}
