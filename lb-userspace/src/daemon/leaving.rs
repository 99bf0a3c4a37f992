//! Counts the connections of removed backends, so that the engine lets those without any go.

use std::time::Duration;

use lb_core::{engine::Engine, io::Input};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::warn;

use crate::dataplane::{actor, chain};

/// Between two counts. The engine lets a backend go after two in a row.
const BETWEEN: Duration = Duration::from_secs(2);

/// Counts in a task of its own, because a count visits every flow. One count at a time.
pub(super) struct LeavingCounts {
    next: Interval,
    results: mpsc::Sender<Input>,
    tasks: Handle,
    under_way: Option<JoinHandle<()>>,
}

impl LeavingCounts {
    /// The counts go to `results` and run on the runtime of `tasks`. Needs a tokio runtime of its own for the time.
    pub(super) fn new(results: mpsc::Sender<Input>, tasks: Handle) -> Self {
        let mut next = interval(BETWEEN);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { next, results, tasks, under_way: None }
    }

    /// Returns when it is time for [`count`](Self::count).
    pub(super) async fn due(&mut self) {
        self.next.tick().await;
    }

    /// Begins a count, unless no backend leaves or one is under way.
    pub(super) fn count(&mut self, engine: &Engine, dataplane: &actor::Handle) {
        let leaving: Vec<_> = engine.leaving().collect();
        if leaving.is_empty() || self.under_way.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (dataplane, results) = (dataplane.clone(), self.results.clone());
        self.under_way = Some(self.tasks.spawn(async move {
            match dataplane.connections(leaving.clone()).await {
                Some(Ok(counts)) => {
                    for ((backend, generation), connections) in leaving.into_iter().zip(counts) {
                        // Without a receiver the daemon is stopping.
                        let _ = results.send(Input::Remaining { backend, generation, connections }).await;
                    }
                }
                Some(Err(error)) => warn!(error = chain(&error), "cannot count connections"),
                None => {}
            }
        }));
    }
}
