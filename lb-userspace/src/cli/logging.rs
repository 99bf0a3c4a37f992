//! The daemon's log: lines on stderr, for the journal or a terminal.
//!
//! A thread of its own writes them. A reader that stalls or goes away costs lines, which are counted, and holds up
//! nothing else.

use std::{env, io};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

use super::{
    exit::{Exit, Failure},
    palette::Palette,
};
use crate::printable::shielded;

pub const FILTER: &str = "SHUNT_LOG";

/// So many lines wait for a reader that stalls.
const WAITING: usize = 1024;

/// The log of this process. Its drop writes the lines that still wait, for a second at most.
pub struct Log {
    /// Counts the lines that were lost.
    pub lost: ErrorCounter,
    _writer: WorkerGuard,
}

/// Sets up the log of this process, once. `configured` is a filter such as `info`. The environment variable
/// overrides it.
pub fn init(configured: &str) -> Result<Log, Failure> {
    let filter = filter(env::var(FILTER).ok().as_deref(), configured)?;
    let (lines, writer) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING).finish(Shielded(io::stderr()));
    let lost = lines.error_counter();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(lines)
        .with_ansi(Palette::of_stderr().is_coloured())
        .finish()
        .try_init()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(Log { lost, _writer: writer })
}

/// Standard error, without characters that act on text. The formatter hands over whole lines.
struct Shielded<W>(W);

impl<W: io::Write> io::Write for Shielded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(shielded(text).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn filter(asked: Option<&str>, configured: &str) -> Result<EnvFilter, Failure> {
    let asked = asked.filter(|asked| !asked.is_empty()).unwrap_or(configured);
    EnvFilter::try_new(asked).map_err(|error| {
        Failure::message(Exit::Usage, format!("{FILTER}={asked}: {error}"))
            .remedy("examples: SHUNT_LOG=debug, SHUNT_LOG=info,lb_userspace::probe=trace")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_environment_overrides_the_configuration() {
        for (asked, expected) in [(None, "warn"), (Some(""), "warn"), (Some("debug"), "debug")] {
            assert_eq!(filter(asked, "warn").expect("valid").to_string(), expected);
        }
    }

    #[test]
    fn a_line_of_the_log_reads_as_it_was_written() {
        let mut written = Vec::new();
        Shielded(&mut written).write_all("ejected: \u{202e}b\x1b[0m\n".as_bytes()).expect("memory");
        assert_eq!(written, b"ejected: \\u202eb\x1b[0m\n");
    }

    #[test]
    fn a_wrong_filter_is_usage() {
        let failure = filter(Some("shunt=loud"), "info").expect_err("no such level");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("SHUNT_LOG=shunt=loud"), "{failure}");
    }
}
