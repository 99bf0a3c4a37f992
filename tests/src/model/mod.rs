//! The program a second time, plainly, from what ARCHITECTURE.md and SPECIFICATION.md say of it: one frame
//! in, what must become of it out.
//!
//! It knows connections as a map and nothing of hashes, sets or places. Where the program may choose (which
//! backend, which NAT port, which of several flaws it names), the model says what it may choose from, and
//! learns what it chose.

mod carrying;
mod connection;
mod frames;
mod numbers;
mod played;
mod reading;
mod rewriting;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use lb_common::reason::Reason;

use self::{
    connection::{Connection, Heard},
    reading::{Reading, Segment, alike, read},
};
pub use self::{frames::Generator, played::Rare};
use crate::kernel::{Action, NODE_MAC, OTHER_NODE_MAC};

/// A backend, and how frames get there.
#[derive(Clone, Debug)]
pub struct Backend {
    pub address: SocketAddr,
    pub mac: [u8; 6],
    /// 0: none.
    pub vlan: u16,
    /// May have new connections.
    pub admitted: bool,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub id: u16,
    pub vip: SocketAddr,
    /// Without a backend a SYN is dropped, not answered.
    pub silent: bool,
    /// It takes no connections from this prefix: address and bits.
    pub denied: Option<(IpAddr, u8)>,
    pub backends: Vec<Backend>,
}

/// Sender and receiver.
pub(crate) type Tuple = (SocketAddr, SocketAddr);

/// The addresses at which the node takes frames, on each of its interfaces. It sends from the first one.
const NODE_MACS: [[u8; 6]; 2] = [NODE_MAC, OTHER_NODE_MAC];

/// The program's knowledge, in plain maps.
#[derive(Clone, Debug)]
pub struct Model {
    pub services: Vec<Service>,
    pub vlans: Vec<u16>,
    pub own_mac: [u8; 6],
    pub nat_ports: RangeInclusive<u16>,
    /// By what the client sends: its address, and the VIP.
    connections: BTreeMap<Tuple, Connection>,
    /// The same by what the backend sends: its address, and ours. Gives the key above.
    replies: BTreeMap<Tuple, Tuple>,
    /// How often something rare came.
    played: BTreeMap<Rare, u64>,
}

/// The action that the program must take for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it came.
    Pass,
    /// And counted once for this service, with one of these.
    Drop(u16, BTreeSet<Reason>),
    /// As a drop, but the sender gets a reset.
    Reset(u16, BTreeSet<Reason>),
    /// Of a new connection, to one of these backends.
    Begin(u16, Vec<usize>),
    /// As a drop, but the client of this connection gets a challenge ACK.
    Challenge(u16, Tuple),
    /// Of a connection, in this direction.
    ToBackend(Tuple),
    ToClient(Tuple),
}

impl Model {
    pub fn new(
        services: Vec<Service>,
        vlans: Vec<u16>,
        own_mac: [u8; 6],
        nat_ports: RangeInclusive<u16>,
    ) -> Self {
        Self {
            services,
            vlans,
            own_mac,
            nat_ports,
            connections: BTreeMap::new(),
            replies: BTreeMap::new(),
            played: BTreeMap::new(),
        }
    }

    /// Every connection ends.
    pub fn forget(&mut self) {
        self.connections.clear();
        self.replies.clear();
    }

    pub fn played(&self) -> &BTreeMap<Rare, u64> {
        &self.played
    }

    /// Connections, handshakes, and what rests after them.
    pub fn census(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Connection) -> bool| self.connections.values().filter(|one| wanted(one)).count();
        (
            count(|one| !one.is_over() && one.is_established()),
            count(|one| !one.is_over() && !one.is_established()),
            count(Connection::is_over),
        )
    }

    /// Holds what the program made of a frame against what it must. `behind`: it came by the interface to the
    /// backends.
    pub fn judge(
        &mut self,
        frame: &[u8],
        behind: bool,
        action: Action,
        out: &[u8],
    ) -> Result<Verdict, String> {
        let (inner, tag) = self.untagged(frame);
        let by = (behind, tag.unwrap_or(0) & 0xfff);
        let (verdict, segment) = self.verdict(&inner, by);
        let mut rare = self.rare(&inner, segment.as_ref(), &verdict);
        // A connection that goes on, or the handshake whose SYN is challenged.
        if let (Some(segment), Verdict::ToBackend(key) | Verdict::Challenge(_, key)) = (&segment, &verdict)
            && let Some(connection) = self.connections.get_mut(key)
        {
            let before = connection.way();
            connection.comes_by(segment, mac(&inner, 6), by);
            rare.extend(played::moved(before, (mac(&inner, 6), by.0, by.1), connection.way()));
        }
        let checked = self.becomes(&verdict, segment.as_ref(), (frame, &inner, tag, behind), action, out);
        for rare in rare {
            *self.played.entry(rare).or_default() += 1;
        }
        checked.map(|()| verdict.clone()).map_err(|error| format!("{verdict:?}: {error}"))
    }

    fn becomes(
        &mut self,
        verdict: &Verdict,
        segment: Option<&Segment>,
        (frame, inner, tag, behind): (&[u8], &[u8], Option<u16>, bool),
        action: Action,
        out: &[u8],
    ) -> Result<(), String> {
        let (sent, sent_tag) = self.untagged(out);
        let wanted = match (verdict, segment) {
            (Verdict::Pass, _) => Action::Pass,
            (Verdict::Drop(..), _) => Action::Drop,
            // A reset is never answered.
            (Verdict::Reset(..), Some(segment)) if segment.rst => Action::Drop,
            (Verdict::Reset(..) | Verdict::Challenge(..), _) => leaves(behind, behind),
            (Verdict::ToClient(key), _) => leaves(behind, self.connections[key].behind),
            (Verdict::Begin(..) | Verdict::ToBackend(_), _) => leaves(behind, true),
        };
        if action != wanted {
            return Err(format!("{action:?} instead of {wanted:?}"));
        }
        let segment = match segment {
            Some(segment) if !matches!(wanted, Action::Pass | Action::Drop) => segment,
            _ if wanted == Action::Pass => return rewriting::untouched(frame, out),
            _ => return Ok(()),
        };
        let vlan = match verdict {
            Verdict::Pass | Verdict::Drop(..) => return Err("neither leaves".to_owned()),
            Verdict::Reset(..) => {
                rewriting::reset(inner, segment, &sent)?;
                tag.unwrap_or(0) & 0xfff
            }
            Verdict::Challenge(_, key) => {
                let (client, backend) = self.connections[key].next().ok_or("it has no numbers yet")?;
                rewriting::challenge(inner, segment, &sent, (backend, client))?;
                tag.unwrap_or(0) & 0xfff
            }
            Verdict::Begin(service, backends) => {
                let backend = self.begins(inner, segment, (*service, backends), (behind, tag), &sent)?;
                self.service(*service).backends[backend].vlan
            }
            Verdict::ToBackend(key) => {
                let vlan = self.connections.get(key).map(|one| self.backend(one).vlan);
                self.carried_to_backend(inner, segment, *key, &sent)?;
                vlan.unwrap_or(0)
            }
            Verdict::ToClient(key) => {
                let vlan = self.connections.get(key).map(|one| one.vlan);
                self.carried_to_client(inner, segment, *key, &sent)?;
                vlan.unwrap_or(0)
            }
        };
        // The priority is the frame's. A tag that only gives one stays.
        let tag = match vlan {
            0 => tag.filter(|tag| tag & 0xfff == 0),
            vlan => Some(tag.unwrap_or(0) & 0xf000 | vlan),
        };
        if sent_tag == tag { Ok(()) } else { Err(format!("tag {sent_tag:?} instead of {tag:?}")) }
    }

    /// A frame without the tag that a VLAN of ours gives it, and the tag.
    fn untagged(&self, frame: &[u8]) -> (Vec<u8>, Option<u16>) {
        let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        match (word(12), word(14), word(16)) {
            (Some(0x8100), Some(tag), Some(0x0800 | 0x86dd))
                if tag & 0xfff == 0 || self.vlans.contains(&(tag & 0xfff)) =>
            {
                ([&frame[..12], &frame[16..]].concat(), Some(tag))
            }
            _ => (frame.to_vec(), None),
        }
    }

    /// The action that the program must take, and the segment in the frame. Connections that a new one evicts
    /// leave the model.
    fn verdict(&mut self, frame: &[u8], by: (bool, u16)) -> (Verdict, Option<Segment>) {
        // Other stations, and those who hear broadcasts, answer for themselves.
        if !NODE_MACS.contains(&mac(frame, 0)) {
            return (Verdict::Pass, None);
        }
        let segment = match read(frame) {
            Reading::NotOurs => return (Verdict::Pass, None),
            Reading::Tcp(segment) => segment,
        };
        let verdict = self.steer(&segment, by);
        (verdict, Some(segment))
    }

    /// `by`: whether the segment came by the interface to the backends, and in which VLAN.
    fn steer(&mut self, segment: &Segment, by: (bool, u16)) -> Verdict {
        let tuple = (segment.src, segment.dst);
        if let Some(connection) = self.connections.get(&tuple) {
            let service = connection.service;
            if !segment.flaws.is_empty() {
                return Verdict::Drop(service, segment.flaws.clone());
            }
            let admitted = self.backend(connection).admitted;
            match connection.hears_client(segment, admitted) {
                Heard::Carried => return Verdict::ToBackend(tuple),
                Heard::Rests => {}
                Heard::Reopened => self.end(tuple),
                Heard::Challenged => return Verdict::Challenge(service, tuple),
            }
        } else if let Some(key) = self.replies.get(&tuple).copied()
            && let Some(connection) = self.connections.get(&key)
            && !connection.is_over()
        {
            if !segment.flaws.is_empty() {
                return Verdict::Drop(connection.service, segment.flaws.clone());
            }
            if by != (true, self.backend(connection).vlan) {
                return Verdict::Drop(connection.service, [Reason::Martian].into());
            }
            return Verdict::ToClient(key);
        }
        let Some(service) = self.services.iter().find(|service| service.vip == segment.dst) else {
            return Verdict::Pass;
        };
        let mut flaws = segment.flaws.clone();
        if segment.martian || self.is_ours(segment.src.ip(), by) {
            flaws.insert(Reason::Martian);
        }
        if !flaws.is_empty() {
            return Verdict::Drop(service.id, flaws);
        }
        if !segment.syn || segment.acks {
            return Verdict::Reset(service.id, [Reason::NoFlow].into());
        }
        if service.denied.is_some_and(|(ip, bits)| alike(ip, segment.src.ip(), bits)) {
            return Verdict::Drop(service.id, [Reason::Denied].into());
        }
        let admitted: Vec<usize> =
            (0..service.backends.len()).filter(|number| service.backends[*number].admitted).collect();
        if admitted.is_empty() {
            let reasons = if service.backends.is_empty() { Reason::NoBackend } else { Reason::Swapping };
            return match (reasons, service.silent) {
                (Reason::NoBackend, false) => Verdict::Reset(service.id, [reasons].into()),
                _ => Verdict::Drop(service.id, [reasons].into()),
            };
        }
        Verdict::Begin(service.id, admitted)
    }

    /// An address that no client has: a VIP's, or a backend's by another way than the one to it.
    fn is_ours(&self, address: IpAddr, by: (bool, u16)) -> bool {
        self.services.iter().any(|service| {
            let mut backends = service.backends.iter();
            service.vip.ip() == address
                || backends.any(|backend| backend.address.ip() == address && by != (true, backend.vlan))
        })
    }

    fn service(&self, id: u16) -> &Service {
        self.services
            .iter()
            .find(|service| service.id == id)
            .expect("connections are of services that there are")
    }

    /// The VLAN of what the connection's backend sends. 0: none.
    fn way_to_backend(&self, connection: &Connection) -> u16 {
        self.backend(connection).vlan
    }

    fn backend(&self, connection: &Connection) -> &Backend {
        &self.service(connection.service).backends[connection.backend]
    }

    fn end(&mut self, key: Tuple) {
        if let Some(connection) = self.connections.remove(&key)
            && self.replies.get(&connection.reply()) == Some(&key)
        {
            self.replies.remove(&connection.reply());
        }
    }
}

fn mac(frame: &[u8], at: usize) -> [u8; 6] {
    frame[at..at + 6].try_into().expect("a segment has a link header")
}

/// How a frame leaves by one interface that came by one of two.
fn leaves(came_behind: bool, goes_behind: bool) -> Action {
    if came_behind == goes_behind { Action::Tx } else { Action::Redirect }
}
