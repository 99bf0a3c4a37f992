//! How large the flow tables are, and whether the host has room for them.

use lb_common::abi::{Addr, CLIENT_WAYS, ClientSet, Flow, REPLY_SETS, ReplySet, V4};
use tracing::warn;

use super::{
    super::host::{self, Fit},
    OpenError,
};

/// Sets of clients of each family. Half as many places again as there may be flows: then one in ten thousand
/// finds both of its sets full.
pub(super) const fn client_sets(max_flows: u32) -> u64 {
    let sets = (max_flows as u64 * 3 / 2).div_ceil(CLIENT_WAYS as u64);
    if sets == 0 { 1 } else { sets }
}

/// What the flow tables of both families take. The kernel gives it all when they are made.
pub const fn flow_table_bytes(max_flows: u32) -> u64 {
    client_sets(max_flows) * SET_BYTES
}

/// Of a set of clients, and what belongs to it, in both families.
const SET_BYTES: u64 = (2 * size_of::<ClientSet>()
    + 2 * REPLY_SETS as usize * size_of::<ReplySet>()
    + CLIENT_WAYS * (size_of::<Flow<V4>>() + size_of::<Flow<Addr>>())) as u64;

/// So many flows fit into half of this much memory.
pub(super) const fn flows_within(bytes: u64) -> u64 {
    bytes / 2 / SET_BYTES * CLIENT_WAYS as u64 * 2 / 3
}

/// Refuses tables that do not fit into the memory there is.
pub(super) fn check_memory(max_flows: u32) -> Result<(), OpenError> {
    // A host that does not tell is asked by making them.
    let Ok(available) = host::available_memory() else { return Ok(()) };
    let needed = flow_table_bytes(max_flows);
    match host::fit(needed, available) {
        Fit::Well => {}
        Fit::Tight => warn!(
            max_flows,
            needed_mib = needed >> 20,
            available_mib = available >> 20,
            "the flow tables take more than half of the memory that is available"
        ),
        Fit::No => return Err(OpenError::Memory { max_flows, needed, available }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_what_the_specification_says() {
        // 220 bytes a flow in IPv4 and 240 in IPv6.
        let a_flow = flow_table_bytes(131_072) as f64 / 131_072.0;
        assert!((440.0..=460.0).contains(&a_flow), "{a_flow}");
        assert_eq!(client_sets(0), 1);
    }

    #[test]
    fn what_is_said_to_fit_does() {
        for memory in [1 << 20, 1 << 30, 24 << 30] {
            let flows = u32::try_from(flows_within(memory)).expect("a number of flows");
            assert_eq!(host::fit(flow_table_bytes(flows), memory), Fit::Well, "{memory}");
            assert_ne!(host::fit(flow_table_bytes(flows + flows / 50 + 30), memory), Fit::Well, "{memory}");
        }
    }
}
