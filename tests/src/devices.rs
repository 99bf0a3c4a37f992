//! The interfaces by which frames of fixtures come, and their MAC addresses.

use anyhow::{Context as _, Result};
use lb_common::abi::OwnMac;
use lb_lab::Host;
use lb_userspace::dataplane::OwnMacs;

/// The interface that test runs seem to come from: the loopback device.
pub const INGRESS: u32 = 1;

/// Another one, so that a frame that leaves by it is redirected.
pub const ELSEWHERE: u32 = 2;

/// At which these interfaces take frames: each has this usual address, and another one.
pub const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
pub const OTHER_NODE_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 0x33];

/// The addresses of both interfaces.
pub fn usual_macs() -> OwnMacs {
    [INGRESS, ELSEWHERE].into_iter().flat_map(macs_of).collect()
}

/// Those of one.
pub fn macs_of(ifindex: u32) -> impl Iterator<Item = (OwnMac, [u8; 6])> {
    [NODE_MAC, OTHER_NODE_MAC].into_iter().map(move |mac| (OwnMac::new(ifindex, mac), NODE_MAC))
}

/// The index and the MAC address of a device of a host.
pub fn index_and_mac(host: &Host, device: &str) -> Result<(u32, [u8; 6])> {
    let links: serde_json::Value = serde_json::from_str(&host.ip(&format!("-j link show {device}"))?)?;
    let index = links[0]["ifindex"].as_u64().context("an index")?;
    let mac = links[0]["address"].as_str().context("a MAC address")?;
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    Ok((u32::try_from(index)?, bytes.as_slice().try_into()?))
}
