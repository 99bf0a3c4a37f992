//! Requirements of the host, checked before anything is loaded.

use std::ops::RangeInclusive;

use lb_common::abi::OwnMac;
use tracing::warn;

use super::{
    error::OpenError,
    program::Hook,
    sizing::{flow_table_bytes, start_bytes},
};
use crate::dataplane::{
    OwnMacs, cgroup, device,
    host::{self, Fit},
};

/// The interfaces, each with its index.
pub(super) fn interface_indexes(interfaces: &[String]) -> Result<Vec<(&str, u32)>, OpenError> {
    interfaces
        .iter()
        .map(|name| {
            let index = nix::net::if_::if_nametoindex(name.as_str())
                .map_err(|_| OpenError::NoInterface(name.clone()))?;
            Ok((name.as_str(), index))
        })
        .collect()
}

/// The usual MAC address of each of these interfaces.
pub(super) fn own_macs(interfaces: &[(&str, u32)]) -> Result<OwnMacs, OpenError> {
    let of = |(name, index): &(&str, u32)| match device::mac(name) {
        Ok(mac) => Ok((OwnMac::new(*index, mac), mac)),
        Err(_) => Err(OpenError::NoInterface((*name).to_owned())),
    };
    interfaces.iter().map(of).collect()
}

/// A kernel that is too old for a hook would say so only after it has verified the program.
pub(super) fn check_hook(hook: Hook) -> Result<(), OpenError> {
    match (hook, host::kernel()) {
        (Hook::Tc, Some(kernel)) if kernel < host::TCX => Err(OpenError::NoTcx { kernel }),
        (Hook::Tc | Hook::Xdp, _) => Ok(()),
    }
}

/// The NAT ports must not be among the ports of this host's own connections.
pub(super) fn check_ports(nat: &RangeInclusive<u16>) -> Result<(), OpenError> {
    // A host without such a range has no ports to avoid.
    match host::ephemeral_ports() {
        Ok(host) if host::overlap(nat, &host) => Err(OpenError::PortOverlap { nat: nat.clone(), host }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Refuses tables that do not fit into the available memory.
pub(super) fn check_memory(max_flows: u32) -> Result<(), OpenError> {
    // If the host does not say how much it has, the kernel decides when it makes the tables.
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

/// Refuses a start that the daemon's control groups would end half-way, by killing it. `max_flows`: of tables that are to
/// be made; maps of an earlier run are there already.
pub(super) fn check_cgroup(max_flows: Option<u32>) -> Result<(), OpenError> {
    // If the limits cannot be read, the kernel decides.
    let Ok(Some(of)) = cgroup::memory_limit() else { return Ok(()) };
    let needed = start_bytes(max_flows);
    match host::fit(needed, of.left) {
        Fit::No => Err(OpenError::Cgroup { needed, of }),
        Fit::Well | Fit::Tight => Ok(()),
    }
}
