//! Files that the daemon may trust: opened without following a link, and owned by root or by the daemon's user.
//!
//! A folder that others may write to is a place in which others may plant a link, a pipe or a file of their own. The
//! daemon is root, and would write through a link into any file of the host.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::unistd::geteuid;

/// Write permission of all users.
const OTHERS_WRITE: u32 = 0o002;
/// In such a folder only the owner of a file may rename or remove it.
const STICKY: u32 = 0o1000;

/// Why a file or a folder is not to be trusted. The text follows its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("is a symbolic link")]
    Link,
    #[error("is {0} and not a file")]
    Kind(&'static str),
    #[error("belongs to the user {0}, and not to root or the daemon's user")]
    Owner(u32),
    #[error("has {0} names, so it may be another program's file")]
    Names(u64),
    #[error("may be changed by other users: its mode is {0:o}")]
    Open(u32),
    #[error("is open to other users: its mode is {0:o}")]
    Shared(u32),
}

impl Distrust {
    /// The remedy of the operator at that path.
    pub fn remedy(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Link | Self::Kind(_) | Self::Names(_) => {
                format!("look who made it (`ls -l {path}`), remove it, or name another path")
            }
            Self::Owner(_) => {
                format!("look at it, then remove it or `chown root {path}`, or name another path")
            }
            Self::Shared(_) => format!("`chmod go= {path}`, or name another path"),
            Self::Open(_) => format!("`chmod go-w {path}`, or name another path"),
        }
    }

    /// The distrust behind an error of [`open`].
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Distrust> for io::Error {
    fn from(distrust: Distrust) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, distrust)
    }
}

/// Opens a regular file that is ours. It never follows a link at the end of the path, and never waits for the other
/// end of a pipe.
pub fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let mut options = options.clone();
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    // To open a device may already do something.
    match fs::symlink_metadata(path) {
        Ok(found) => trust(&found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => Distrust::Link.into(),
        _ => error,
    })?;
    trust(&file.metadata()?)?;
    Ok(file)
}

/// Whether it is a regular file of root or of the daemon's user, and has no other name.
pub fn trust(found: &Metadata) -> Result<(), Distrust> {
    let kind = found.file_type();
    if kind.is_symlink() {
        return Err(Distrust::Link);
    }
    if !kind.is_file() {
        return Err(Distrust::Kind(match () {
            () if kind.is_dir() => "a folder",
            () if kind.is_fifo() => "a pipe",
            () if kind.is_socket() => "a socket",
            () => "a device",
        }));
    }
    owned(found)?;
    if found.nlink() > 1 {
        return Err(Distrust::Names(found.nlink()));
    }
    Ok(())
}

/// Whether only root, the daemon's user and their groups may change the names in this folder. A path without a folder is
/// in the present one.
pub fn trust_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let found = fs::metadata(folder)?;
    owned(&found)?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(Distrust::Open(mode).into());
    }
    Ok(())
}

/// Whether it belongs to root or to the daemon's user.
pub fn owned(found: &Metadata) -> Result<(), Distrust> {
    match found.uid() {
        uid if uid == 0 || uid == geteuid().as_raw() => Ok(()),
        uid => Err(Distrust::Owner(uid)),
    }
}

#[cfg(test)]
mod tests;
