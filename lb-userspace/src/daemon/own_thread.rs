//! A future with a thread, timers and descriptors of its own.

use std::{io, thread};

use tokio::{runtime, sync::oneshot};

/// Runs the future of `make`. On a busy host, each thread that must wake on the way of an event waits for its
/// turn in the run queue. Here there is one such thread.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    make: impl AsyncFnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // The caller may have stopped waiting.
        let _ = end.send(runtime.block_on(make()));
    })?;
    Ok(ended)
}
