//! A file of lines that is bounded in size: when it is full, it becomes FILE.1,
//! FILE.1 becomes FILE.2, and so on, and the oldest is dropped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::files::{self, Distrust};

/// Every line of a recording begins with this.
const BEGINNING: &[u8] = b"{\"t_ms\":";

/// Bytes at the end of a file in which its last whole line must end. No longer lines are written at the end
/// of a run.
const TAIL: u64 = 1 << 20;

/// A recording names clients, so not everybody may read it.
const PERMISSIONS: u32 = 0o640;

/// Where to record, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub path: PathBuf,
    /// In bytes, of one file. Past it, FILE becomes FILE.1, that FILE.2, and so on.
    pub max_size: u64,
    /// How many files there are at most, with the one that is written. At least 1.
    pub files: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot record to {path}")]
    Io { path: PathBuf, source: io::Error },
    /// The file or its folder is another user's, or leads elsewhere.
    #[error("cannot record to {}: {} {why}", path.display(), at.display())]
    Untrusted { path: PathBuf, at: PathBuf, why: Distrust },
    /// The file is no recording. The daemon adds nothing to it.
    #[error("cannot record to {0}: it holds something else")]
    Foreign(PathBuf),
}

impl OpenError {
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { .. } => {
                "name a file in a directory that exists and that the daemon may write".to_owned()
            }
            Self::Untrusted { at, why, .. } => why.remedy(at),
            Self::Foreign(_) => "name a file that does not exist yet".to_owned(),
        }
    }

    fn new(path: &Path, at: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match Distrust::of(&source) {
            Some(why) => Self::Untrusted { path, at: at.to_owned(), why },
            None => Self::Io { path, source },
        }
    }
}

#[derive(Debug)]
pub(super) struct LogFile {
    options: Options,
    /// `None`: since an error, another file may be at its path. It is opened again before more is written.
    file: Option<File>,
    /// Bytes of the whole lines in it.
    len: u64,
}

impl LogFile {
    /// Opens or creates it. A recording of an earlier run is continued, without a last line that is not
    /// whole.
    pub(super) fn open(options: &Options) -> Result<Self, OpenError> {
        let path = &options.path;
        let folder = path.parent().unwrap_or(Path::new("/"));
        files::trust_folder(folder).map_err(|source| OpenError::new(path, folder, source))?;
        let (file, len) = continued(&options.path)?;
        Ok(Self { options: options.clone(), file: Some(file), len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.options.path
    }

    /// Whether so many more bytes would be too many.
    pub(super) fn is_full(&self, more: u64) -> bool {
        self.len > 0 && self.len + more > self.options.max_size
    }

    /// Adds all of `lines` or, with an error, nothing.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = self.opened()?;
        if let Err(error) = file.write_all(lines) {
            // A part of a line would make the rest unreadable. Cutting needs no space on the disk.
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
        // Where there is only one file, it is still the old one.
        file.set_len(0)?;
        self.len = 0;
        self.file = Some(file);
        Ok(())
    }

    /// Renames all files to make place for a new one, and drops the oldest.
    pub(super) fn shift(&mut self) -> io::Result<()> {
        // From here on it may have another name.
        self.file = None;
        let path = &self.options.path;
        // A number may be free since an attempt that failed half-way. Then no older file has to move.
        let last = self.options.files.saturating_sub(1);
        let free = (0..last).find(|age| !numbered(path, *age).exists()).unwrap_or(last);
        for age in (0..free).rev() {
            fs::rename(numbered(path, age), numbered(path, age + 1))?;
        }
        Ok(())
    }
}

/// Opens the recording at `path`, or a new one. Returns it with the length of its whole lines.
fn continued(path: &Path) -> Result<(File, u64), OpenError> {
    let io = |source| OpenError::new(path, path, source);
    let mut file = append_to(path).map_err(io)?;
    let len = whole_lines(&mut file).map_err(io)?.ok_or_else(|| OpenError::Foreign(path.to_owned()))?;
    file.set_len(len).map_err(io)?;
    Ok((file, len))
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(PERMISSIONS);
    files::open(path, &options)
}

/// The path of the file of that age. Age 0 is FILE itself.
/// The files of a recording that are there.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let is_older = |of: &Path| {
        let name = of.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.strip_prefix(&prefix).is_some_and(|age| age.parse::<u32>().is_ok())
    };
    let there = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(path.to_owned()).chain(there.filter(|of| is_older(of))).collect()
}

fn numbered(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if age > 0 {
        name.push(format!(".{age}"));
    }
    name.into()
}

/// How many bytes of the file are whole lines. `None`: the file is no recording.
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
    // A long tail without an end of a line is not from a recording.
    Ok(if end.is_none() && from > 0 { None } else { Some(end.unwrap_or(0)) })
}
