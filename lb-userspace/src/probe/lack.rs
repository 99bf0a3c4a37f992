//! The daemon's own lack of descriptors, memory, buffers or ports. It says nothing about a backend, so no probe fails for
//! it: the prober waits and tries again.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lb_core::codes::DaemonCode;
use nix::errno::Errno;
use tracing::{info, warn};

/// Between two attempts of a probe that lacks something.
pub(super) const RETRY: Duration = Duration::from_millis(250);

/// Something that the daemon lacks, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.desc())]
pub(super) struct Lack(Errno);

impl Lack {
    /// `None`: the error is about the backend or the way to it.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        let errno = Errno::from_raw(error.raw_os_error()?);
        let own = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL];
        own.contains(&errno).then_some(Self(errno))
    }

    fn code(self) -> DaemonCode {
        match self.0 {
            Errno::EMFILE | Errno::ENFILE => DaemonCode::LacksDescriptors,
            Errno::EADDRNOTAVAIL => DaemonCode::LacksPorts,
            _ => DaemonCode::LacksMemory,
        }
    }
}

/// The lack of all probes of a daemon.
#[derive(Clone, Debug, Default)]
pub(super) struct Lacks(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    last: Option<Lack>,
    /// How often something began to be lacking.
    times: u64,
}

/// One probe waits. It no longer does when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Lacks);

impl Lacks {
    /// A probe begins to wait. `earlier`: it has waited before.
    pub(super) fn wait(&self, lack: Lack, earlier: Option<Waiting>) -> Waiting {
        let mut state = self.state();
        state.last = Some(lack);
        if let Some(waiting) = earlier {
            return waiting;
        }
        state.waiting += 1;
        if state.waiting == 1 {
            state.times += 1;
            // The first time, and then ever less often.
            if state.times.is_power_of_two() {
                let times = state.times;
                warn!(times, "probes wait, and no backend is judged for it: {lack}");
            }
        }
        Waiting(self.clone())
    }

    /// For people. `None`: no probe waits.
    pub(super) fn shown(&self) -> Option<(DaemonCode, String)> {
        let state = self.state();
        let (waiting, lack) = (state.waiting, state.last?);
        (waiting > 0).then(|| (lack.code(), format!("{lack} ({waiting} wait)")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        if state.waiting == 0 && state.times.is_power_of_two() {
            info!("no probe waits any more");
        }
    }
}
