//! The state of one backend in the maps of an ideal kernel, and where they would send a new connection.

use lb_core::{
    io::{Admit, BackendId, Generation},
    time::Instant,
};

/// Where an exchange would have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    Table,
    Trial,
    Diverted,
    Unserved,
}

/// One backend in the maps.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None`: it is not there at present.
    ids: Option<(BackendId, Generation)>,
    in_table: bool,
    /// Since when it is not in the table although it is there.
    out_since: Option<Instant>,
    /// Time out of the table, up to `out_since`.
    out_ms: u64,
    pub(super) admit: Admit,
    pub(super) in_trial_slot: bool,
    pub(super) budget: u32,
}

impl Entry {
    pub(super) fn new() -> Self {
        Self {
            ids: None,
            in_table: false,
            out_since: None,
            out_ms: 0,
            admit: Admit::None,
            in_trial_slot: false,
            budget: 0,
        }
    }

    pub(super) fn ids(&self) -> Option<(BackendId, Generation)> {
        self.ids
    }

    pub(super) fn id(&self) -> Option<BackendId> {
        self.ids.map(|(id, _)| id)
    }

    pub(super) fn join(&mut self, ids: (BackendId, Generation), now: Instant) {
        // Under another id it is another backend, also to the maps.
        if self.ids != Some(ids) {
            self.leave(now);
            self.ids = Some(ids);
            self.out_since = Some(now);
        }
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.set_in_table(false, now);
        self.end_out(now);
        (self.ids, self.in_trial_slot, self.budget, self.admit) = (None, false, 0, Admit::None);
    }

    pub(super) fn set_in_table(&mut self, in_table: bool, now: Instant) {
        match (self.in_table, in_table) {
            (false, true) => self.end_out(now),
            (true, false) => self.out_since = Some(now),
            (true, true) | (false, false) => {}
        }
        self.in_table = in_table;
    }

    /// Where a connection for this backend would go, while so many members are in the table.
    pub(super) fn destination(&self, serving: usize) -> Destination {
        let on_trial = self.admit == Admit::Trials && self.in_trial_slot && self.budget > 0;
        if self.in_table {
            Destination::Table
        } else if on_trial {
            Destination::Trial
        } else if serving > 0 {
            Destination::Diverted
        } else {
            Destination::Unserved
        }
    }

    /// How long it was there and out of the table.
    pub(super) fn out_ms(&self, now: Instant) -> u64 {
        self.out_ms + self.out_since.map_or(0, |since| (now - since).0)
    }

    fn end_out(&mut self, now: Instant) {
        if let Some(since) = self.out_since.take() {
            self.out_ms += (now - since).0;
        }
    }
}
