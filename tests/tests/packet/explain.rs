//! `shunt explain` and the program agree: the test asks for the explanation first, then runs the program.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    abi::{Addr, FlowKey, Link, Port},
    reason::Reason,
};
use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, Generation, Member, Step},
};
use lb_tests::{
    both_families,
    frame::{ACK, RST, SYN, Tcp},
    kernel::{Action, ELSEWHERE, Family, INGRESS, Kernel, OWN_MAC, address, backend_address, family, vip},
};
use lb_userspace::dataplane::steering::{Choice, Stage, Steering, Way};

use crate::steering::backend_of;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any client that could be one: its address is a host's, its port is not 0.
    fn client(&mut self) -> SocketAddr {
        let [_, b, c, d, e, f, ..] = self.next().to_be_bytes();
        let first = [11, 23, 59, 80, 101, 151, 172, 198][usize::from(b % 8)];
        SocketAddr::new(address([first, c, d, e]), u16::from(f) * 251 + 1)
    }
}

fn key(client: SocketAddr) -> FlowKey<Addr> {
    FlowKey {
        src: client.ip().into(),
        dst: vip().ip().into(),
        sport: Port::new(client.port()),
        dport: Port::new(vip().port()),
    }
}

pub(crate) fn members(ids: impl IntoIterator<Item = u16>) -> Vec<Member> {
    let member = |id| Member { id: BackendId(id), weight: 100, address: backend_address(id) };
    ids.into_iter().map(member).collect()
}

pub(crate) fn explain(kernel: &mut Kernel, client: SocketAddr, members: &[Member]) -> Steering {
    kernel.steering(&key(client), members).expect("it is the VIP")
}

/// The backend that gets the client's SYN. `None`: no backend.
fn syn(kernel: &mut Kernel, client: SocketAddr) -> Option<BackendId> {
    let (action, out) = kernel.run(&Tcp::new(client, vip(), SYN).bytes());
    (action == Action::Redirect).then(|| BackendId(backend_of(&out)))
}

both_families!(thousands_of_clients_go_where_it_says);
fn thousands_of_clients_go_where_it_says() {
    const ALL: u16 = 12;
    let mut kernel = Kernel::new(ALL);
    let mut random = Random(3);
    let mut ways = BTreeMap::<&str, u32>::new();
    let members = members(0..ALL);
    for round in 0..40 {
        // Behind the table's back, as in the moments before a swap: some may have no new ones, one is not
        // reachable, one is half-open with a budget that runs out.
        for id in 0..ALL {
            let admit = match random.next() % 4 {
                0 => Admit::None,
                _ => Admit::All,
            };
            kernel.admit(id, 1, admit);
        }
        let (lost, tried) = (round % ALL, (round * 5 + 1) % ALL);
        for id in 0..ALL {
            let mac = if id == lost { [0; 6] } else { lb_tests::kernel::backend_mac(id) };
            kernel.next_hop(id, Link::new(mac, OWN_MAC), ELSEWHERE);
        }
        if round % 2 == 0 {
            kernel.admit(tried, 1, Admit::Trials);
            kernel.apply(&Step::Budget { id: BackendId(tried), tokens: 7 });
            kernel.service(NoBackend::Reset, &[tried]);
        } else {
            kernel.service(NoBackend::Reset, &[]);
        }
        let mut clients: Vec<_> = (0..100).map(|_| random.client()).collect();
        // Some ask again: their handshake is known by then.
        clients.extend_from_within(..25);
        for client in clients {
            let said = explain(&mut kernel, client, &members);
            let got = syn(&mut kernel, client);
            assert_eq!(said.choice.backend(), got, "{client} in round {round}: {said:?}");
            let way = match said.choice {
                Choice::Pinned(_) => "pinned",
                Choice::Trial(_) => "trial",
                Choice::Table { tries: 1, .. } => "slot",
                Choice::Table { .. } => "another slot",
                Choice::Nobody(_) => "nobody",
            };
            *ways.entry(way).or_default() += 1;
        }
        kernel.forget_connections();
    }
    assert_eq!(ways.values().sum::<u32>(), 5000);
    for way in ["pinned", "trial", "slot", "another slot"] {
        assert!(ways.get(way).is_some_and(|count| *count > 100), "{ways:?}");
    }
}

both_families!(without_its_backend_it_goes_where_the_next_table_sends_it);
fn without_its_backend_it_goes_where_the_next_table_sends_it() {
    const ALL: u16 = 6;
    let mut kernel = Kernel::new(ALL);
    let mut random = Random(4);
    let said: Vec<_> = (0..1000)
        .map(|_| {
            let client = random.client();
            (client, explain(&mut kernel, client, &members(0..ALL)))
        })
        .collect();
    for gone in 0..ALL {
        kernel.admit(gone, 1, Admit::None);
        kernel.table(&(0..ALL).filter(|id| *id != gone).collect::<Vec<_>>());
        let its: Vec<_> =
            said.iter().filter(|(_, said)| said.choice.backend() == Some(BackendId(gone))).collect();
        assert!(its.len() > 100);
        for (client, said) in its {
            let instead = said.without.expect("somebody was chosen").backend();
            assert_eq!(instead, syn(&mut kernel, *client), "{client}: {said:?}");
        }
        kernel.admit(gone, 1, Admit::All);
        kernel.table(&(0..ALL).collect::<Vec<_>>());
        kernel.forget_connections();
    }
}

both_families!(a_connection_pins_its_client_until_its_backend_may_have_no_new_ones);
fn a_connection_pins_its_client_until_its_backend_may_have_no_new_ones() {
    let mut kernel = Kernel::new(3);
    let client = SocketAddr::new(address([10, 1, 2, 3]), 40_000);
    let all = members(0..3);
    assert_eq!(explain(&mut kernel, client, &all).pinned, None);

    let (_, sent) = kernel.run(&Tcp::new(client, vip(), SYN).bytes());
    let at = BackendId(backend_of(&sent));
    let sent = Tcp::read(&sent).expect("a forwarded segment");
    let pinned = explain(&mut kernel, client, &all).pinned.expect("a handshake");
    assert_eq!((pinned.stage, pinned.backend, pinned.takes_syn), (Stage::Handshake, at, true));
    assert_eq!((pinned.nat, pinned.address), (sent.src, sent.dst));
    assert_eq!(connections(&mut kernel, at), 1, "a handshake counts while it may complete");

    let mut answer = Tcp::new(sent.dst, sent.src, SYN | ACK);
    (answer.seq, answer.ack) = (5000, sent.seq + 1);
    kernel.run(&answer.bytes());
    let mut complete = Tcp::new(client, vip(), ACK);
    (complete.seq, complete.ack) = (sent.seq + 1, 5001);
    kernel.run(&complete.bytes());
    let said = explain(&mut kernel, client, &all);
    let pinned = said.pinned.expect("a flow");
    assert_eq!((pinned.stage, pinned.backend, pinned.closing), (Stage::Flow, at, false));
    assert_eq!(said.choice, Choice::Pinned(at));
    assert_eq!(connections(&mut kernel, at), 1);

    // Drained: the connection stays, a new one of the same client goes elsewhere.
    kernel.admit(at.0, 1, Admit::None);
    let said = explain(&mut kernel, client, &all);
    let pinned = said.pinned.expect("it goes on");
    assert_eq!((pinned.stage, pinned.alive, pinned.takes_syn), (Stage::Flow, true, false));
    // A client that begins again ends its connection first, because the program challenges its SYN.
    let mut reset = Tcp::new(client, vip(), RST);
    reset.seq = sent.seq + 1;
    kernel.run(&reset.bytes());
    assert_eq!(said.choice.backend(), syn(&mut kernel, client));
    assert_ne!(said.choice.backend(), Some(at));
    assert_eq!(connections(&mut kernel, at), 0, "it began again elsewhere");
}

fn connections(kernel: &mut Kernel, id: BackendId) -> u64 {
    let other = kernel.connections(id, Generation(2));
    assert_eq!(other, 0, "another generation has none");
    kernel.connections(id, Generation(1))
}

both_families!(what_is_over_pins_nobody);
fn what_is_over_pins_nobody() {
    let mut kernel = Kernel::new(3);
    let client = SocketAddr::new(address([10, 1, 2, 3]), 40_000);
    let (_, sent) = kernel.run(&Tcp::new(client, vip(), SYN).bytes());
    let at = BackendId(backend_of(&sent));
    let sent = Tcp::read(&sent).expect("a forwarded segment");
    kernel.run(&Tcp::new(sent.dst, sent.src, SYN | ACK).numbers(5000, sent.seq + 1).bytes());
    kernel.run(&Tcp::new(client, vip(), ACK).numbers(sent.seq + 1, 5001).bytes());
    assert_eq!(connections(&mut kernel, at), 1);
    kernel.run(&Tcp::new(client, vip(), RST).numbers(sent.seq + 1, 5001).bytes());
    // Its place is taken still: the NAT port rests.
    assert_eq!(kernel.flows().counts().time_wait, 1);
    assert_eq!(connections(&mut kernel, at), 0);
    let said = explain(&mut kernel, client, &members(0..3));
    assert_eq!(said.pinned, None);
    assert_eq!(said.choice.backend(), syn(&mut kernel, client));
}

both_families!(nobody_and_nowhere);
fn nobody_and_nowhere() {
    let mut kernel = Kernel::new(1);
    let client = SocketAddr::new(address([10, 1, 2, 3]), 40_000);
    kernel.admit(0, 1, Admit::None);
    let said = explain(&mut kernel, client, &members([0]));
    assert_eq!((said.choice, said.without), (Choice::Nobody(Reason::Swapping), None));
    kernel.table(&[]);
    let said = explain(&mut kernel, client, &[]);
    assert_eq!((said.in_slot, said.choice), (None, Choice::Nobody(Reason::NoBackend)));
    let elsewhere = FlowKey { dport: Port::new(81), ..key(client) };
    assert_eq!(kernel.steering(&elsewhere, &[]), None);
}

both_families!(a_source_that_the_program_drops_gets_no_backend);
fn a_source_that_the_program_drops_gets_no_backend() {
    let mut kernel = Kernel::new(3);
    let all = members(0..3);
    let sources: &[&str] = match family() {
        Family::V4 => &["127.0.0.1", "0.0.0.0", "224.0.0.5", "255.255.255.255"],
        Family::V6 => &["::1", "::", "ff02::1"],
    };
    let mut dropped = 0;
    for source in sources.iter().map(|source| source.parse().expect("an address")).chain([vip().ip()]) {
        let client = SocketAddr::new(source, 40_000);
        let said = explain(&mut kernel, client, &all);
        let got = syn(&mut kernel, client);
        assert_eq!(said.choice.backend(), got, "{client}");
        if said.choice == Choice::Nobody(Reason::Martian) {
            dropped += 1;
            assert_eq!((said.without, said.only_by), (None, None));
        }
        assert_eq!(kernel.drops(Reason::Martian), dropped, "{client}");
    }
    assert!(dropped >= 4);
    // A backend may be a client, by the interface that leads to it.
    let backend = SocketAddr::new(backend_address(0).ip(), 40_000);
    for (ifindex, drops) in [(ELSEWHERE, 1), (INGRESS, 0)] {
        kernel.next_hop(0, Link::new(lb_tests::kernel::backend_mac(0), OWN_MAC), ifindex);
        let before = kernel.drops(Reason::Martian);
        let said = explain(&mut kernel, backend, &all);
        assert_eq!(said.only_by, Some(Way { ifindex, vlan: 0 }));
        assert!(said.choice.backend().is_some());
        kernel.run(&Tcp::new(backend, vip(), SYN).bytes());
        assert_eq!(kernel.drops(Reason::Martian) - before, drops);
    }
}
