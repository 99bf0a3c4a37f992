//! Standard output. A reader that goes away is no failure: it has read enough.

use std::io::{self, Write};

use anyhow::Context;

use super::exit::Failure;
use crate::printable::shielded;

/// Whether standard output still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Reading,
    Gone,
}

/// Writes and flushes, so that a reader sees each line at once.
pub fn print(text: &str) -> Result<Reader, Failure> {
    Ok(write(&mut io::stdout().lock(), shielded(text).as_bytes())
        .context("cannot write to standard output")?)
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<Reader> {
    reader_of(to.write_all(bytes).and_then(|()| to.flush()))
}

fn reader_of(written: io::Result<()>) -> io::Result<Reader> {
    match written {
        Ok(()) => Ok(Reader::Reading),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}

/// Standard output for much text: it writes in large pieces.
pub struct Stream(io::BufWriter<io::StdoutLock<'static>>);

impl Stream {
    pub fn open() -> Self {
        Self(io::BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<Reader, Failure> {
        let written = match std::str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(shielded(text).as_bytes()),
            Err(_) => self.0.write_all(bytes),
        };
        Ok(reader_of(written).context("cannot write to standard output")?)
    }

    pub fn flush(&mut self) -> Result<Reader, Failure> {
        Ok(reader_of(self.0.flush()).context("cannot write to standard output")?)
    }
}

/// Prints a remark on stderr. If that fails, there is nothing to do about it.
pub fn remark(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{}", shielded(&text.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let mut whole = Vec::new();
        assert_eq!(write(&mut whole, b"text\n").expect("memory"), Reader::Reading);
        assert_eq!(whole, b"text\n");
        assert_eq!(write(&mut Broken(io::ErrorKind::BrokenPipe), b"x").expect("gone"), Reader::Gone);
        write(&mut Broken(io::ErrorKind::StorageFull), b"x").expect_err("a full disk is a failure");
    }
}
