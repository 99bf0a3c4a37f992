//! Rings of the kernel as tasks read them: the XDP program's log.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

use crate::dataplane::bpf;

/// Writes the program's log lines to the daemon's log.
pub(super) async fn read(logger: bpf::Logger) {
    let mut logger = match watch_fd(logger) {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "the XDP program's log is not readable"),
    };
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// Waits for the descriptor of a ring.
pub(super) fn watch_fd<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: used with aya's ring and log readers only, which own their descriptor, always
    // name the same one, and close it when they are dropped.
    let watched = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    watched.map_err(Into::into)
}
