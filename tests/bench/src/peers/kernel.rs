//! Peers that are the node's own kernel.

use std::fs;

use anyhow::{Context, Result};

use super::{Place, Running};

/// The VIP is on the backends, and the host before them has an equal-cost route: see [`super::rig`].
pub(super) fn routing(place: &Place<'_>) -> Result<Running> {
    place.topology.route()?;
    Ok(Running::Kernel)
}

/// Backends answer through the node, so that only the destination need be translated.
pub(super) fn nftables(place: &Place<'_>) -> Result<Running> {
    place.topology.route()?;
    let (address, port) = (place.vip.ip(), place.vip.port());
    let backends =
        place.each(|number, _, backend| format!("{number} : {} . {}, ", backend.ip(), backend.port()));
    let rules = format!(
        "table ip bench {{\n  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {address} tcp dport {port} dnat to numgen inc mod {} map {{ {backends} }}\n  }}\n}}\n",
        place.backends.len(),
    );
    let path = place.topology.lab.folder().join("nftables.conf");
    fs::write(&path, rules).with_context(|| format!("writing {}", path.display()))?;
    place.node().run(&["nft", "-f", &path.to_string_lossy()])?;
    Ok(Running::Kernel)
}
