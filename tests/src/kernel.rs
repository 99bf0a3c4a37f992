//! The real program in the real kernel, one frame at a time (`BPF_PROG_TEST_RUN`): no interface is involved.

mod action;
mod addresses;
mod limited;
mod service;
mod side;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
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
use lb_userspace::dataplane::{Counters, Dataplane as _, NextHop, OwnMacs, bpf, steering::Steering};

pub use self::{
    action::{Action, at_tc, hook},
    addresses::{Family, address, backend_address, backend_mac, family, in_family, nat_source, vip},
    service::ServiceSettings,
    side::{Side, context},
};
pub use crate::devices::{ELSEWHERE, INGRESS, NODE_MAC, OTHER_NODE_MAC, usual_macs};
use crate::{
    devices::macs_of,
    frame::Tcp,
    program::{self, Borrowed, Loaded},
    test_run::Runner,
};

pub const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xaa];
pub const NAT_PORTS: RangeInclusive<u16> = 1024..=32_767;
/// Tagged frames with these ids are looked at.
pub const VLANS: [u16; 2] = [10, 20];

/// In percent. Only a test that scans the flows meets this limit.
pub const MAX_SOURCE_SHARE: u8 = 10;

pub const SERVICE: ServiceId = ServiceId(3);

/// The program with a service in its maps.
pub struct Kernel {
    // The first to go: it must be closed before another fixture gets the program.
    dataplane: bpf::Bpf,
    heads: bpf::EvidenceRing,
    loaded: Borrowed,
    /// The interface by which clients' frames come, if a test chooses one of the caller's namespace.
    ingress: Option<u32>,
    /// The interface to each backend's address, and the backends: their replies come by that interface.
    hops: BTreeMap<IpAddr, u32>,
    backends: BTreeSet<SocketAddr>,
    own_macs: OwnMacs,
    /// The last entry of each backend.
    written: BTreeMap<u16, Step>,
    redispatches: bool,
    limits: BTreeMap<u16, u32>,
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
        let loaded = program::borrow(hook(), max_flows);
        let settings = bpf::Settings {
            nat_ports,
            nat_addresses,
            vlans: &VLANS,
            max_new_flows_per_second: new_flows,
            max_source_share: MAX_SOURCE_SHARE,
            min_path_mtu: bpf::MinPathMtu::default(),
        };
        let (dataplane, heads) = loaded.program.dataplane(settings).expect("its maps can be opened");
        let mut kernel = Self {
            dataplane,
            heads,
            loaded,
            ingress: None,
            hops: BTreeMap::new(),
            backends: BTreeSet::new(),
            own_macs: usual_macs(),
            written: BTreeMap::new(),
            redispatches: false,
            limits: BTreeMap::new(),
        };
        kernel.own_macs(usual_macs());
        for id in 0..backends {
            kernel.next_hop(id, Link::new(backend_mac(id), OWN_MAC), ELSEWHERE);
            kernel.admit(id, 1, Admit::All);
        }
        kernel.table(&(0..backends).collect::<Vec<_>>());
        kernel.service(NoBackend::Reset, &[]);
        kernel
    }

    /// From now on the interfaces have these addresses.
    pub fn own_macs(&mut self, macs: OwnMacs) {
        self.dataplane.set_own_macs(&macs).expect("the map takes it");
        self.own_macs = macs;
    }

    pub fn apply(&mut self, step: &Step) {
        if let Step::Backend { address, .. } = step {
            self.backends.insert(*address);
        }
        self.dataplane.apply(step).expect("the map takes it");
    }

    pub fn next_hop(&mut self, id: u16, link: Link, ifindex: u32) {
        self.next_hop_in(id, link, ifindex, 0);
    }

    /// The same in a VLAN.
    pub fn next_hop_in(&mut self, id: u16, link: Link, ifindex: u32, vlan: u16) {
        let (also, source) = (Default::default(), nat_source());
        let hop = NextHop { ifindex, vlan, also, link, source, routed: false, path_warning: None };
        self.next_hop_to(backend_address(id).ip(), hop);
    }

    pub fn next_hop_to(&mut self, address: IpAddr, hop: NextHop) {
        self.hops.insert(address, hop.ifindex);
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
        let redispatch = self.redispatches;
        let max_connections = self.limits.get(&id).copied().unwrap_or(0);
        let step = Step::Backend {
            id: BackendId(id),
            service: SERVICE,
            address: backend_address(id),
            generation: Generation(generation),
            admit,
            flow_reset,
            count_successes,
            redispatch,
            max_connections,
        };
        self.apply(&step);
        self.written.insert(id, step);
    }

    pub fn table(&mut self, members: &[u16]) {
        let members = members
            .iter()
            .map(|id| Member { id: BackendId(*id), weight: 100, address: backend_address(*id) })
            .collect();
        self.apply(&Step::Table { service: SERVICE, members });
    }

    pub fn service(&mut self, no_backend: NoBackend, trials: &[u16]) {
        self.serve(ServiceSettings { no_backend, ..ServiceSettings::default() }.with_trials(trials));
    }

    /// Writes a service.
    pub fn serve(&mut self, settings: ServiceSettings) {
        self.apply(&settings.into());
    }

    /// The same service in another mode.
    pub fn mode(&mut self, mode: Mode) {
        self.serve(ServiceSettings { mode, ..ServiceSettings::default() });
    }

    /// The same service with source rules.
    pub fn sources(&mut self, sources: Sources) {
        self.serve(ServiceSettings { sources, ..ServiceSettings::default() });
    }

    /// The same service, with or without evidence.
    pub fn evidence(&mut self, evidence: bool) {
        self.serve(ServiceSettings { evidence, ..ServiceSettings::default() });
    }

    /// The same service; another backend takes over a handshake that fails.
    pub fn redispatch(&mut self) {
        self.redispatch_to(&[]);
    }

    /// The same with half-open backends.
    pub fn redispatch_to(&mut self, trials: &[u16]) {
        self.redispatches = true;
        self.rewrite_backends();
        self.serve(ServiceSettings { redispatch: true, ..ServiceSettings::default() }.with_trials(trials));
    }

    /// The scanner for exchanges that wait too long.
    pub fn timeout_scanner(&self) -> bpf::TimeoutScanner {
        self.dataplane.timeout_scanner()
    }

    /// The sender of resets for connections of backends that are out.
    pub fn reset_sender(&self) -> bpf::ResetSender {
        self.dataplane.reset_sender()
    }

    /// The program and all of its maps.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    pub fn program(&mut self) -> &mut Program {
        self.loaded.program.ebpf.program_mut("shunt").expect("the program")
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

    /// From now on frames seem to come from this interface of the caller's network namespace. Replies still come
    /// by the interface to their backend, which must be there too.
    pub fn come_by(&mut self, ifindex: u32) {
        self.ingress = Some(ifindex);
    }

    /// The interface that a test has chosen.
    pub fn comes_by(&self) -> Option<u32> {
        self.ingress
    }

    /// Runs the program on one frame. A reply of a backend comes by the interface to that backend, everything
    /// else by [`INGRESS`].
    pub fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let from = Tcp::read(frame).map(|tcp| tcp.src).filter(|from| self.backends.contains(from));
        let reply = from.and_then(|from| self.hops.get(&from.ip()).copied());
        match self.ingress {
            Some(ifindex) => self.run_here(frame, reply.unwrap_or(ifindex)),
            None => self.run_by(frame, reply.unwrap_or(INGRESS)),
        }
    }

    /// The same for a frame that comes by this interface, [`INGRESS`] or [`ELSEWHERE`].
    pub fn run_by(&mut self, frame: &[u8], ifindex: u32) -> (Action, Vec<u8>) {
        // Any namespace has the loopback device.
        let _side = (ifindex != INGRESS).then(Side::enter);
        self.run_here(frame, ifindex)
    }

    /// The same for an interface of the caller's network namespace.
    pub fn run_here(&mut self, frame: &[u8], ingress: u32) -> (Action, Vec<u8>) {
        if !self.own_macs.keys().any(|own| own.ifindex == ingress) {
            let macs = self.own_macs.clone().into_iter().chain(macs_of(ingress)).collect();
            self.own_macs(macs);
        }
        let context = context(frame.len(), ingress);
        let comes_by_another = ingress != INGRESS;
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
    pub fn success_counts(&self) -> bpf::SuccessCounts {
        self.loaded.program.success_counts().expect("its map can be mapped")
    }

    /// Reads when backends answered a SYN.
    pub fn syn_acks(&self) -> bpf::SynAcks {
        self.loaded.program.syn_acks().expect("its map can be mapped")
    }

    /// Reads which clients services have.
    pub fn clients_seen(&self) -> bpf::ClientsSeen {
        self.loaded.program.clients_seen().expect("its map can be mapped")
    }

    /// Reads what is left of trial budgets.
    pub fn trial_budgets(&self) -> bpf::TrialBudgets {
        self.loaded.program.trial_budgets().expect("its map can be mapped")
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
        self.dataplane.connections(vec![(id, generation)])().expect("the tables are readable")[0]
    }

    pub fn drops(&mut self, reason: lb_common::reason::Reason) -> u64 {
        let counters = self.counters();
        counters.drops.iter().find(|(_, kind, _)| *kind == reason).map_or(0, |(_, _, count)| *count)
    }
}
