//! Runs cases, and checks what holds for all of them.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    abi::{BackendCounters, Link},
    reason::Reason,
};
use lb_core::io::{BackendId, ServiceId};
use lb_tests::{
    frame::{ACK, FIN, RST, SYN, Tcp, checksums, layout},
    kernel::{
        Action, ELSEWHERE, Family, Kernel, NAT_PORTS, OWN_MAC, at_tc, backend_address, backend_mac,
        in_family, nat_source, vip,
    },
};

use super::world::{self, Size, World, service_at};

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    families: &'static [Family],
    sizes: &'static [Size],
    tags: &'static [Option<u16>],
    stage: Stage,
    outcome: Outcome,
    /// The way to the backend has this VLAN, if it is another than that of the frame.
    way: Option<u16>,
    frames: fn(&World) -> Vec<Vec<u8>>,
}

/// The state before the frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Nothing,
    /// The client's SYN has been sent on.
    Begun,
    Established,
}

/// The outcome for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The host gets it to the byte, and nothing is noted.
    Pass,
    /// It is counted for the service at this port of the VIP's address.
    Drop(Reason, u16),
    /// It begins a connection with backend 0, and goes there.
    Begins,
    /// It goes to backend 0 by the connection that is there.
    ToBackend,
    ToClient,
    /// It is counted for the service at this port, and answered.
    Reset(Reason, u16),
}

const BOTH: &[Family] = &[Family::V4, Family::V6];
const SIZES: &[Size] = &[Size::Least, Size::Odd, Size::Mtu];
/// Without, and with a priority, which has to be kept.
const TAGS: &[Option<u16>] = &[None, Some(0xa00a)];

impl Case {
    /// In every family, size and with and without a tag.
    pub(crate) fn all(
        name: &'static str,
        stage: Stage,
        outcome: Outcome,
        frames: fn(&World) -> Vec<Vec<u8>>,
    ) -> Self {
        Self { name, families: BOTH, sizes: SIZES, tags: TAGS, stage, outcome, way: None, frames }
    }

    pub(crate) fn v4(self) -> Self {
        Self { families: &[Family::V4], ..self }
    }

    pub(crate) fn v6(self) -> Self {
        Self { families: &[Family::V6], ..self }
    }

    pub(crate) fn sizes(self, sizes: &'static [Size]) -> Self {
        Self { sizes, ..self }
    }

    pub(crate) fn tags(self, tags: &'static [Option<u16>]) -> Self {
        Self { tags, ..self }
    }

    pub(crate) fn way(self, vlan: u16) -> Self {
        Self { way: Some(vlan), ..self }
    }
}

/// Runs a group: one kernel for each family.
pub(crate) fn run(cases: Vec<Case>) {
    for family in [Family::V4, Family::V6] {
        in_family(family, || {
            let mut bench = Bench { kernel: world::kernel(), number: 0 };
            // A test run at tc knows no tags: there the kernel keeps them beside the frame.
            let knows = |case: &&Case| !at_tc() || case.way.is_none();
            for case in cases.iter().filter(|case| case.families.contains(&family)).filter(knows) {
                for (size, tag) in
                    case.sizes.iter().flat_map(|size| case.tags.iter().map(move |tag| (*size, *tag)))
                {
                    if at_tc() && tag.is_some() {
                        continue;
                    }
                    bench.case(case, size, tag);
                }
            }
            assert_eq!(bench.kernel.flows().inconsistencies(), Vec::<String>::new(), "the tables are whole");
        });
    }
}

/// A kernel, and how many clients it has had.
struct Bench {
    kernel: Kernel,
    number: u16,
}

/// All that a frame may leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Traces {
    established: u64,
    handshakes: u64,
    resting: u64,
    drops: BTreeMap<(ServiceId, Reason), u64>,
    counters: BTreeMap<BackendId, BackendCounters>,
}

impl Bench {
    fn case(&mut self, case: &Case, size: Size, tag: Option<u16>) {
        let own = tag.map_or(0, |tag| tag & 0xfff);
        let way = case.way.unwrap_or(own);
        self.kernel.next_hop_in(0, Link::new(backend_mac(0), OWN_MAC), ELSEWHERE, way);
        let mut world = World { size, tag, number: self.number, nat: SocketAddr::new(nat_source(), 0) };
        let mut frames = (case.frames)(&world);
        let many = frames.len();
        // A frame that begins nothing may come again.
        let same = case.stage == Stage::Nothing && case.outcome == Outcome::Pass;
        let mut wanted = None;
        for frame in 0..many {
            self.number += 1;
            world.number = self.number;
            self.prepare(case, &mut world);
            if !same {
                frames = (case.frames)(&world);
            }
            let context = format!("{} ({size:?}, {tag:x?}, {}, frame {frame})", case.name, vip());
            // Records of the preparation do not belong to the frame.
            let before = wanted.take().filter(|_| case.stage == Stage::Nothing);
            let mut now = before.unwrap_or_else(|| self.traces());
            self.frame(case.outcome, way, &world, &frames[frame], &mut now, &context);
            if case.stage != Stage::Nothing || frame + 1 == many {
                let moves = matches!(case.outcome, Outcome::ToBackend | Outcome::ToClient);
                assert_eq!(settled(self.traces(), moves), settled(now, moves), "{context}");
            } else {
                wanted = Some(now);
            }
        }
        // So that no table fills up.
        self.kernel.forget_connections();
        self.kernel.forget_heads();
    }

    /// Brings a connection to the stage of the case.
    fn prepare(&mut self, case: &Case, world: &mut World) {
        let plain = World { size: Size::Least, ..world.clone() };
        let steps: &[(bool, u8)] = match case.stage {
            Stage::Nothing => &[],
            Stage::Begun => &[(true, SYN)],
            Stage::Established => &[(true, SYN), (false, SYN | ACK), (true, ACK)],
        };
        let mut plain = plain;
        for (by_client, flags) in steps {
            let mut segment = match (by_client, *flags) {
                (true, SYN) => plain.syn(),
                (true, flags) => plain.sent(flags),
                (false, flags) => plain.answered(flags),
            };
            if !by_client {
                segment.seq = segment.seq.wrapping_sub(1);
                segment.vlan = case.way.map_or(world.tag, |way| (way != 0).then_some(way));
            }
            let (action, out) = self.kernel.run(&segment.bytes());
            assert!(
                [Action::Redirect, Action::Tx].contains(&action),
                "{}: {flags:#x}: {action:?}",
                case.name
            );
            if *flags == SYN {
                plain.nat = Tcp::read(&out).expect("a translated segment").src;
                world.nat = plain.nat;
            }
        }
    }

    /// `wanted`: the traces before it, to which are added those that it has to leave.
    fn frame(
        &mut self,
        outcome: Outcome,
        way: u16,
        world: &World,
        frame: &[u8],
        wanted: &mut Traces,
        context: &str,
    ) {
        let (action, out) = self.kernel.run(frame);
        let mut count = |reason, port| {
            *wanted.drops.entry((service_at(SocketAddr::new(vip().ip(), port)), reason)).or_default() += 1;
        };
        match outcome {
            Outcome::Pass => {
                assert_eq!(action, Action::Pass, "{context}");
                assert!(out == frame, "{context}: changed");
            }
            Outcome::Drop(reason, port) => {
                assert_eq!(action, Action::Drop, "{context}");
                count(reason, port);
            }
            Outcome::Reset(reason, port) => {
                count(reason, port);
                assert_eq!(action, Action::Tx, "{context}");
                is_reset(frame, &out, context);
            }
            Outcome::Begins | Outcome::ToBackend => {
                assert_eq!(action, Action::Redirect, "{context}");
                let counters = wanted.counters.entry(BackendId(0)).or_default();
                let nat = Tcp::read(&out).unwrap_or_else(|| panic!("{context}: no TCP")).src;
                if outcome == Outcome::Begins {
                    assert!(nat.ip() == nat_source() && NAT_PORTS.contains(&nat.port()), "{context}: {nat}");
                    wanted.handshakes += 1;
                    counters.connections += 1;
                } else {
                    assert_eq!(nat, world.nat, "{context}");
                }
                counters.packets_to += 1;
                counters.bytes_to += datagram(frame);
                let link = Link::new(backend_mac(0), OWN_MAC);
                is_translated(frame, &out, link, nat, backend_address(0), way, context);
            }
            Outcome::ToClient => {
                assert_eq!(action, Action::Redirect, "{context}");
                let counters = wanted.counters.entry(BackendId(0)).or_default();
                counters.packets_from += 1;
                counters.bytes_from += datagram(frame);
                let syn = world.syn();
                let link = Link::new(syn.from_mac, syn.to_mac);
                let own = world.tag.map_or(0, |tag| tag & 0xfff);
                is_translated(frame, &out, link, vip(), world.client(), own, context);
            }
        }
    }

    fn traces(&mut self) -> Traces {
        let census = self.kernel.flows().counts();
        let counters = self.kernel.counters();
        Traces {
            established: census.established,
            handshakes: census.handshakes,
            resting: census.time_wait,
            drops: counters.drops.into_iter().map(|(id, reason, count)| ((id, reason), count)).collect(),
            counters: counters.backends.into_iter().collect(),
        }
    }
}

/// Without what a segment of a connection may change besides being counted: its stage, and what evidence
/// makes of it.
fn settled(traces: Traces, moves: bool) -> Traces {
    if !moves {
        return traces;
    }
    let plain = |counters: BackendCounters| BackendCounters {
        packets_to: counters.packets_to,
        bytes_to: counters.bytes_to,
        packets_from: counters.packets_from,
        bytes_from: counters.bytes_from,
        connections: counters.connections,
        ..BackendCounters::default()
    };
    let counters = traces.counters.into_iter().map(|(id, counters)| (id, plain(counters))).collect();
    Traces { established: 0, handshakes: 0, resting: 0, counters, ..traces }
}

/// The length of a frame's datagram, as its header says.
fn datagram(frame: &[u8]) -> u64 {
    let at = layout(frame).expect("a TCP frame");
    (at.end - at.ip) as u64
}

/// Exactly these fields are others; the checksums are right exactly if they were.
fn is_translated(
    frame: &[u8],
    out: &[u8],
    link: Link,
    src: SocketAddr,
    dst: SocketAddr,
    vlan: u16,
    context: &str,
) {
    assert_eq!(checksums(frame), checksums(out), "{context}: checksums");
    let mut wanted = frame.to_vec();
    let tag = layout(frame).filter(|at| at.ip == 18).map(|_| u16::from_be_bytes([frame[14], frame[15]]));
    let at = if tag.is_none() { 12 } else { 16 };
    let leaves = match vlan {
        // A tag that only gives a priority stays.
        0 => tag.filter(|tag| tag & 0xfff == 0),
        id => Some(tag.unwrap_or(0) & 0xf000 | id),
    };
    let tags: Vec<u8> = leaves.iter().flat_map(|tag| [0x8100, *tag]).flat_map(u16::to_be_bytes).collect();
    wanted.splice(..at, link.to().into_iter().chain(link.from()).chain(tags));
    let at = layout(&wanted).expect("a TCP frame");
    wanted[at.ip + if at.v6 { 7 } else { 8 }] -= 1;
    let place = at.ip + if at.v6 { 8 } else { 12 };
    let addresses: Vec<u8> = [src, dst].iter().flat_map(|end| octets(*end)).collect();
    wanted[place..place + addresses.len()].copy_from_slice(&addresses);
    wanted[at.tcp..at.tcp + 2].copy_from_slice(&src.port().to_be_bytes());
    wanted[at.tcp + 2..at.tcp + 4].copy_from_slice(&dst.port().to_be_bytes());
    let mut got = out.to_vec();
    for bytes in [&mut wanted, &mut got] {
        // Looked at above.
        bytes[at.tcp + 16..at.tcp + 18].fill(0);
        if !at.v6 {
            bytes[at.ip + 10..at.ip + 12].fill(0);
        }
    }
    assert!(got == wanted, "{context}: changed otherwise\n got {got:02x?}\nwant {wanted:02x?}");
}

fn octets(end: SocketAddr) -> Vec<u8> {
    match end {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    }
}

/// As RFC 9293 section 3.10.7.1 has it, by the way that the segment came.
fn is_reset(frame: &[u8], out: &[u8], context: &str) {
    let sent = Tcp::read(frame).expect("a TCP frame");
    let (seq, ack, flags) = if sent.flags & ACK != 0 {
        (sent.ack, 0, RST)
    } else {
        let control = u32::from(sent.flags & (SYN | FIN) != 0);
        (0, sent.seq.wrapping_add(sent.payload.len() as u32).wrapping_add(control), RST | ACK)
    };
    let wanted = Tcp {
        to_mac: sent.from_mac,
        from_mac: sent.to_mac,
        vlan: sent.vlan,
        ..Tcp::new(sent.dst, sent.src, flags).numbers(seq, ack)
    };
    assert_eq!(Tcp::read(out), Some(wanted), "{context}");
    assert_eq!(checksums(out), (true, true), "{context}");
    let at = layout(out).expect("read above");
    let least = if sent.vlan.is_some() { 64 } else { 60 };
    // As short as it came; where 60 bytes are the least, a tag does not count as more.
    assert_eq!(out.len(), frame.len().min(at.end.max(least)), "{context}");
    assert!(out[at.end..].iter().all(|byte| *byte == 0), "{context}: padding leaks");
}
