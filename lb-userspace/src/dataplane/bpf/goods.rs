//! Good responses that the program counts instead of mirroring.

use std::{io, os::fd::AsFd};

use lb_common::MAX_BACKENDS;
use lb_core::io::BackendId;

use super::flows::Shared;

/// Reads `GOODS` as this process's own memory: it costs no system call.
pub struct Goods {
    /// CPU by CPU, and of each CPU by backend id.
    counts: Shared<u64>,
    cpus: usize,
    /// What was read of each backend so far. What an earlier run left was for that to read.
    seen: Vec<u64>,
}

impl Goods {
    pub(super) fn new(map: impl AsFd, cpus: usize) -> io::Result<Self> {
        let mut goods = Self {
            counts: Shared::new(map, cpus * MAX_BACKENDS as usize)?,
            cpus,
            seen: vec![0; MAX_BACKENDS as usize],
        };
        for id in 0..MAX_BACKENDS as u16 {
            goods.take(BackendId(id));
        }
        Ok(goods)
    }

    /// How many a backend has had since the last look.
    pub fn take(&mut self, id: BackendId) -> u64 {
        let id = usize::from(id.0);
        let of_cpu = |cpu| self.counts.read(cpu * MAX_BACKENDS as usize + id);
        let now = (0..self.cpus).map(of_cpu).fold(0, u64::wrapping_add);
        now.wrapping_sub(std::mem::replace(&mut self.seen[id], now))
    }

    /// The same of all with ids up to this one that have had any.
    pub fn take_up_to(&mut self, last: BackendId) -> Vec<(BackendId, u64)> {
        (0..=last.0).map(BackendId).map(|id| (id, self.take(id))).filter(|(_, count)| *count > 0).collect()
    }
}
