//! Whether the wire itself shows a wrong checksum: one that hid them would prove nothing.

use anyhow::{Context as _, Result, ensure};
use lb_lab::{Host, until};
use lb_tests::{
    devices::index_and_mac,
    frame::{ACK, Tcp},
    wire::Wire,
};

use crate::stand::{PATIENCE, Stand};

/// Sends a segment with a wrong checksum from the node to the client and to a backend, each of which must count it.
pub(crate) fn shows_wrong_checksums(stand: &Stand, left: &str) -> Result<()> {
    let before = stand.checksum_errors()?;
    for (device, from, to, address) in [
        (left, "10.10.0.1:9", &stand.client, "10.10.0.2:9"),
        ("right", "10.20.0.1:9", &stand.webs[0], "10.20.0.2:9"),
    ] {
        let mut segment =
            Tcp::new(from.parse()?, address.parse()?, ACK).payload(b"not what the checksum says");
        segment.from_mac = index_and_mac(&stand.node, device)?.1;
        segment.to_mac = index_and_mac(to, "node")?.1;
        let mut frame = segment.bytes();
        *frame.last_mut().context("a payload")? ^= 1;
        Wire::open(&stand.node, device)?.send(&frame)?;
        counted(stand, to, &before)?;
    }
    Ok(())
}

fn counted(stand: &Stand, host: &Host, before: &[(String, u64)]) -> Result<()> {
    let of =
        |all: &[(String, u64)]| all.iter().find(|(name, _)| name == host.name()).map(|(_, count)| *count);
    let before = of(before).context("a host of the stand")?;
    let mut last = None;
    until("a wrong checksum is counted", PATIENCE, || {
        last = stand.checksum_errors().ok().and_then(|all| of(&all));
        last == Some(before + 1)
    })?;
    ensure!(last == Some(before + 1));
    Ok(())
}
