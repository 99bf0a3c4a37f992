//! Where the cases happen: who there is, and the frames that they send.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::abi::Link;
use lb_core::{
    config::{NoBackend, Prefix, Sources},
    io::{Admit, BackendId, Member, ServiceId, Step},
};
use lb_tests::{
    frame::{SYN, Tcp},
    kernel::{
        ELSEWHERE, Family, Kernel, NAT_PORTS, OWN_MAC, SERVICE, ServiceSettings, address, backend_address,
        backend_mac, family, vip,
    },
};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN},
    steering::client,
};

/// Ports of the VIP's address that other services have.
pub(crate) const EMPTY: u16 = 81;
pub(crate) const EMPTY_SILENT: u16 = 82;
pub(crate) const ALLOWS: u16 = 83;
pub(crate) const DENIES: u16 = 84;
pub(crate) const UNREACHABLE: u16 = 85;
pub(crate) const SWAPPING: u16 = 86;

/// Clients from this number on are in the prefix that is denied although a shorter one is allowed, and the
/// other way round.
pub(crate) const INNER: u16 = 0x8000;

/// The VIP of one more service, at an address of its own.
pub(crate) fn other_vip() -> SocketAddr {
    SocketAddr::new(address([203, 0, 113, 20]), 80)
}

/// The id of the service at a VIP.
pub(crate) fn service_at(at: SocketAddr) -> ServiceId {
    match at {
        at if at == vip() => SERVICE,
        at if at == other_vip() => ServiceId(200),
        at => ServiceId(at.port()),
    }
}

/// All services and backends of this family. Backend 0 serves, the next hop of 1 does not answer, and 2 was
/// just ejected.
pub(crate) fn kernel() -> Kernel {
    let mut kernel = Kernel::with(1, NAT_PORTS, 4096);
    for (id, mac, admit) in [(1, [0; 6], Admit::All), (2, backend_mac(2), Admit::None)] {
        kernel.next_hop(id, Link::new(mac, OWN_MAC), ELSEWHERE);
        kernel.admit(id, 1, admit);
    }
    let clients = prefix([10, 1, 0, 0], 16, "2001:db8:a:1::", 64);
    let inner = prefix([10, 1, 128, 0], 17, "2001:db8:a:1:5a:0:80:0", 105);
    let rules = |allow: &[Prefix], deny: &[Prefix]| Sources { allow: allow.to_vec(), deny: deny.to_vec() };
    let services: [(u16, NoBackend, Sources, Option<u16>); 6] = [
        (EMPTY, NoBackend::Reset, Sources::default(), None),
        (EMPTY_SILENT, NoBackend::Drop, Sources::default(), None),
        (ALLOWS, NoBackend::Reset, rules(&[clients], &[inner]), Some(0)),
        (DENIES, NoBackend::Reset, rules(&[inner], &[clients]), Some(0)),
        (UNREACHABLE, NoBackend::Reset, Sources::default(), Some(1)),
        (SWAPPING, NoBackend::Reset, Sources::default(), Some(2)),
    ];
    for (port, no_backend, sources, member) in services {
        serve(&mut kernel, SocketAddr::new(vip().ip(), port), no_backend, sources, member);
    }
    serve(&mut kernel, other_vip(), NoBackend::Reset, Sources::default(), Some(0));
    kernel
}

fn prefix(v4: [u8; 4], length4: u8, v6: &str, length6: u8) -> Prefix {
    match family() {
        Family::V4 => Prefix { address: Ipv4Addr::from(v4).into(), length: length4 },
        Family::V6 => {
            let v6: Ipv6Addr = v6.parse().expect("an address");
            Prefix { address: v6.into(), length: length6 }
        }
    }
}

fn serve(kernel: &mut Kernel, vip: SocketAddr, no_backend: NoBackend, sources: Sources, member: Option<u16>) {
    let id = service_at(vip);
    let member = member.map(|id| Member { id: BackendId(id), weight: 100, address: backend_address(id) });
    kernel.apply(&Step::Table { service: id, members: member.into_iter().collect() });
    kernel.serve(ServiceSettings { id, vip, no_backend, sources, ..ServiceSettings::default() });
}

/// How much payload a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// None.
    Least,
    Odd,
    /// As much as fits into 1500 bytes.
    Mtu,
}

/// The world of a case: one kind of frame, and at most one connection.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) size: Size,
    /// The tag control information that frames come with.
    pub(crate) tag: Option<u16>,
    /// Another one for each.
    pub(crate) number: u16,
    /// The addresses that the backend sees, once there is a connection.
    pub(crate) nat: SocketAddr,
}

impl World {
    pub(crate) fn client(&self) -> SocketAddr {
        client(self.number)
    }

    /// The first segment of a connection.
    pub(crate) fn syn(&self) -> Tcp {
        self.segment(self.client(), vip(), SYN).numbers(CLIENT_ISN, 0)
    }

    /// Of the client, once the connection is established.
    pub(crate) fn sent(&self, flags: u8) -> Tcp {
        self.segment(self.client(), vip(), flags)
            .numbers(CLIENT_ISN.wrapping_add(1), BACKEND_ISN.wrapping_add(1))
    }

    /// Of the backend.
    pub(crate) fn answered(&self, flags: u8) -> Tcp {
        self.segment(backend_address(0), self.nat, flags)
            .numbers(BACKEND_ISN.wrapping_add(1), CLIENT_ISN.wrapping_add(1))
    }

    /// Any segment of this size, in this VLAN.
    pub(crate) fn segment(&self, src: SocketAddr, dst: SocketAddr, flags: u8) -> Tcp {
        let headers = if src.is_ipv4() { 40 } else { 60 };
        let payload = match self.size {
            Size::Least => 0,
            Size::Odd => 7,
            Size::Mtu => 1500 - headers,
        };
        // No HTTP, so that evidence takes no interest.
        let payload: Vec<u8> = (0..payload).map(|at| (at * 7 + 3) as u8).collect();
        Tcp { vlan: self.tag, ..Tcp::new(src, dst, flags) }.payload(&payload)
    }
}
