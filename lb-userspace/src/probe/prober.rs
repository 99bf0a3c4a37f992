//! Many probes at a time.

use std::sync::Arc;

use lb_core::{
    codes::DaemonCode,
    io::{Input, ProbeRequest, ProbeResult},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::{
    exchange,
    lack::{Lacks, RETRY},
    tls::Trusted,
};

/// Runs probes in tasks of its own and sends each result as [`Input::Probe`].
///
/// At most [`Prober::LIMIT`] are under way. The rest wait in the order in which they came, and their timeouts
/// begin only when they are sent: a delay for lack of descriptors is the daemon's overload, and no failure of
/// a backend. For the same reason a probe that the daemon could not send is sent again. The queue is bounded, because the engine asks for the next probe of a backend only after the
/// last one was answered.
#[derive(Debug)]
pub struct Prober {
    permits: Arc<Semaphore>,
    /// Of confirmations: they do not wait behind the probes of backends that hang.
    confirmation_permits: Arc<Semaphore>,
    trusted: Arc<Trusted>,
    results: mpsc::Sender<Input>,
    lacks: Lacks,
    tasks: JoinSet<()>,
    runs: Handle,
}

impl Prober {
    /// A quarter of the descriptors that a process commonly may open (1024), which leaves
    /// the others to the control socket, the maps and the links. When every backend
    /// hangs until a timeout of 1 s, these are still 256 probes per second.
    pub const LIMIT: usize = 256;

    /// Confirmations at a time.
    pub const CONFIRMATIONS: usize = 64;

    /// The probes run on the tokio runtime of the caller. `results` may have any depth: a full channel delays
    /// results, not probes.
    pub fn new(results: mpsc::Sender<Input>) -> Self {
        Self::with_limit(results, Self::LIMIT)
    }

    pub fn with_limit(results: mpsc::Sender<Input>, limit: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit)),
            confirmation_permits: Arc::new(Semaphore::new(Self::CONFIRMATIONS)),
            trusted: Arc::default(),
            results,
            lacks: Lacks::default(),
            tasks: JoinSet::new(),
            runs: Handle::current(),
        }
    }

    /// Begins a probe. Answered by one [`Input::Probe`], unless the receiver is gone.
    pub fn start(&mut self, request: ProbeRequest) {
        let permits = Arc::clone(&self.permits);
        self.spawn(request, permits, |ProbeRequest { backend, generation, .. }, result| Input::Probe {
            backend,
            generation,
            result,
        });
    }

    /// Begins a confirmation. Answered by one [`Input::Confirmation`], in which the caller says whether the
    /// backend answered a SYN meanwhile.
    pub fn confirm(&mut self, request: ProbeRequest) {
        let permits = Arc::clone(&self.confirmation_permits);
        self.spawn(request, permits, |ProbeRequest { backend, generation, .. }, result| {
            Input::Confirmation { backend, generation, result, answered: false }
        });
    }

    fn spawn(
        &mut self,
        request: ProbeRequest,
        permits: Arc<Semaphore>,
        input: fn(ProbeRequest, ProbeResult) -> Input,
    ) {
        while self.tasks.try_join_next().is_some() {}
        let trusted = Arc::clone(&self.trusted);
        let (results, lacks) = (self.results.clone(), self.lacks.clone());
        let probe = async move {
            let mut waiting = None;
            let result = loop {
                // Served in the order of asking.
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                match exchange::run(&request, &trusted).await {
                    Ok(result) => break result,
                    Err(lack) => waiting = Some(lacks.wait(lack, waiting)),
                }
                drop(permit);
                sleep(RETRY).await;
            };
            drop(waiting);
            // Without a receiver the daemon is stopping.
            let _ = results.send(input(request, result)).await;
        };
        self.tasks.spawn_on(probe, &self.runs);
    }

    /// Why probes wait for the daemon itself. `None`: none waits.
    pub fn lack(&self) -> Option<(DaemonCode, String)> {
        self.lacks.shown()
    }

    /// The host's own trusted certificates are read again when they are needed next. For a reload.
    pub fn forget_trusted(&self) {
        self.trusted.forget();
    }
}
