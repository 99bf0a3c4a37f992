//! When to write the state file: as soon as something has changed, and at most once a second.

use lb_core::{
    engine::Engine,
    state::State,
    time::{Instant, Millis},
};

use super::clock::Clock;
use crate::state::{Discovered, Keeper, Record};

/// Between two writes, and between two comparisons after an event.
const PACE: Millis = Millis::secs(1);

/// Ejection numbers decay without an event, so the state is compared at least this often.
const INTERVAL: Millis = Millis::secs(10);

#[derive(Debug)]
pub(super) struct Saving {
    keeper: Keeper,
    /// The state in the file, or on its way there, and the time of that state. `None`: not known.
    saved: Option<(State, Instant)>,
    compared: Instant,
    /// From this time on a change is written at once.
    free: Instant,
    /// There was an event since the last comparison.
    dirty: bool,
    discovered: Vec<Discovered>,
    /// Those in the file, or on their way there.
    saved_discovered: Vec<Discovered>,
}

impl Saving {
    /// `restored`: the file holds the state of an earlier run.
    pub(super) fn new(keeper: Keeper, restored: bool) -> Self {
        let (discovered, saved_discovered) = (Vec::new(), Vec::new());
        let nothing = State { version: State::VERSION, services: Vec::new() };
        let saved = (!restored).then_some((nothing, Instant(0)));
        Self {
            keeper,
            saved,
            compared: Instant(0),
            free: Instant(0),
            dirty: false,
            discovered,
            saved_discovered,
        }
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Something has changed that the state file may have to hold.
    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// The last good sets of discovery, from now on.
    pub(super) fn remember(&mut self, discovered: Vec<Discovered>) {
        self.discovered = discovered;
        self.mark_dirty();
    }

    /// When [`save`](Self::save) is to be called next.
    pub(super) fn due(&self) -> Instant {
        if self.dirty { self.free } else { self.compared + INTERVAL }
    }

    /// Gives the state to the keeper, if it differs from the state in the file as that has aged since.
    pub(super) fn save(&mut self, engine: &Engine, clock: &Clock) {
        let now = clock.now();
        self.compared = now;
        if std::mem::take(&mut self.dirty) {
            self.free = now + PACE;
        }
        let state = engine.export(now);
        let holds = |(saved, at): &(State, Instant)| saved.clone().aged(now - *at) == state;
        if self.saved.as_ref().is_some_and(holds) && self.saved_discovered == self.discovered {
            return;
        }
        self.free = now + PACE;
        self.saved_discovered.clone_from(&self.discovered);
        let discovered = self.discovered.clone();
        self.keeper.keep(Record { written_unix_ms: clock.unix_ms(), discovered, state: state.clone() });
        self.saved = Some((state, now));
    }

    /// Saves for the last time and waits until it is written.
    pub(super) async fn stop(mut self, engine: &Engine, clock: &Clock) {
        self.save(engine, clock);
        self.keeper.stop().await;
    }
}

#[cfg(test)]
mod tests;
