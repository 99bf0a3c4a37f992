//! The clocks of labs: the same in every process and namespace of a machine.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, since boot.
pub fn now() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC"))
}

/// Since 1970, to compare with times of another clock.
pub fn unix() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_REALTIME).expect("every Linux has CLOCK_REALTIME"))
}
