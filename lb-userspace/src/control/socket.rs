//! The control socket's file, and the lock that excludes a second daemon.
//!
//! `<path>.lock` is locked (flock) as long as the daemon lives, and contains its pid. The process that has the lock
//! owns the socket file. So it may remove a file that a killed daemon left. Only root and the daemon's user can open
//! the lock: another user who holds it would keep the next daemon from starting.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, sockopt::PeerCredentials},
};
use tokio::net::UnixListener;

use self::lock::LockFile;
use crate::files::{self, Distrust};

mod lock;

/// Connections that wait to be accepted. The CLI and a few scrapers need no more, unless the daemon hangs.
const BACKLOG: i32 = 64;

/// A listening socket whose path is ours.
#[derive(Debug)]
pub struct Bound {
    pub listener: UnixListener,
    /// Must live as long as the listener. When it is dropped, it removes the socket and its lock.
    pub guard: Guard,
}

#[derive(Debug)]
pub struct Guard {
    socket: PathBuf,
    lock: LockFile,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{} is in use by {}", path.display(), holder(*pid))]
    InUse {
        path: PathBuf,
        /// `None`: the process has not written it yet.
        pid: Option<i32>,
    },
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Other users could put a socket of their own in its place, and have done so or may do so.
    #[error("{} {why}", path.display())]
    Untrusted { path: PathBuf, why: Distrust },
    #[error("the path of the control socket is too long for the kernel: {}", .0.display())]
    TooLong(PathBuf),
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl BindError {
    /// The remedy for the operator who started the daemon.
    pub fn remedy(&self) -> String {
        match self {
            Self::InUse { .. } => {
                "each daemon needs its own socket: stop the other daemon, or choose another socket with `-s`"
                    .to_owned()
            }
            Self::NotASocket(path) => {
                format!("remove {} if it is not needed, or choose another socket with `-s`", path.display())
            }
            Self::Untrusted { path, why } => why.remedy(path),
            Self::TooLong(_) => "choose a path of at most 107 bytes with `-s`".to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as root, or choose a socket in a directory that you may write to with `-s`".to_owned()
            }
            Self::Io { .. } => "choose another socket with `-s`".to_owned(),
        }
    }
}

/// The files that a daemon makes for its socket.
pub fn files(path: &Path) -> Vec<PathBuf> {
    vec![path.to_owned(), lock::path_of(path)]
}

/// Makes directory (0755), lock and socket (0660). Needs a tokio runtime.
pub fn bind(path: &Path) -> Result<Bound, BindError> {
    if let Some(parent) = path.parent() {
        if !parent.as_os_str().is_empty() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(|source| io_error("create the directory", parent, source))?;
        }
        files::trust_folder(parent).map_err(|source| io_error("look at", parent, source))?;
    }
    let lock = LockFile::take(path)?;
    // A file that is there may belong to another process. Only the lock is ours to remove yet.
    remove_stale(path).inspect_err(|_| lock.remove())?;
    let guard = Guard { socket: path.to_owned(), lock };
    let listener = listen(path)?;
    Ok(Bound { listener, guard })
}

/// Binds, sets the file mode, and listens only then, so that no client connects in between.
fn listen(path: &Path) -> Result<UnixListener, BindError> {
    let address = address(path)?;
    let attempt = || -> io::Result<UnixListener> {
        let fd = unconnected()?;
        socket::bind(fd.as_raw_fd(), &address)?;
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
        socket::listen(&fd, Backlog::new(BACKLOG)?)?;
        UnixListener::from_std(StdListener::from(fd))
    };
    attempt().map_err(|source| io_error("listen on", path, source))
}

fn address(path: &Path) -> Result<UnixAddr, BindError> {
    UnixAddr::new(path).map_err(|_| BindError::TooLong(path.to_owned()))
}

fn unconnected() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// Removes the socket of a daemon that could not clean up. We have the lock, but a process that listens on the socket
/// without the lock is not ours, so its socket stays.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            files::owned(&found).map_err(|why| BindError::Untrusted { path: path.to_owned(), why })?;
        }
        Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("look at", path, source)),
    }
    let probe = unconnected().map_err(|source| io_error("ask who listens on", path, source))?;
    match socket::connect(probe.as_raw_fd(), &address(path)?) {
        Ok(()) => {
            let stream = StdStream::from(probe);
            let pid = socket::getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid());
            return Err(BindError::InUse { path: path.to_owned(), pid });
        }
        // Its queue is full, so there is a listener.
        Err(Errno::EAGAIN) => return Err(BindError::InUse { path: path.to_owned(), pid: None }),
        Err(_) => {}
    }
    fs::remove_file(path).map_err(|source| io_error("remove the stale socket", path, source))
}

impl Drop for Guard {
    fn drop(&mut self) {
        // If the lock file was removed, the path may belong to another daemon by now.
        if self.lock.is_current() {
            let _ = fs::remove_file(&self.socket);
        }
        self.lock.remove();
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> BindError {
    if let Some(why) = Distrust::of(&source) {
        return BindError::Untrusted { path: path.to_owned(), why };
    }
    BindError::Io { doing, path: path.to_owned(), source }
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests;
