//! Good responses that the program counts and does not mirror.

use std::{io, os::fd::AsFd};

use lb_common::MAX_BACKENDS;
use lb_core::io::BackendId;

use super::mapped::Mapped;

/// Reads `SUCCESS_COUNTS` in this process's memory, without a system call.
pub struct SuccessCounts {
    /// CPU by CPU, and of each CPU by backend id.
    counts: Mapped<u64>,
    cpus: usize,
    /// The sum at the last look, by backend id.
    seen: Vec<u64>,
}

impl SuccessCounts {
    pub(super) fn new(map: impl AsFd, cpus: usize) -> io::Result<Self> {
        Ok(Self {
            counts: Mapped::new(map, cpus * MAX_BACKENDS as usize)?,
            cpus,
            seen: vec![0; MAX_BACKENDS as usize],
        })
    }

    /// How many successes a backend has had since the last call.
    pub fn take(&mut self, id: BackendId) -> u64 {
        let id = usize::from(id.0);
        let of_cpu = |cpu| self.counts.read(cpu * MAX_BACKENDS as usize + id);
        let now = (0..self.cpus).map(of_cpu).fold(0, u64::wrapping_add);
        now.wrapping_sub(std::mem::replace(&mut self.seen[id], now))
    }
}
