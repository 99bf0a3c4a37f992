//! SIGINT and SIGTERM as a flag, so that a lab is taken down in order.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
const CAUGHT: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// While it lives, these signals end waits of the lab with [`Error::Interrupted`] instead of the program.
#[derive(Debug)]
pub struct Guard {
    before: Vec<(Signal, SigAction)>,
}

impl Guard {
    pub fn install() -> Result<Self> {
        INTERRUPTED.store(false, Ordering::SeqCst);
        // Without SA_RESTART a blocked read returns and its owner can look at the flag.
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
        let mut guard = Self { before: Vec::new() };
        for signal in CAUGHT {
            // SAFETY: the handler only stores to an atomic.
            let before = unsafe { sigaction(signal, &action) };
            guard.before.push((signal, before.map_err(io::Error::from).map_err(Error::io("sigaction"))?));
        }
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (signal, action) in &self.before {
            // SAFETY: this is the action that was in force before.
            let _ = unsafe { sigaction(*signal, action) };
        }
    }
}

extern "C" fn note(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether one of the signals came since the guard was installed.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
