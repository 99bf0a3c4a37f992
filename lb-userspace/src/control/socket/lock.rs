//! The lock beside the socket.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{BindError, io_error};
use crate::files::{self, Distrust};

/// How often another process may change the lock file while we take it, before that is an error.
const TRIES: usize = 16;

/// Root and the daemon's user only: every user who can open a file can lock it.
const MODE: u32 = 0o600;

/// Locked until dropped.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

pub(super) fn path_of(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

impl LockFile {
    pub(super) fn take(socket: &Path) -> Result<Self, BindError> {
        let path = path_of(socket);
        for _ in 0..TRIES {
            replace_strangers(&path)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(MODE);
            let file = match files::open(&path, &options) {
                Ok(file) => file,
                // Another user has put something there since.
                Err(error) if Distrust::of(&error).is_some() => continue,
                Err(source) => return Err(io_error("open", &path, source)),
            };
            let mut lock = Self { file, path: path.clone() };
            match lock.file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(BindError::InUse { path: socket.to_owned(), pid: lock.read_pid() });
                }
                Err(fs::TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            }
            // The last owner may have removed the file between our open and our lock.
            if lock.is_current() {
                lock.write_pid().map_err(|source| io_error("write to", &path, source))?;
                return Ok(lock);
            }
        }
        Err(io_error("lock", &path, io::Error::other("it is changed again and again")))
    }

    /// Whether the path still leads to the file that we have open.
    pub(super) fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    pub(super) fn remove(&self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn read_pid(&mut self) -> Option<i32> {
        let mut text = String::new();
        self.file.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn write_pid(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        writeln!(self.file, "{}", std::process::id())
    }
}

/// Removes a lock that other users can open, or have put there: one of them may hold it for ever. Whether a daemon of an
/// earlier version is behind it, which made such locks, its socket says.
fn replace_strangers(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("look at", path, source)),
    };
    let Err(why) = exclusive(&found) else { return Ok(()) };
    match fs::remove_file(path) {
        Ok(()) => warn!(path = %path.display(), "replaced the lock: it {why}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return Err(BindError::Untrusted { path: path.to_owned(), why }),
    }
    Ok(())
}

/// Whether only root and the daemon's user can open it.
fn exclusive(found: &Metadata) -> Result<(), Distrust> {
    files::trust(found)?;
    match found.mode() & 0o7777 {
        mode if mode & !MODE == 0 => Ok(()),
        mode => Err(Distrust::Shared(mode)),
    }
}
