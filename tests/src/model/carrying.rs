//! Frames of connections, as they are sent on, and what follows from them.

use std::net::SocketAddr;

use super::{
    Model, Tuple,
    connection::Connection,
    mac,
    played::Rare,
    reading::{Reading, Segment, read},
    rewriting,
};
use crate::kernel::{Family, NODE_MAC, in_family, nat_source};

impl Model {
    /// Learns the backend and the mapping.
    pub(super) fn begins(
        &mut self,
        frame: &[u8],
        segment: &Segment,
        (service, admitted): (u16, &[usize]),
        (behind, tag): (bool, Option<u16>),
        out: &[u8],
    ) -> Result<usize, String> {
        let Reading::Tcp(sent) = read(out) else { return Err("what was sent on is no segment".to_owned()) };
        let found = &self.service(service).backends;
        let backend = admitted.iter().copied().find(|number| found[*number].address == sent.dst);
        let backend = backend.ok_or_else(|| format!("{} is no backend that may have it", sent.dst))?;
        let nat = sent.src;
        if nat.ip() != in_family(family_of(nat), nat_source) {
            return Err(format!("{nat} is not our address"));
        }
        if !self.nat_ports.contains(&nat.port()) {
            return Err(format!("{nat} is not of the NAT range"));
        }
        let (key, reply) = ((segment.src, segment.dst), (sent.dst, nat));
        if let Some(holder) = self.replies.get(&reply).copied() {
            let living =
                self.connections.get(&holder).is_some_and(|one| !one.is_over() && one.is_established());
            if living {
                return Err(format!("{nat} is the mapping of {holder:?}"));
            }
            self.end(holder);
        }
        let link = (mac(frame, 6), NODE_MAC);
        let way = (behind, tag.unwrap_or(0) & 0xfff);
        let connection = Connection::new(service, backend, (sent.dst, nat), link, way, segment);
        self.connections.insert(key, connection);
        self.replies.insert(reply, key);
        self.carried_to_backend(frame, segment, key, out).map(|()| backend)
    }

    pub(super) fn carried_to_backend(
        &mut self,
        frame: &[u8],
        segment: &Segment,
        key: Tuple,
        out: &[u8],
    ) -> Result<(), String> {
        let connection = self.connections.get(&key).ok_or("no such connection")?;
        let (backend, nat) = connection.reply();
        let mac = self.backend(connection).mac;
        rewriting::translated(frame, segment, (mac, self.own_mac), (nat, backend), out)?;
        self.said(key, |one| one.client_said(segment));
        Ok(())
    }

    pub(super) fn carried_to_client(
        &mut self,
        frame: &[u8],
        segment: &Segment,
        key: Tuple,
        out: &[u8],
    ) -> Result<(), String> {
        let connection = self.connections.get(&key).ok_or("no such connection")?;
        rewriting::translated(frame, segment, connection.link, (key.1, key.0), out)?;
        self.said(key, |one| one.backend_said(segment));
        Ok(())
    }

    /// `by`: true when nothing is left of the connection.
    fn said(&mut self, key: Tuple, by: impl FnOnce(&mut Connection) -> bool) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let was_over = connection.is_over();
        let is_gone = by(connection);
        if connection.is_over() && !was_over {
            let rare = if connection.is_reset() { Rare::Reset } else { Rare::Closed };
            *self.played.entry(rare).or_default() += 1;
        }
        if is_gone {
            self.end(key);
        }
    }
}

pub(super) fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
