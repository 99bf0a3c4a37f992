//! One host: a network namespace, and ways to do things inside.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    panic,
    path::PathBuf,
    process::Command,
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl, signal::Signal},
    unistd,
};

use super::{
    Error, Process, Result,
    namespace::{self, checked, ip},
};

/// A handle; the namespace itself belongs to the [`Lab`](super::Lab).
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: String,
    file: File,
}

impl Host {
    pub(super) fn make(name: &str, namespace: &str) -> Result<Self> {
        namespace::add(namespace)?;
        let path = PathBuf::from(namespace::FOLDER).join(namespace);
        let file = File::open(&path).map_err(Error::io(path.display().to_string()))?;
        Ok(Self(Arc::new(Inner { name: name.to_owned(), namespace: namespace.to_owned(), file })))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name that `ip netns` knows.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// A program that will run on this host, and is killed when the **thread** that starts it ends.
    ///
    /// Unlike under `ip netns exec`, /sys stays as it is, so that bpffs is seen.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let host = self.0.clone();
        let parent = unistd::getpid();
        let mut command = Command::new(program);
        let enter = move || -> io::Result<()> {
            setns(&host.file, CloneFlags::CLONE_NEWNET)?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have ended before the line above.
            if unistd::getppid() != parent { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Starts a program made by [`Host::command`]. It is out of reach of the terminal's keys; the
    /// holder of the [`Process`] decides when it ends.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).spawn();
        child.map(Process::new).map_err(Error::io(format!("starting `{program}` on {}", self.name())))
    }

    /// Runs a program to its end and answers what it wrote.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let (program, args) = words.split_first().expect("a program is named");
        checked(self.command(program).args(args))
    }

    /// `ip` on this host, with arguments separated by spaces.
    pub fn ip(&self, args: &str) -> Result<String> {
        let words: Vec<_> = ["-n", self.namespace()].into_iter().chain(args.split_whitespace()).collect();
        ip(&words)
    }

    /// Writes `/proc/sys/KEY` as this host sees it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.enter(|| fs::write(&path, value))?.map_err(Error::io(path.clone()))
    }

    /// Does `work` on this host, in a thread of its own, and waits for it. Sockets made inside stay on this host.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.move_thread().map(|()| work()));
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Like [`Host::enter`], without waiting.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let host = self.clone();
        thread::spawn(move || host.move_thread().map(|()| work()))
    }

    /// For good: only for threads that end with their work.
    fn move_thread(&self) -> Result<()> {
        setns(&self.0.file, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(Error::io(format!("entering {}", self.namespace())))
    }
}
