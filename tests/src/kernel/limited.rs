//! Limits of connections of a fixture.

use std::sync::Arc;

use lb_core::io::Step;
use lb_userspace::dataplane::bpf;

use super::Kernel;

impl Kernel {
    /// How many connections a backend may have from now on.
    pub fn limit(&mut self, id: u16, most: u32) {
        self.limits.insert(id, most);
        self.rewrite_backends();
    }

    /// Writes the backends again, with redispatch and limits as they are now.
    pub(super) fn rewrite_backends(&mut self) {
        for (id, mut step) in self.written.clone() {
            if let Step::Backend { redispatch, max_connections, .. } = &mut step {
                *redispatch = self.redispatches;
                *max_connections = self.limits.get(&id).copied().unwrap_or(0);
            }
            self.apply(&step);
        }
    }

    /// How many connections services and backends have.
    pub fn connection_limits(&self) -> Arc<bpf::ConnectionLimits> {
        self.dataplane.connection_limits()
    }
}
