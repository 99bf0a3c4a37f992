//! The real program in the real kernel, one frame at a time (`BPF_PROG_TEST_RUN`): no interface is involved.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use aya::{Ebpf, TestRun as _, TestRunOptions, maps::HashMap, programs::Xdp};
use lb_common::abi::{Flow, FlowKey, HeadRecord, Link};
use lb_core::{
    config::{Mode, NoBackend},
    io::{Admit, BackendId, Generation, Member, ServiceId, Step},
};
use lb_userspace::dataplane::{Counters, Dataplane as _, NextHop, bpf};

/// What the program decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Aborted,
    Drop,
    Pass,
    Tx,
    Redirect,
}

impl Action {
    /// As the program returned it.
    pub fn new(number: u32) -> Self {
        match number {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => panic!("no such action: {other}"),
        }
    }
}

/// The interface that test runs seem to come from: the loopback device.
pub const INGRESS: u32 = 1;

/// Another one, so that a frame that leaves by it is redirected.
pub const ELSEWHERE: u32 = 2;

pub const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xaa];
pub const NAT_SOURCE: [u8; 4] = [10, 9, 0, 1];
pub const NAT_PORTS: std::ops::RangeInclusive<u16> = 1024..=32_767;
pub const SERVICE: ServiceId = ServiceId(3);

/// The program with a service in its maps.
pub struct Kernel {
    ebpf: Ebpf,
    pub maps: bpf::Bpf,
    heads: bpf::HeadRing,
}

/// The MAC that the next hop of a backend is given.
pub fn backend_mac(id: u16) -> [u8; 6] {
    [0x02, 0, 0, 1, (id >> 8) as u8, id as u8]
}

pub fn backend_address(id: u16) -> SocketAddrV4 {
    SocketAddrV4::new([10, 9, 1 + (id >> 8) as u8, id as u8].into(), 8080)
}

pub fn vip() -> SocketAddrV4 {
    SocketAddrV4::new([203, 0, 113, 10].into(), 80)
}

impl Kernel {
    /// `backends` of them, ids from 0, all admitted and reached through another interface.
    pub fn new(backends: u16) -> Self {
        Self::with(backends, NAT_PORTS, 4096)
    }

    pub fn with(backends: u16, nat_ports: std::ops::RangeInclusive<u16>, max_flows: u32) -> Self {
        let (ebpf, maps, heads) = bpf::programs(nat_ports, max_flows).expect("the program loads");
        let mut kernel = Self { ebpf, maps, heads };
        for id in 0..backends {
            kernel.next_hop(id, Link::new(backend_mac(id), OWN_MAC), ELSEWHERE);
            kernel.admit(id, 1, Admit::All);
        }
        kernel.table(&(0..backends).collect::<Vec<_>>());
        kernel.service(NoBackend::Reset, &[]);
        kernel
    }

    pub fn apply(&mut self, step: &Step) {
        self.maps.apply(step).expect("the map takes it");
    }

    pub fn next_hop(&mut self, id: u16, link: Link, ifindex: u32) {
        let hop = NextHop { ifindex, link, source: IpAddr::from(NAT_SOURCE) };
        self.maps.set_next_hop(IpAddr::V4(*backend_address(id).ip()), hop).expect("the map takes it");
    }

    pub fn admit(&mut self, id: u16, generation: u32, admit: Admit) {
        self.apply(&Step::Backend {
            id: BackendId(id),
            service: SERVICE,
            address: SocketAddr::V4(backend_address(id)),
            generation: Generation(generation),
            admit,
        });
    }

    pub fn table(&mut self, members: &[u16]) {
        let members = members
            .iter()
            .map(|id| Member {
                id: BackendId(*id),
                weight: 100,
                address: SocketAddr::V4(backend_address(*id)),
            })
            .collect();
        self.apply(&Step::Table { service: SERVICE, members });
    }

    pub fn service(&mut self, no_backend: NoBackend, trials: &[u16]) {
        self.apply(&Step::Service {
            id: SERVICE,
            vip: SocketAddr::V4(vip()),
            mode: Mode::Nat,
            no_backend,
            evidence: true,
            trials: trials.iter().map(|id| BackendId(*id)).collect(),
        });
    }

    /// The same service, with or without evidence.
    pub fn evidence(&mut self, evidence: bool) {
        self.apply(&Step::Service {
            id: SERVICE,
            vip: SocketAddr::V4(vip()),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence,
            trials: Vec::new(),
        });
    }

    /// Of exchanges that wait too long.
    pub fn watch(&self) -> bpf::Watch {
        bpf::watch(&self.ebpf).expect("the maps are there")
    }

    pub fn program(&mut self) -> &mut Xdp {
        let program = self.ebpf.program_mut("shunt");
        program.and_then(|program| program.try_into().ok()).expect("the XDP program")
    }

    /// Ends every connection.
    pub fn forget_connections(&mut self) {
        for name in ["FLOWS", "EMBRYOS"] {
            self.clear(name);
        }
    }

    /// Ends every handshake.
    pub fn forget_handshakes(&mut self) {
        self.clear("EMBRYOS");
    }

    fn clear(&mut self, name: &str) {
        let map = self.ebpf.map_mut(name).expect("the object has it");
        let mut map: HashMap<_, FlowKey, Flow> = map.try_into().expect("it is a hash of flows");
        let keys: Vec<FlowKey> = map.keys().collect::<Result<_, _>>().expect("the map is readable");
        for key in keys {
            map.remove(&key).expect("nobody else removes it");
        }
    }

    /// Runs the program on one frame.
    pub fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let program = self.program();
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = program.test_run(options).expect("the kernel runs it");
        let len = result.data_size_out as usize;
        out.truncate(len);
        (Action::new(result.return_value), out)
    }

    /// The heads mirrored since the last call.
    pub fn heads(&mut self) -> Vec<HeadRecord> {
        std::iter::from_fn(|| self.heads.pop()).collect()
    }

    /// Drops them unread.
    pub fn forget_heads(&mut self) {
        while self.heads.pop().is_some() {}
    }

    pub fn counters(&mut self) -> Counters {
        self.maps.counters().expect("the maps are readable")
    }

    pub fn drops(&mut self, reason: lb_common::reason::Reason) -> u64 {
        let counters = self.counters();
        counters.drops.iter().find(|(_, kind, _)| *kind == reason).map_or(0, |(_, _, count)| *count)
    }
}
