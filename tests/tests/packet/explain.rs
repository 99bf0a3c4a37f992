//! What `shunt explain` says comes true: its answer is asked first, then the program is run.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, SocketAddrV4},
};

use lb_common::{
    abi::{FlowKey, Link, Port},
    reason::Reason,
};
use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, Generation, Member, Step},
};
use lb_tests::{
    frame::{ACK, SYN, Tcp},
    kernel::{Action, ELSEWHERE, Kernel, OWN_MAC, backend_address, vip},
};
use lb_userspace::dataplane::{
    Dataplane as _,
    steering::{Choice, Stage, Steering},
};

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
    fn client(&mut self) -> SocketAddrV4 {
        let [_, b, c, d, e, f, ..] = self.next().to_be_bytes();
        let first = [11, 23, 59, 80, 101, 151, 172, 198][usize::from(b % 8)];
        SocketAddrV4::new([first, c, d, e].into(), u16::from(f) * 251 + 1)
    }
}

fn key(client: SocketAddrV4) -> FlowKey {
    FlowKey {
        src: IpAddr::V4(*client.ip()).into(),
        dst: IpAddr::V4(*vip().ip()).into(),
        sport: Port::new(client.port()),
        dport: Port::new(vip().port()),
    }
}

fn members(ids: impl IntoIterator<Item = u16>) -> Vec<Member> {
    let member = |id| Member { id: BackendId(id), weight: 100, address: SocketAddr::V4(backend_address(id)) };
    ids.into_iter().map(member).collect()
}

fn explain(kernel: &mut Kernel, client: SocketAddrV4, members: &[Member]) -> Steering {
    kernel.maps.steering(&key(client), members).expect("the maps are readable").expect("it is the VIP")
}

/// Who gets the client's SYN. `None`: nobody.
fn syn(kernel: &mut Kernel, client: SocketAddrV4) -> Option<BackendId> {
    let (action, out) = kernel.run(&Tcp::new(client, vip(), SYN).bytes());
    (action == Action::Redirect).then(|| BackendId(backend_of(&out)))
}

#[test]
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

#[test]
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

#[test]
fn a_connection_pins_its_client_until_its_backend_may_have_no_new_ones() {
    let mut kernel = Kernel::new(3);
    let client = SocketAddrV4::new([10, 1, 2, 3].into(), 40_000);
    let all = members(0..3);
    assert_eq!(explain(&mut kernel, client, &all).pinned, None);

    let (_, sent) = kernel.run(&Tcp::new(client, vip(), SYN).bytes());
    let at = BackendId(backend_of(&sent));
    let sent = Tcp::read(&sent).expect("a forwarded segment");
    let pinned = explain(&mut kernel, client, &all).pinned.expect("a handshake");
    assert_eq!((pinned.stage, pinned.backend, pinned.keeps_syn), (Stage::Handshake, at, true));
    assert_eq!((pinned.nat, pinned.address), (SocketAddr::V4(sent.src), SocketAddr::V4(sent.dst)));
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
    assert_eq!((pinned.stage, pinned.alive, pinned.keeps_syn), (Stage::Flow, true, false));
    assert_eq!(said.choice.backend(), syn(&mut kernel, client));
    assert_ne!(said.choice.backend(), Some(at));
    assert_eq!(connections(&mut kernel, at), 0, "it began anew elsewhere");
}

fn connections(kernel: &mut Kernel, id: BackendId) -> u64 {
    let other = kernel.maps.connections(id, Generation(2))().expect("the maps are readable");
    assert_eq!(other, 0, "another generation has none");
    kernel.maps.connections(id, Generation(1))().expect("the maps are readable")
}

#[test]
fn nobody_and_nowhere() {
    let mut kernel = Kernel::new(1);
    let client = SocketAddrV4::new([10, 1, 2, 3].into(), 40_000);
    kernel.admit(0, 1, Admit::None);
    let said = explain(&mut kernel, client, &members([0]));
    assert_eq!((said.choice, said.without), (Choice::Nobody(Reason::Swapping), None));
    kernel.table(&[]);
    let said = explain(&mut kernel, client, &[]);
    assert_eq!((said.in_slot, said.choice), (None, Choice::Nobody(Reason::NoBackend)));
    let elsewhere = FlowKey { dport: Port::new(81), ..key(client) };
    assert_eq!(kernel.maps.steering(&elsewhere, &[]).expect("the maps are readable"), None);
}
