//! When the state file is written: as soon as something changed, and not more than once a second.

use lb_core::{
    engine::Engine,
    state::State,
    time::{Instant, Millis},
};

use super::clock::Clock;
use crate::state::{Keeper, Record};

/// Between two writes, and between two looks at what an event may have changed.
const PACE: Millis = Millis::secs(1);

/// Ejection numbers decay without an event. A look at all that is remembered finds it.
const LOOK: Millis = Millis::secs(10);

#[derive(Debug)]
pub(super) struct Saving {
    keeper: Keeper,
    /// What is in the file, or on its way there, and when it was so. `None`: that is not known.
    saved: Option<(State, Instant)>,
    looked: Instant,
    /// From when on a change is written at once.
    free: Instant,
    /// An event has told of a change since.
    stirred: bool,
}

impl Saving {
    /// `restored`: the file holds what was so before this run.
    pub(super) fn new(keeper: Keeper, restored: bool) -> Self {
        let nothing = State { version: State::VERSION, services: Vec::new() };
        let saved = (!restored).then_some((nothing, Instant(0)));
        Self { keeper, saved, looked: Instant(0), free: Instant(0), stirred: false }
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Something changed that may have to be remembered.
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    /// When [`save`](Self::save) is to be called next.
    pub(super) fn due(&self) -> Instant {
        if self.stirred { self.free } else { self.looked + LOOK }
    }

    /// Hands what is to be remembered to the keeper, if it is not what the file says by now.
    pub(super) fn save(&mut self, engine: &Engine, clock: &Clock) {
        let now = clock.now();
        self.looked = now;
        if std::mem::take(&mut self.stirred) {
            self.free = now + PACE;
        }
        let state = engine.export(now);
        let holds = |(saved, at): &(State, Instant)| saved.clone().aged(now - *at) == state;
        if self.saved.as_ref().is_some_and(holds) {
            return;
        }
        self.free = now + PACE;
        self.keeper.keep(Record { written_unix_ms: clock.unix_ms(), state: state.clone() });
        self.saved = Some((state, now));
    }

    /// The last word, and its way to the disk.
    pub(super) async fn stop(mut self, engine: &Engine, clock: &Clock) {
        self.save(engine, clock);
        self.keeper.stop().await;
    }
}

#[cfg(test)]
mod tests;
