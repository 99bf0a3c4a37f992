//! When each backend last answered a SYN.

use lb_core::io::BackendId;

use super::mapped::Mapped;

/// The program writes the time of the last timer interrupt, which may be this much too early: two interrupts at
/// `CONFIG_HZ=100`, because a CPU may find the time that another one has not finished writing.
const LATE_NS: u64 = 20_000_000;

/// Reads `LAST_SYNACK` in this process's memory, without a system call.
pub struct SynAcks(pub(super) Mapped<u64>);

impl SynAcks {
    /// Whether a backend has answered a SYN, of whatever client, since this moment of `CLOCK_MONOTONIC`. In doubt it
    /// has.
    pub fn answered_since(&self, backend: BackendId, since_ns: u64) -> bool {
        is_since(self.0.read(backend.0.into()), since_ns)
    }
}

/// `at` is what the program has written. 0: nothing.
const fn is_since(at: u64, since_ns: u64) -> bool {
    at != 0 && at.saturating_add(LATE_NS) >= since_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_doubt_a_backend_has_answered() {
        const AT: u64 = 1 << 40;
        assert!(is_since(AT, 0) && is_since(AT, AT - 1) && is_since(AT, AT));
        assert!(is_since(AT, AT + LATE_NS), "written by a clock that was late");
        assert!(!is_since(AT, AT + LATE_NS + 1));
        assert!(is_since(u64::MAX, u64::MAX));
        assert!(!is_since(0, 0), "none was ever seen");
    }
}
