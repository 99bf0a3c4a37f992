//! How much of a half-open backend's trial budget is left.

use lb_core::io::BackendId;

use super::mapped::Mapped;

/// Reads `TRIAL_BUDGETS` in this process's memory, without a system call.
pub struct TrialBudgets(pub(super) Mapped<i64>);

impl TrialBudgets {
    /// The new connections that a half-open backend may still get. It may be a little below 0: CPUs that took a
    /// token at the same moment and found none.
    pub fn left(&self, backend: BackendId) -> i64 {
        self.0.read(backend.0.into())
    }
}
