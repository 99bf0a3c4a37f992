//! Rare frames: the test must play some of each kind.

use super::{
    Model, NODE_MACS, Verdict, mac,
    reading::{Reading, Segment, read},
};
use crate::kernel::OTHER_NODE_MAC;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rare {
    /// For Shunt, if it were not to a station other than the node, or to several.
    OtherStation,
    Group,
    /// To the node's second address, and for Shunt.
    SecondAddress,
    /// A connection follows its client to another one.
    Gateway,
    Interface,
    Vlan,
    /// By another way than the connection's, which does not follow.
    Stranger,
    /// The client sends its SYN again, as it was.
    SynAgain,
    /// A new connection's SYN has data (RFC 7413).
    SynData,
    /// The backend's SYN-ACK leaves that data out.
    SynDataIgnored,
    /// Data of the client before the backend's SYN-ACK, and with the acknowledgement that completes the handshake.
    EarlyData,
    CompletingData,
    /// Data of the backend before the handshake is complete.
    EarlyAnswer,
    /// The backend has acknowledged what is as far as can be from what the client has sent.
    Opposite,
    /// The numbers of a connection begin again with another SYN-ACK.
    BeginsAgain,
    /// A connection ends, by both FINs or by a reset.
    Closed,
    Reset,
}

impl Rare {
    pub const ALL: [Self; 17] = [
        Self::OtherStation,
        Self::Group,
        Self::SecondAddress,
        Self::Gateway,
        Self::Interface,
        Self::Vlan,
        Self::Stranger,
        Self::SynAgain,
        Self::SynData,
        Self::SynDataIgnored,
        Self::EarlyData,
        Self::CompletingData,
        Self::EarlyAnswer,
        Self::Opposite,
        Self::BeginsAgain,
        Self::Closed,
        Self::Reset,
    ];
}

/// The way by which a client's segments come: gateway, whether by the interface to the backends, VLAN.
type Way = ([u8; 6], bool, u16);

/// A segment that came by one way, of a connection that had one `before` and has one `after`.
pub(super) fn moved(before: Way, came: Way, after: Way) -> Vec<Rare> {
    let changes = [
        (Rare::Gateway, before.0 != after.0),
        (Rare::Interface, before.1 != after.1),
        (Rare::Vlan, before.2 != after.2),
        (Rare::Stranger, came != after),
    ];
    changes.into_iter().filter(|(_, is)| *is).map(|(rare, _)| rare).collect()
}

impl Model {
    /// The rare kinds of a frame, before anything follows from it.
    pub(super) fn rare(&self, frame: &[u8], segment: Option<&Segment>, verdict: &Verdict) -> Vec<Rare> {
        let to = mac(frame, 0);
        if !NODE_MACS.contains(&to) {
            let rare = if to[0] & 1 == 0 { Rare::OtherStation } else { Rare::Group };
            return if self.would_be_ours(frame) { vec![rare] } else { Vec::new() };
        }
        let Some(segment) = segment else { return Vec::new() };
        let has_data = segment.payload > 0 && !segment.syn;
        let of = |key| self.connections.get(key).map(|one| (one, one.next().is_some()));
        let found = match verdict {
            Verdict::Begin(..) if segment.payload > 0 => Some(Rare::SynData),
            Verdict::ToBackend(key) => match of(key) {
                Some((one, false)) if one.is_syn(segment) => Some(Rare::SynAgain),
                Some((_, false)) if has_data => Some(Rare::EarlyData),
                Some((one, true)) if has_data && one.completes(segment) => Some(Rare::CompletingData),
                Some((one, true)) if one.is_opposite() => Some(Rare::Opposite),
                _ => None,
            },
            Verdict::ToClient(key) => match of(key) {
                Some((one, false)) if one.leaves_data_out(segment) => Some(Rare::SynDataIgnored),
                Some((one, true)) if has_data && !one.is_established() => Some(Rare::EarlyAnswer),
                Some((one, true)) if one.begins_again(segment) => Some(Rare::BeginsAgain),
                _ => None,
            },
            _ => None,
        };
        let second = to == OTHER_NODE_MAC && *verdict != Verdict::Pass;
        found.into_iter().chain(second.then_some(Rare::SecondAddress)).collect()
    }

    fn would_be_ours(&self, frame: &[u8]) -> bool {
        let Reading::Tcp(segment) = read(frame) else { return false };
        let tuple = (segment.src, segment.dst);
        self.connections.contains_key(&tuple)
            || self.replies.contains_key(&tuple)
            || self.services.iter().any(|service| service.vip == segment.dst)
    }
}
