//! Requirements of the host, checked before anything is loaded.

use std::ops::RangeInclusive;

use tracing::warn;

use super::{error::OpenError, sizing::flow_table_bytes};
use crate::dataplane::host::{self, Fit};

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
