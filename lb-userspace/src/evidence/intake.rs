//! From one piece of evidence to the engine inputs that follow from it.

use std::{net::SocketAddr, time::Duration};

use lb_common::abi::ExchangeRecord;
use lb_core::io::{BackendId, ClientCounts, Context, Generation, Input, L4Failure, Outcome};

use super::{
    heads::Heads,
    losses::Losses,
    reported::Reported,
    success_merge::{SuccessMerge, is_slow},
};

/// Everything that the daemon remembers between two pieces of evidence.
///
/// `client_counts`: the clients of the service at that moment. The caller gives it records, timeouts and success counts in the order in which they come, and gives the
/// engine the inputs in the order in which they are returned. `successes` reads how many good responses of a
/// backend the program has counted since the last time: they came before the piece of evidence at hand, so
/// the engine takes them first.
#[derive(Debug, Default)]
pub struct Intake {
    heads: Heads,
    losses: Losses,
    reported: Reported,
    merge: SuccessMerge,
}

/// An exchange that takes too long, as the timeout scanner found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    pub backend: BackendId,
    pub generation: Generation,
    pub client: SocketAddr,
    pub failure: L4Failure,
    /// When it began, as [`Flow::asked_us`](lb_common::abi::Flow::asked_us).
    pub began_us: u32,
}

/// One input of the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub input: Input,
    /// When the program saw the segment that caused it, `CLOCK_MONOTONIC` nanoseconds. `None`: no segment
    /// did.
    pub seen_ns: Option<u64>,
}

/// The inputs that follow from one piece of evidence, in the engine's order. It is no list on the heap: most
/// records give one input, and there are hundreds of thousands of them a second.
#[derive(Debug, Default)]
pub struct Inputs {
    lost: Option<Input>,
    successes: [Option<Input>; 2],
    outcome: Option<Input>,
    outcome_seen_ns: Option<u64>,
}

impl Intake {
    /// For a program that was loaded with empty maps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues after an earlier run. `lost`: how many records each CPU had lost of each backend by then.
    pub fn after(lost: impl IntoIterator<Item = (BackendId, Generation, Vec<u32>)>) -> Self {
        Self { losses: Losses::after(lost), ..Self::default() }
    }

    /// The program mirrored a response head, or a failure without one.
    pub fn record(
        &mut self,
        record: &ExchangeRecord,
        client_counts: Option<ClientCounts>,
        successes: impl FnOnce(BackendId) -> u64,
    ) -> Inputs {
        let backend = BackendId(record.backend);
        // The engine learns first that evidence is missing, so that it decides nothing as if it had
        // everything.
        let lost = self.losses.before(record).map(|lost| Input::EvidenceLost { backend, lost });
        let Some(reading) = self.heads.read(record) else { return Inputs { lost, ..Inputs::default() } };
        let successes = self.merge.inputs(backend, successes(backend));
        if !self.reported.ended(&reading) {
            return Inputs { lost, successes, ..Inputs::default() };
        }
        if is_slow(reading.since_request_ns) {
            self.merge.after_slow(backend, reading.generation);
        }
        let outcome = Input::Outcome {
            backend,
            generation: reading.generation,
            outcome: reading.outcome,
            ttfb: (reading.since_request_ns > 0).then(|| Duration::from_nanos(reading.since_request_ns)),
            client: Some(reading.client),
            context: Context { client_counts, late: reading.late },
        };
        Inputs { lost, successes, outcome: Some(outcome), outcome_seen_ns: Some(reading.at_ns) }
    }

    /// The timeout scanner found an exchange that takes too long. There is nothing to say when a record has
    /// already reported how the exchange ended.
    pub fn timed_out(
        &mut self,
        timeout: Timeout,
        client_counts: Option<ClientCounts>,
        successes: impl FnOnce(BackendId) -> u64,
    ) -> Inputs {
        let Timeout { backend, generation, client, failure, began_us } = timeout;
        if !self.reported.timed_out(client, backend, began_us) {
            return Inputs::default();
        }
        let successes = self.merge.inputs(backend, successes(backend));
        self.merge.after_slow(backend, generation);
        let outcome = Outcome::Failure(failure);
        let (client, context) = (Some(client), Context { client_counts, late: false });
        let outcome = Input::Outcome { backend, generation, outcome, ttfb: None, client, context };
        Inputs { successes, outcome: Some(outcome), ..Inputs::default() }
    }

    /// The program has counted so many good responses of a backend.
    pub fn successes(&mut self, backend: BackendId, count: u64) -> Inputs {
        Inputs { successes: self.merge.inputs(backend, count), ..Inputs::default() }
    }
}

impl Iterator for Inputs {
    type Item = Evidence;

    fn next(&mut self) -> Option<Evidence> {
        let [ends_run, counted] = &mut self.successes;
        if let Some(input) = self.lost.take().or_else(|| ends_run.take()).or_else(|| counted.take()) {
            return Some(Evidence { input, seen_ns: None });
        }
        let input = self.outcome.take()?;
        Some(Evidence { input, seen_ns: self.outcome_seen_ns })
    }
}

#[cfg(test)]
mod tests;
