//! Where the maps and links outlive the daemon: `BPFFS/shunt/INSTANCE/vABI/`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::programs::links::{FdLink, PinnedLink};
use lb_common::ABI_VERSION;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::statfs,
};
use tracing::{info, warn};

use super::link::{is_link, unpin};
use crate::files::{self, Distrust};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The directory of an instance, for all versions of the map layout.
fn instance_dir(bpffs: &Path, instance: &str) -> PathBuf {
    bpffs.join("shunt").join(instance)
}

/// The right to an instance's pins. Only the process that holds it writes the maps.
pub type Lock = Flock<fs::File>;

/// `None`: another process holds it.
fn lock(dir: &Path) -> io::Result<Option<Lock>> {
    match Flock::lock(fs::File::open(dir)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Pins that another user could have made decide nothing.
#[derive(Debug, thiserror::Error)]
#[error("{} {why}", path.display())]
pub struct Untrusted {
    path: PathBuf,
    why: Distrust,
}

impl Untrusted {
    pub fn remedy(&self) -> String {
        self.why.remedy(&self.path)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes the directory of an instance and locks it. Mounts the BPF filesystem if it is not mounted. `None`: another
/// process holds the lock.
pub(super) fn prepare(bpffs: &Path, instance: &str) -> Result<Option<(PathBuf, Lock)>, PrepareError> {
    if !is_bpffs(bpffs)? {
        mount_once(bpffs)?;
    }
    let instance = instance_dir(bpffs, instance);
    let dir = instance.join(format!("v{ABI_VERSION}"));
    for folder in [bpffs, &bpffs.join("shunt"), &instance, &dir] {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            Ok(()) | Err(_) => trust_folder(folder, folder == bpffs)?,
        }
    }
    for name in names(&dir)? {
        let pin = dir.join(name);
        let found = fs::symlink_metadata(&pin)?;
        files::trust(&found).and_then(|()| closed(&found)).map_err(|why| Untrusted { path: pin, why })?;
    }
    Ok(lock(&instance)?.map(|lock| (dir, lock)))
}

/// Mounts the BPF filesystem. Of daemons that start together one does, and the others wait for it: a second mount would
/// hide the pins of the first.
fn mount_once(bpffs: &Path) -> io::Result<()> {
    /// Anybody who may read the directory can hold its lock, but only for so long.
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    let mut turn = None;
    for _ in 0..TRIES {
        turn = lock(bpffs)?;
        if turn.is_some() {
            break;
        }
        thread::sleep(PAUSE);
    }
    if !is_bpffs(bpffs)? {
        mount(Some("bpf"), bpffs, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
        info!(path = %bpffs.display(), "mounted the BPF filesystem");
    }
    drop(turn);
    Ok(())
}

/// Whether only root and the daemon's user can put pins into this folder. `sticky`: others may add files of their own, as
/// the root of the BPF filesystem lets them where it is mounted without a mode.
fn trust_folder(folder: &Path, sticky: bool) -> Result<(), PrepareError> {
    // The mount point may be reached by a link, what is below it may not.
    let found = if sticky { fs::metadata(folder)? } else { fs::symlink_metadata(folder)? };
    let judged = match found.file_type() {
        kind if kind.is_symlink() => Err(Distrust::Link),
        kind if !kind.is_dir() => Err(Distrust::Kind("no folder")),
        _ if sticky && found.mode() & STICKY != 0 => files::owned(&found),
        _ => files::owned(&found).and_then(|()| closed(&found)),
    };
    Ok(judged.map_err(|why| Untrusted { path: folder.to_owned(), why })?)
}

/// In such a folder only the owner of a file may rename or remove it.
const STICKY: u32 = 0o1000;

/// Whether nobody but the owner may write.
fn closed(found: &fs::Metadata) -> Result<(), Distrust> {
    match found.mode() & 0o7777 {
        mode if mode & 0o022 == 0 => Ok(()),
        mode => Err(Distrust::Open(mode)),
    }
}

/// When a start fails, its drop removes the pins that the start has added. The pins of an earlier run stay. The lock must
/// live longer than this.
pub(super) struct Undo<'a> {
    dir: &'a Path,
    before: BTreeSet<OsString>,
    succeeded: bool,
}

impl<'a> Undo<'a> {
    pub(super) fn new(dir: &'a Path) -> io::Result<Self> {
        Ok(Self { dir, before: names(dir)?, succeeded: false })
    }

    pub(super) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.succeeded {
            return;
        }
        for name in names(self.dir).unwrap_or_default().difference(&self.before) {
            if let Err(error) = unpin(&self.dir.join(name)) {
                warn!(pin = %self.dir.join(name).display(), %error, "not removed");
            }
        }
        // Version, instance, `shunt`: as far up as the directories are empty.
        for dir in self.dir.ancestors().take(3) {
            if fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }
}

fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Whether the BPF filesystem is mounted there.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    let stat = statfs(path)?;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
    let kind = stat.filesystem_type().0 as i64;
    Ok(kind & 0xffff_ffff == BPF_FS_MAGIC)
}

/// The owner of an attached XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An instance of shunt.
    Instance(String),
    /// Another program than shunt's, with its name if the kernel has one.
    Other(Option<String>),
}

/// Looks among the pinned links of all instances for one of this program's.
pub fn owner(bpffs: &Path, program: u32) -> io::Result<Owner> {
    let shunt = bpffs.join("shunt");
    if shunt.try_exists()? {
        for instance in fs::read_dir(&shunt)? {
            let instance = instance?;
            for version in fs::read_dir(instance.path())? {
                if has_link_of(&version?.path(), program)? {
                    return Ok(Owner::Instance(instance.file_name().to_string_lossy().into_owned()));
                }
            }
        }
    }
    let mut programs = aya::programs::loaded_programs().flatten();
    let found = programs.find(|info| info.id() == program);
    Ok(Owner::Other(found.and_then(|info| info.name_as_str().map(str::to_owned))))
}

fn has_link_of(dir: &Path, program: u32) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !is_link(&entry.path()) {
            continue;
        }
        let link: FdLink = PinnedLink::from_pin(entry.path()).map_err(io::Error::other)?.into();
        if link.info().map_err(io::Error::other)?.program_id() == program {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many pins [`detach`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Links to interfaces: forwarding ended there.
    pub links: usize,
    pub maps: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("a daemon of instance {0} is running")]
    Running(String),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("cannot remove {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Ends forwarding of an instance whose daemon has stopped, and drops its connections. An instance without pins has
/// nothing to remove.
pub fn detach(bpffs: &Path, instance: &str) -> Result<Detached, DetachError> {
    let mut detached = Detached::default();
    let dir = instance_dir(bpffs, instance);
    let failed = |source| DetachError::Io { path: dir.clone(), source };
    // Not `exists`: without the permission to look it would say that the directory is absent.
    if !dir.try_exists().map_err(failed)? {
        return Ok(detached);
    }
    // A link there would lead the removal to other folders.
    for folder in [&bpffs.join("shunt"), &dir] {
        trust_folder(folder, false).map_err(|error| match error {
            PrepareError::Untrusted(untrusted) => untrusted.into(),
            PrepareError::Io(source) => failed(source),
        })?;
    }
    let lock = lock(&dir).map_err(failed)?;
    let Some(_lock) = lock else { return Err(DetachError::Running(instance.to_owned())) };
    remove(&dir, &mut detached)?;
    // Fails while another instance has pins there.
    let _ = fs::remove_dir(bpffs.join("shunt"));
    Ok(detached)
}

fn remove(path: &Path, detached: &mut Detached) -> Result<(), DetachError> {
    let failed = |source| DetachError::Io { path: path.to_owned(), source };
    if fs::symlink_metadata(path).map_err(failed)?.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            remove(&entry.map_err(failed)?.path(), detached)?;
        }
        return fs::remove_dir(path).map_err(failed);
    }
    unpin(path).map_err(failed)?;
    if is_link(path) {
        detached.links += 1;
    } else {
        detached.maps += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, process, sync::Barrier};

    use nix::{
        mount::{MntFlags, umount2},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    const NONE: Option<&str> = None;

    /// As root, like everything that mounts: in a mount namespace of its own, which ends with the thread.
    #[test]
    fn daemons_that_start_together_mount_it_once() {
        /// Without the lock, some of so many rounds have two mounts.
        const ROUNDS: usize = 200;
        let together = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("root may make a mount namespace");
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("a private tree");
            let point = env::temp_dir().join(format!("shunt-bpffs-{}", process::id()));
            fs::create_dir(&point).expect("a new directory");
            let most = (0..ROUNDS).map(|_| mounts_of_daemons(&point)).max();
            fs::remove_dir(&point).expect("empty");
            most
        });
        assert_eq!(together.join().expect("no panic"), Some(1));
    }

    /// Daemons mount it, and the test unmounts it again. Returns how many mounts there were.
    fn mounts_of_daemons(point: &Path) -> usize {
        const DAEMONS: usize = 4;
        let begin = Barrier::new(DAEMONS);
        let start = || {
            begin.wait();
            mount_once(point)
        };
        thread::scope(|scope| {
            let all: Vec<_> = (0..DAEMONS).map(|_| scope.spawn(start)).collect();
            all.into_iter().for_each(|one| one.join().expect("no panic").expect("mounted"));
        });
        let mut mounts = 0;
        while is_bpffs(point).expect("it is there") {
            umount2(point, MntFlags::MNT_DETACH).expect("mounted above");
            mounts += 1;
        }
        mounts
    }
}
