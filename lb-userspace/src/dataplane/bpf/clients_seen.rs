//! How many different clients each service has had lately.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::SeenClients;
use lb_core::io::ServiceId;

use super::mapped::Mapped;

/// Reads and clears `CLIENTS_SEEN` in this process's memory, without a system call.
///
/// The program sets bits of the present period, one of 64 for each source prefix and one of 64 for each source
/// address. So the counts are exact for a few clients, and too small for many.
pub struct ClientsSeen {
    present: Mapped<SeenClients>,
    /// The period before, by service id.
    previous: Vec<SeenClients>,
}

impl ClientsSeen {
    pub(super) fn new(present: Mapped<SeenClients>) -> Self {
        let previous = vec![SeenClients::default(); present.len()];
        Self { present, previous }
    }

    /// How many source prefixes and how many source addresses have completed a handshake with a service in the
    /// present period and the one before. Fewer may be counted than there were, because two may share a bit.
    pub fn seen(&self, service: ServiceId) -> (u32, u32) {
        let id = usize::from(service.0);
        let (now, before) = (self.present.read(id), self.previous[id]);
        ((now.prefixes | before.prefixes).count_ones(), (now.addresses | before.addresses).count_ones())
    }

    /// Begins a new period.
    pub fn turn(&mut self) {
        for (id, before) in self.previous.iter_mut().enumerate() {
            let at = self.present.at(id);
            // SAFETY: words of the mapping, which the program sets bits of by atomic operations.
            let [prefixes, addresses] = unsafe {
                [&raw mut (*at).prefixes, &raw mut (*at).addresses].map(|word| AtomicU64::from_ptr(word))
            };
            *before = SeenClients {
                prefixes: prefixes.swap(0, Ordering::Relaxed),
                addresses: addresses.swap(0, Ordering::Relaxed),
            };
        }
    }
}
