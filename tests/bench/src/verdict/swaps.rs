//! When a service has got another table, watched from outside: what the kernel's map says, looked at many times a millisecond.

use std::{
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use lb_common::ABI_VERSION;
use lb_lab::{Shunt, clock};

use crate::packet::syscall;

/// Between two looks. A look takes less than a microsecond.
const PAUSE: Duration = Duration::from_micros(20);
/// Of the only service.
const SERVICE: u32 = 0;

/// Ends when it is dropped.
pub(super) struct Swaps {
    seen: Arc<Mutex<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swaps {
    pub(super) fn watch(shunt: &Shunt) -> Result<Self> {
        let pin = shunt.pins().join(format!("v{ABI_VERSION}")).join("TABLES");
        let tables = MapData::from_pin(&pin).with_context(|| pin.display().to_string())?;
        let mut last = syscall::read(tables.fd().as_fd(), SERVICE).context("the service has no table")?;
        let (seen, stop) = (Arc::<Mutex<Vec<Duration>>>::default(), Arc::<AtomicBool>::default());
        let (swaps, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // It stays as long as the daemon does.
                let Ok(now) = syscall::read(tables.fd().as_fd(), SERVICE) else { return };
                if now != last {
                    last = now;
                    swaps.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
                }
                thread::sleep(PAUSE);
            }
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// The first one from then on.
    pub(super) fn since(&self, then: Duration) -> Option<Duration> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().find(|at| *at >= then)
    }
}

impl Drop for Swaps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its findings are there in any case.
            let _ = thread.join();
        }
    }
}
