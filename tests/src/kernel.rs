//! The real program in the real kernel, one frame at a time (`BPF_PROG_TEST_RUN`): no interface is involved.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    os::fd::AsFd as _,
};

use aya::{
    TestRun as _, TestRunOptions, TestRunResult,
    programs::{Program, ProgramError},
};
use lb_common::abi::{Addr, ExchangeRecord, FlowKey, Link, flow_state};
use lb_core::{
    config::{Mode, NoBackend, Sources},
    io::{Admit, BackendId, FlowReset, Generation, Member, ServiceId, Step},
};
use lb_userspace::dataplane::{Counters, Dataplane as _, NextHop, bpf, steering::Steering};

use crate::test_run::Runner;

/// What the program decided.
#[derive(Clone, Copy, Debug, Eq)]
pub enum Action {
    Aborted,
    Drop,
    Pass,
    Tx,
    Redirect,
}

impl PartialEq for Action {
    /// At tc a frame that goes back is redirected like any other.
    fn eq(&self, other: &Self) -> bool {
        let sent = |action: &Self| matches!(action, Self::Tx | Self::Redirect);
        std::mem::discriminant(self) == std::mem::discriminant(other)
            || hook() == bpf::Hook::Tc && sent(self) && sent(other)
    }
}

/// See [`hook`].
pub fn at_tc() -> bool {
    hook() == bpf::Hook::Tc
}

/// Where the program of every fixture is: XDP, or tc with `SHUNT_LAB_TC=1`.
pub fn hook() -> bpf::Hook {
    if lb_lab::Style::get().tc { bpf::Hook::Tc } else { bpf::Hook::Xdp }
}

impl Action {
    /// As the program returned it.
    pub fn of(number: u32) -> Self {
        match (hook(), number.cast_signed()) {
            (bpf::Hook::Xdp, _) => Self::new(number),
            (bpf::Hook::Tc, -1) => Self::Pass,
            (bpf::Hook::Tc, 2) => Self::Drop,
            (bpf::Hook::Tc, 7) => Self::Redirect,
            (bpf::Hook::Tc, other) => panic!("no such action: {other}"),
        }
    }

    /// As an XDP program returned it.
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
pub const NAT_PORTS: RangeInclusive<u16> = 1024..=32_767;
/// Tagged frames with these ids are looked at.
pub const VLANS: [u16; 2] = [10, 20];

pub const SERVICE: ServiceId = ServiceId(3);

/// Which addresses the hosts of a fixture have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

thread_local! {
    static FAMILY: Cell<Family> = const { Cell::new(Family::V4) };
}

/// What fixtures on this thread use: IPv4, unless [`in_family`] says otherwise.
pub fn family() -> Family {
    FAMILY.get()
}

/// Does this with the addresses of one family. A fixture is written once and done with both.
pub fn in_family<T>(family: Family, work: impl FnOnce() -> T) -> T {
    let before = FAMILY.replace(family);
    let done = work();
    FAMILY.set(before);
    done
}

/// Makes two tests out of a function: one for each family.
#[macro_export]
macro_rules! both_families {
    ($name:ident) => {
        mod $name {
            #[test]
            fn ipv4() {
                $crate::kernel::in_family($crate::kernel::Family::V4, super::$name);
            }

            #[test]
            fn ipv6() {
                $crate::kernel::in_family($crate::kernel::Family::V6, super::$name);
            }
        }
    };
}

/// The program with a service in its maps.
pub struct Kernel {
    program: bpf::Unattached,
    dataplane: bpf::Bpf,
    heads: bpf::EvidenceRing,
    ingress: u32,
}

/// The MAC that the next hop of a backend is given.
pub fn backend_mac(id: u16) -> [u8; 6] {
    [0x02, 0, 0, 1, (id >> 8) as u8, id as u8]
}

/// Of the family in use: the IPv4 address, or the last 32 bits of an IPv6 address.
pub fn address(v4: [u8; 4]) -> IpAddr {
    match family() {
        Family::V4 => Ipv4Addr::from(v4).into(),
        Family::V6 => {
            let [a, b, c, d] = v4.map(u16::from);
            Ipv6Addr::new(0x2001, 0xdb8, a, b, 0x5a, 0, c, d).into()
        }
    }
}

pub fn backend_address(id: u16) -> SocketAddr {
    SocketAddr::new(address([10, 9, 1 + (id >> 8) as u8, id as u8]), 8080)
}

pub fn vip() -> SocketAddr {
    SocketAddr::new(address([203, 0, 113, 10]), 80)
}

/// What backends see as the source.
pub fn nat_source() -> IpAddr {
    address([10, 9, 0, 1])
}

/// Link and IPv6 header.
const SHORTEST_AT_TC: usize = 54;

/// Runs a loaded program once.
pub fn test_run(program: &Program, options: TestRunOptions<'_>) -> Result<TestRunResult, ProgramError> {
    match program {
        Program::Xdp(program) => program.test_run(options),
        Program::SchedClassifier(program) => program.test_run(options),
        other => panic!("a program of type {:?}", other.prog_type()),
    }
}

impl Kernel {
    /// `backends` of them, ids from 0, all admitted and reached through another interface.
    pub fn new(backends: u16) -> Self {
        Self::with(backends, NAT_PORTS, 4096)
    }

    pub fn with(backends: u16, nat_ports: RangeInclusive<u16>, max_flows: u32) -> Self {
        Self::with_nat(backends, nat_ports, &[], max_flows)
    }

    /// The same with configured NAT addresses.
    pub fn with_nat(
        backends: u16,
        nat_ports: RangeInclusive<u16>,
        nat_addresses: &[IpAddr],
        max_flows: u32,
    ) -> Self {
        Self::paced(backends, nat_ports, nat_addresses, max_flows, 0)
    }

    /// The same, with so many new connections a second and CPU at most; 0: no limit.
    pub fn paced(
        backends: u16,
        nat_ports: RangeInclusive<u16>,
        nat_addresses: &[IpAddr],
        max_flows: u32,
        new_flows: u32,
    ) -> Self {
        let program = bpf::Unattached::load(hook(), max_flows).expect("the program loads");
        let settings =
            bpf::Settings { nat_ports, nat_addresses, vlans: &VLANS, max_new_flows_per_second: new_flows };
        let (dataplane, heads) = program.dataplane(settings).expect("its maps can be opened");
        let mut kernel = Self { program, dataplane, heads, ingress: INGRESS };
        for id in 0..backends {
            kernel.next_hop(id, Link::new(backend_mac(id), OWN_MAC), ELSEWHERE);
            kernel.admit(id, 1, Admit::All);
        }
        kernel.table(&(0..backends).collect::<Vec<_>>());
        kernel.service(NoBackend::Reset, &[]);
        kernel
    }

    pub fn apply(&mut self, step: &Step) {
        self.dataplane.apply(step).expect("the map takes it");
    }

    pub fn next_hop(&mut self, id: u16, link: Link, ifindex: u32) {
        self.next_hop_in(id, link, ifindex, 0);
    }

    /// The same in a VLAN.
    pub fn next_hop_in(&mut self, id: u16, link: Link, ifindex: u32, vlan: u16) {
        let hop = NextHop { ifindex, vlan, link, source: nat_source(), routed: false, path_warning: None };
        self.next_hop_to(backend_address(id).ip(), hop);
    }

    pub fn next_hop_to(&mut self, address: IpAddr, hop: NextHop) {
        self.dataplane.set_next_hop(address, hop).expect("the map takes it");
    }

    pub fn admit(&mut self, id: u16, generation: u32, admit: Admit) {
        self.backend(id, generation, admit, FlowReset::Never);
    }

    pub fn backend(&mut self, id: u16, generation: u32, admit: Admit, flow_reset: FlowReset) {
        self.write_backend(id, generation, admit, flow_reset, false);
    }

    /// Its good responses are counted, not mirrored.
    pub fn count_successes(&mut self, id: u16) {
        self.write_backend(id, 1, Admit::All, FlowReset::Never, true);
    }

    fn write_backend(
        &mut self,
        id: u16,
        generation: u32,
        admit: Admit,
        flow_reset: FlowReset,
        count_successes: bool,
    ) {
        self.apply(&Step::Backend {
            id: BackendId(id),
            service: SERVICE,
            address: backend_address(id),
            generation: Generation(generation),
            admit,
            flow_reset,
            count_successes,
        });
    }

    pub fn table(&mut self, members: &[u16]) {
        let members = members
            .iter()
            .map(|id| Member { id: BackendId(*id), weight: 100, address: backend_address(*id) })
            .collect();
        self.apply(&Step::Table { service: SERVICE, members });
    }

    pub fn service(&mut self, no_backend: NoBackend, trials: &[u16]) {
        self.apply(&Step::Service {
            id: SERVICE,
            vip: vip(),
            mode: Mode::Nat,
            no_backend,
            evidence: true,
            redispatch: false,
            sources: Sources::default(),
            trials: trials.iter().map(|id| BackendId(*id)).collect(),
        });
    }

    /// The same service in another mode.
    pub fn mode(&mut self, mode: Mode) {
        self.serve(SERVICE, vip(), mode);
    }

    /// A service with evidence.
    pub fn serve(&mut self, id: ServiceId, vip: SocketAddr, mode: Mode) {
        self.apply(&Step::Service {
            id,
            vip,
            mode,
            no_backend: NoBackend::Reset,
            evidence: true,
            redispatch: false,
            sources: Sources::default(),
            trials: Vec::new(),
        });
    }

    /// The same service, which takes connections of these only.
    pub fn sources(&mut self, sources: Sources) {
        self.apply(&Step::Service {
            id: SERVICE,
            vip: vip(),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence: true,
            redispatch: false,
            sources,
            trials: Vec::new(),
        });
    }

    /// The same service, with or without evidence.
    pub fn evidence(&mut self, evidence: bool) {
        self.apply(&Step::Service {
            id: SERVICE,
            vip: vip(),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence,
            redispatch: false,
            sources: Sources::default(),
            trials: Vec::new(),
        });
    }

    /// The same service; handshakes that come to nothing go on elsewhere.
    pub fn redispatch(&mut self) {
        self.redispatch_to(&[]);
    }

    /// And with half-open backends.
    pub fn redispatch_to(&mut self, trials: &[u16]) {
        self.apply(&Step::Service {
            id: SERVICE,
            vip: vip(),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence: true,
            redispatch: true,
            sources: Sources::default(),
            trials: trials.iter().map(|id| BackendId(*id)).collect(),
        });
    }

    /// Of exchanges that wait too long.
    pub fn watch(&self) -> bpf::TimeoutScanner {
        self.dataplane.timeout_scanner()
    }

    /// What ends the connections of backends that are out.
    pub fn endings(&self) -> bpf::ResetSender {
        self.dataplane.reset_sender()
    }

    pub fn program(&mut self) -> &mut Program {
        self.program.ebpf.program_mut("shunt").expect("the program")
    }

    /// Another way to run it: quick, and from any thread.
    pub fn runner(&mut self) -> Runner {
        let program = self.program().fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?));
        Runner::new(program.expect("a loaded program has a descriptor"))
    }

    /// The flow tables as they are.
    pub fn flows(&self) -> &bpf::FlowTables {
        self.dataplane.flow_tables()
    }

    /// Ends every connection.
    pub fn forget_connections(&mut self) {
        self.flows().remove_all(|_| true);
    }

    /// Ends every handshake.
    pub fn forget_handshakes(&mut self) {
        self.flows().remove_all(|state| state & flow_state::ESTABLISHED == 0);
    }

    /// From now on frames seem to come from this interface of the caller's network namespace.
    pub fn come_by(&mut self, ifindex: u32) {
        self.ingress = ifindex;
    }

    /// Runs the program on one frame.
    pub fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let context = match hook() {
            // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            bpf::Hook::Xdp => vec![0, frame.len() as u32, 0, self.ingress, 0, 0],
            // `struct __sk_buff` up to ifindex.
            bpf::Hook::Tc => [[0; 10].as_slice(), &[self.ingress]].concat(),
        };
        let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
        let comes_by_another = self.ingress != INGRESS;
        let program = self.program();
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.ctx_in = comes_by_another.then_some(context.as_slice());
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = match test_run(program, options) {
            // Without a whole IP header nothing comes to tc, and no test run does.
            Err(_) if hook() == bpf::Hook::Tc && frame.len() < SHORTEST_AT_TC => {
                return (Action::Pass, frame.to_vec());
            }
            result => result.expect("the kernel runs it"),
        };
        let len = result.data_size_out as usize;
        out.truncate(len);
        (Action::of(result.return_value), out)
    }

    /// The heads mirrored since the last call.
    pub fn heads(&mut self) -> Vec<ExchangeRecord> {
        std::iter::from_fn(|| self.heads.pop()).collect()
    }

    /// The oldest head that was not read yet.
    pub fn head(&mut self) -> Option<ExchangeRecord> {
        self.heads.pop()
    }

    /// Reads the good responses that are not mirrored.
    pub fn goods(&self) -> bpf::SuccessCounts {
        self.program.success_counts().expect("its map can be mapped")
    }

    /// Drops them unread.
    pub fn forget_heads(&mut self) {
        while self.heads.pop().is_some() {}
    }

    pub fn counters(&mut self) -> Counters {
        self.dataplane.counters().expect("the maps are readable")
    }

    /// Where a SYN of this client would go.
    pub fn steering(&mut self, key: &FlowKey<Addr>, members: &[Member]) -> Option<Steering> {
        self.dataplane.steering(key, members).expect("the maps are readable")
    }

    /// How many connections a backend has.
    pub fn connections(&mut self, id: BackendId, generation: Generation) -> u64 {
        self.dataplane.connections(id, generation)().expect("the tables are readable")
    }

    pub fn drops(&mut self, reason: lb_common::reason::Reason) -> u64 {
        let counters = self.counters();
        counters.drops.iter().find(|(_, kind, _)| *kind == reason).map_or(0, |(_, _, count)| *count)
    }
}
