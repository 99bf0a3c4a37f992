//! `PORTS`: for each port, whether it is a NAT port, a VIP's or one that `dnat` replies come from.
//!
//! The program looks for a flow only where a port has its flag. So a port keeps the flag of a former VIP or of a former
//! `nat_ports` while a connection goes by it.

use std::{collections::BTreeSet, ops::RangeInclusive};

use aya::maps::{Array, MapData, MapError};
use lb_common::abi::{Ports, port_flags};

use super::flows::FlowTables;

/// The flags that a port keeps while a flow needs them.
const OF_FLOWS: u8 = port_flags::VIP | port_flags::NAT;

pub(super) struct PortMap {
    map: Array<MapData, Ports>,
    nat: RangeInclusive<u16>,
    /// The map may differ from what it should be. A write that fails stays due.
    due: bool,
}

impl PortMap {
    pub(super) const fn new(map: Array<MapData, Ports>, nat: RangeInclusive<u16>) -> Self {
        Self { map, nat, due: false }
    }

    pub(super) const fn nat(&self) -> &RangeInclusive<u16> {
        &self.nat
    }

    /// The ports that an earlier run noted as sources of `dnat` replies.
    pub(super) fn pinned_dnat(&self) -> Result<BTreeSet<u16>, MapError> {
        let ports = Box::new(self.map.get(&0, 0)?);
        Ok((0..=u16::MAX).filter(|port| ports.0[usize::from(*port)] & port_flags::DNAT != 0).collect())
    }

    /// The next [`settle`](Self::settle) writes the map if something has changed.
    pub(super) const fn mark_due(&mut self, changed: bool) {
        self.due |= changed;
    }

    /// Writes the map if it is due.
    pub(super) fn settle(
        &mut self,
        vips: impl Iterator<Item = u16>,
        dnat: &BTreeSet<u16>,
        flows: &FlowTables,
    ) -> Result<(), MapError> {
        if self.due {
            self.write(vips, dnat, flows)?;
            self.due = false;
        }
        Ok(())
    }

    /// Writes the flags of every port.
    pub(super) fn write(
        &mut self,
        vips: impl Iterator<Item = u16>,
        dnat: &BTreeSet<u16>,
        flows: &FlowTables,
    ) -> Result<(), MapError> {
        let mut ports = vec![0u8; 1 << 16];
        for port in self.nat.clone() {
            ports[usize::from(port)] |= port_flags::NAT;
        }
        for port in vips {
            ports[usize::from(port)] |= port_flags::VIP;
        }
        for port in dnat {
            ports[usize::from(*port)] |= port_flags::DNAT;
        }
        let before = Box::new(self.map.get(&0, 0)?);
        if before.0.iter().zip(&ports).any(|(before, now)| before & !now & OF_FLOWS != 0) {
            let in_use = flows.port_flags();
            for (now, (before, used)) in ports.iter_mut().zip(before.0.iter().zip(in_use)) {
                *now |= before & used & OF_FLOWS;
            }
        }
        let ports: Box<[u8; 1 << 16]> = ports.into_boxed_slice().try_into().expect("as many as made above");
        // SAFETY: `Ports` is that array, transparently.
        let ports: &Ports = unsafe { &*std::ptr::from_ref(&*ports).cast() };
        // By reference: it is large for a stack.
        self.map.set(0, ports, 0)
    }
}
