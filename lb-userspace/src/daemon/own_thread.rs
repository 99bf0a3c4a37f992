//! A future with a thread, timers and descriptors of its own.

use std::{io, thread};

use tokio::{runtime, sync::oneshot};

/// Runs what `make` returns. On a busy host each thread that has to be woken on the way of an event costs its
/// turn in the run queue; here there is one.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    make: impl AsyncFnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Whoever waited may have gone.
        let _ = end.send(runtime.block_on(make()));
    })?;
    Ok(ended)
}
