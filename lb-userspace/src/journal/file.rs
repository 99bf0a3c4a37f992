//! A file of lines that is bounded in size: when it is full, it becomes FILE.1,
//! FILE.1 becomes FILE.2, and so on, and the oldest is dropped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::Options;

/// What every line of ours begins with.
const BEGINNING: &[u8] = b"{\"t_ms\":";

/// How far from the end of a file the end of its last whole line is looked for. Longer lines are not written
/// at the end of a run.
const TAIL: u64 = 1 << 20;

/// Who may read it: it names clients.
const PERMISSIONS: u32 = 0o640;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot record to {path}")]
    Io { path: PathBuf, source: io::Error },
    /// Whatever it is, nothing is added to it.
    #[error("cannot record to {0}: it holds something else")]
    Foreign(PathBuf),
}

impl OpenError {
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { .. } => "name a file in a directory that exists and that the daemon may write",
            Self::Foreign(_) => "name a file that does not exist yet",
        }
    }
}

#[derive(Debug)]
pub(super) struct LogFile {
    options: Options,
    /// `None`: since an error it is not known what is at its path. It is opened anew before more is written.
    file: Option<File>,
    /// Of the whole lines in it.
    len: u64,
}

impl LogFile {
    /// Opens or creates it. A recording of an earlier run is continued; a line that it did not finish is
    /// dropped.
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let (file, len) = continued(&options.path)?;
        Ok(Self { options: options.clone(), file: Some(file), len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Whether so much more would be too much.
    pub(super) fn is_full(&self, more: u64) -> bool {
        self.len > 0 && self.len + more > self.options.max_size
    }

    /// All of it or, with an error, nothing.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = self.opened()?;
        if let Err(error) = file.write_all(lines) {
            // A part of a line would make the rest unreadable. Cutting needs no room.
            file.set_len(self.len)?;
            self.file = Some(file);
            return Err(error);
        }
        self.file = Some(file);
        self.len += lines.len() as u64;
        Ok(())
    }

    fn opened(&mut self) -> io::Result<File> {
        if let Some(file) = self.file.take() {
            return Ok(file);
        }
        let (file, len) = continued(&self.options.path).map_err(io::Error::other)?;
        self.len = len;
        Ok(file)
    }

    #[cfg(test)]
    pub(super) fn replace(&mut self, file: File) -> Option<File> {
        self.file.replace(file)
    }

    /// Begins a new file.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.shift()?;
        let file = append_to(&self.options.path)?;
        // It is still the old one where only one is kept.
        file.set_len(0)?;
        self.len = 0;
        self.file = Some(file);
        Ok(())
    }

    /// Moves all that are kept out of the way of a new one; the oldest is dropped.
    pub(super) fn shift(&mut self) -> io::Result<()> {
        // Its name may be another one from here on.
        self.file = None;
        let path = &self.options.path;
        // A place may be free since an attempt that failed half-way: nothing beyond it has to move or to go.
        let last = self.options.files.saturating_sub(1);
        let free = (0..last).find(|age| !numbered(path, *age).exists()).unwrap_or(last);
        for age in (0..free).rev() {
            fs::rename(numbered(path, age), numbered(path, age + 1))?;
        }
        Ok(())
    }
}

/// A recording that is there, or a new one, and the length of its whole lines.
fn continued(path: &Path) -> Result<(File, u64), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let mut file = append_to(path).map_err(io)?;
    // Pipes and devices have no end to continue at and cannot be renamed.
    if !file.metadata().map_err(io)?.is_file() {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let len = whole_lines(&mut file).map_err(io)?.ok_or_else(|| OpenError::Foreign(path.to_owned()))?;
    file.set_len(len).map_err(io)?;
    Ok((file, len))
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(PERMISSIONS).open(path)
}

/// Of age 0 is FILE itself.
fn numbered(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if age > 0 {
        name.push(format!(".{age}"));
    }
    name.into()
}

/// How many bytes of a recording are whole lines. `None`: it is none.
fn whole_lines(file: &mut File) -> io::Result<Option<u64>> {
    let len = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut beginning = Vec::new();
    (&mut *file).take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    if !BEGINNING.starts_with(&beginning) {
        return Ok(None);
    }
    let from = len.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n').map(|end| from + end as u64 + 1);
    // Without an end of a line in a long tail it cannot be one.
    Ok(if end.is_none() && from > 0 { None } else { Some(end.unwrap_or(0)) })
}
