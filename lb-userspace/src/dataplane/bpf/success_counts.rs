//! Good responses that the program counts instead of mirroring.

use std::{io, os::fd::AsFd};

use lb_common::MAX_BACKENDS;
use lb_core::io::BackendId;

use super::flows::Shared;

/// Reads `SUCCESS_COUNTS` as this process's own memory: it costs no system call.
pub struct SuccessCounts {
    /// CPU by CPU, and of each CPU by backend id.
    counts: Shared<u64>,
    cpus: usize,
    /// What was read of each backend so far.
    seen: Vec<u64>,
}

impl SuccessCounts {
    pub(super) fn new(map: impl AsFd, cpus: usize) -> io::Result<Self> {
        Ok(Self {
            counts: Shared::new(map, cpus * MAX_BACKENDS as usize)?,
            cpus,
            seen: vec![0; MAX_BACKENDS as usize],
        })
    }

    /// How many a backend has had since the last look.
    pub fn take(&mut self, id: BackendId) -> u64 {
        let id = usize::from(id.0);
        let of_cpu = |cpu| self.counts.read(cpu * MAX_BACKENDS as usize + id);
        let now = (0..self.cpus).map(of_cpu).fold(0, u64::wrapping_add);
        now.wrapping_sub(std::mem::replace(&mut self.seen[id], now))
    }
}
