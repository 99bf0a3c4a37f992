//! How large the flow tables are.

use lb_common::abi::{Addr, CLIENT_WAYS, ClientSet, Flow, REPLY_SETS, ReplySet, V4};

/// Client sets of each family. There is half as much capacity again as flows: then one flow in ten thousand finds both
/// of its sets full.
pub(super) const fn client_sets(max_flows: u32) -> u64 {
    let sets = (max_flows as u64 * 3 / 2).div_ceil(CLIENT_WAYS as u64);
    if sets == 0 { 1 } else { sets }
}

/// Bytes of the flow tables of both families. The kernel allocates all of them when it makes the tables.
pub const fn flow_table_bytes(max_flows: u32) -> u64 {
    client_sets(max_flows) * SET_BYTES
}

/// Memory beside the maps while the program is loaded, when a start takes most: the kernel's types, and the verifier's
/// states. 120 to 128 MiB were seen. 10 MiB are left afterwards.
const LOADING_BYTES: u64 = 136 << 20;

/// The same beside a program and maps of an earlier run. 150 to 165 MiB were seen.
const SWITCHING_BYTES: u64 = 176 << 20;

/// All maps but the flow tables: most is for Maglev tables and the ring.
const OTHER_MAPS_BYTES: u64 = 24 << 20;

/// Bytes that a start charges to the daemon's control groups. `None`: the maps are those of an earlier run.
pub const fn start_bytes(max_flows: Option<u32>) -> u64 {
    match max_flows {
        Some(max_flows) => LOADING_BYTES + OTHER_MAPS_BYTES + flow_table_bytes(max_flows),
        None => SWITCHING_BYTES,
    }
}

/// Bytes of one client set with its flows and reply sets, in both families.
const SET_BYTES: u64 = (2 * size_of::<ClientSet>()
    + 2 * REPLY_SETS as usize * size_of::<ReplySet>()
    + CLIENT_WAYS * (size_of::<Flow<V4>>() + size_of::<Flow<Addr>>())) as u64;

/// The number of flows that fit into half of this much memory.
pub(super) const fn flows_within(bytes: u64) -> u64 {
    bytes / 2 / SET_BYTES * CLIENT_WAYS as u64 * 2 / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::host::{self, Fit};

    #[test]
    fn the_default_takes_what_the_specification_says() {
        // 220 bytes a flow in IPv4 and 260 in IPv6.
        let a_flow = flow_table_bytes(131_072) as f64 / 131_072.0;
        assert!((460.0..=480.0).contains(&a_flow), "{a_flow}");
        assert_eq!(client_sets(0), 1);
    }

    #[test]
    fn flows_within_a_memory_size_fit_into_it() {
        for memory in [1 << 20, 1 << 30, 24 << 30] {
            let flows = u32::try_from(flows_within(memory)).expect("a number of flows");
            assert_eq!(host::fit(flow_table_bytes(flows), memory), Fit::Well, "{memory}");
            assert_ne!(host::fit(flow_table_bytes(flows + flows / 50 + 30), memory), Fit::Well, "{memory}");
        }
    }
}
