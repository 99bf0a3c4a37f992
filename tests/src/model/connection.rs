//! The life of one connection, by what both ends say.

use std::net::SocketAddr;

use super::{
    Tuple,
    numbers::{FARTHEST, Fin, Place, later, place},
    reading::Segment,
};

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(super) service: u16,
    /// Its number in the service.
    pub(super) backend: usize,
    /// The backend's address, and ours as it knows us.
    ends: (SocketAddr, SocketAddr),
    /// To and from, for frames to the client.
    pub(super) link: ([u8; 6], [u8; 6]),
    /// Its client's segments come by the interface to the backends, and in this VLAN. 0: none.
    pub(super) behind: bool,
    pub(super) vlan: u16,
    /// The number that acknowledges the backend's SYN.
    backend_syn: Option<u32>,
    established: bool,
    client_fin: Fin,
    backend_fin: Fin,
    reset: bool,
    /// The end of the SYN without its data.
    syn_end: u32,
    /// The end of what the client has sent without a gap, and of what the backend has acknowledged and sent.
    client_end: u32,
    acked: u32,
    sent_end: u32,
    /// Another SYN of the client has reached the backend.
    syn_again: bool,
}

/// The meaning of a client's segment for its connection.
pub(crate) enum Heard {
    Carried,
    /// There is none any more, only a port that rests.
    Rests,
    /// The client begins another one.
    Reopened,
    /// The client seems to begin another one, at a backend that gets none.
    Challenged,
}

impl Connection {
    /// The way is that of the SYN.
    pub(super) fn new(
        service: u16,
        backend: usize,
        ends: (SocketAddr, SocketAddr),
        link: ([u8; 6], [u8; 6]),
        (behind, vlan): (bool, u16),
        syn: &Segment,
    ) -> Self {
        let end = syn.end();
        Self {
            service,
            backend,
            ends,
            link,
            behind,
            vlan,
            backend_syn: None,
            established: false,
            client_fin: Fin::default(),
            backend_fin: Fin::default(),
            reset: false,
            syn_end: syn.seq.wrapping_add(1),
            client_end: end,
            acked: end,
            sent_end: 0,
            syn_again: false,
        }
    }

    /// The tuple of what its backend sends.
    pub(super) fn reply(&self) -> Tuple {
        self.ends
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// By a reset, or because both FINs are acknowledged.
    pub(super) fn is_over(&self) -> bool {
        self.reset || self.client_fin.acknowledged && self.backend_fin.acknowledged
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset
    }

    /// The backend has lost it and accepts the client's new one.
    pub(super) fn begins_again(&self, segment: &Segment) -> bool {
        self.established && self.syn_again && segment.syn && segment.acks
    }

    /// The next numbers of the client and of the backend, once the backend has answered.
    pub(super) fn next(&self) -> Option<(u32, u32)> {
        self.backend_syn.map(|_| (self.client_next(), self.sent_end))
    }

    /// The end of what the client has sent without a gap, unless the backend has acknowledged more.
    fn client_next(&self) -> u32 {
        later(self.acked, self.client_end)
    }

    /// The end of what the client has sent, in a handshake that of its SYN.
    pub(super) fn first_end(&self) -> u32 {
        self.client_end
    }

    /// The end of its SYN without data.
    pub(super) fn syn_end(&self) -> u32 {
        self.syn_end
    }

    /// The way of its client's segments.
    pub(super) fn way(&self) -> ([u8; 6], bool, u16) {
        (self.link.0, self.behind, self.vlan)
    }

    /// This is its client's SYN, as it was.
    pub(super) fn is_syn(&self, segment: &Segment) -> bool {
        segment.syn && !segment.acks && segment.end() == self.client_end
    }

    /// This is the backend's answer to a SYN whose data it does not take.
    pub(super) fn leaves_data_out(&self, segment: &Segment) -> bool {
        segment.syn && segment.acks && segment.ack == self.syn_end && self.syn_end != self.client_end
    }

    /// The backend's acknowledgement is as far as can be from what the client has sent.
    pub(super) fn is_opposite(&self) -> bool {
        self.acked.wrapping_sub(self.client_end) == 1 << 31
    }

    /// This completes the handshake: it acknowledges what the backend has sent.
    pub(super) fn completes(&self, segment: &Segment) -> bool {
        let answers = |syn: u32| segment.ack.wrapping_sub(syn) <= self.sent_end.wrapping_sub(syn);
        !self.established && self.backend_syn.is_some_and(answers) && segment.acks && !segment.rst
    }

    pub(super) fn hears_client(&self, segment: &Segment, admitted: bool) -> Heard {
        let opens = segment.syn && !segment.acks;
        if self.is_over() {
            return if opens { Heard::Reopened } else { Heard::Rests };
        }
        let closing = self.client_fin.counts || self.backend_fin.counts;
        match (opens, self.established) {
            (true, true) if closing => Heard::Reopened,
            (true, true) if !admitted => Heard::Challenged,
            (true, false) if !admitted => Heard::Reopened,
            _ => Heard::Carried,
        }
    }

    /// The client's way, if the segment is of somebody who sees the connection: the two numbers are the nearer to the
    /// next ones, the farther the other is.
    pub(super) fn comes_by(&mut self, segment: &Segment, to: [u8; 6], (behind, vlan): (bool, u16)) {
        let next = self.client_next();
        let off = u64::from(segment.seq.wrapping_sub(next).cast_signed().unsigned_abs());
        let missing = u64::from(self.sent_end.wrapping_sub(segment.ack));
        let farthest = u64::from(FARTHEST);
        let is_known = if segment.syn || segment.rst {
            self.is_syn(segment)
        } else {
            // Of a backend that has not answered there is no number to be near to.
            self.backend_syn.is_some()
                && missing <= farthest
                && off <= farthest
                && (off + 1) * (missing + 1) <= 1 << 28
        };
        if is_known {
            (self.link.0, self.behind, self.vlan) = (to, behind, vlan);
        }
    }

    /// True when nothing is left of it: a handshake that is reset leaves no port to rest.
    pub(super) fn client_said(&mut self, segment: &Segment) -> bool {
        if !self.established {
            if self.completes(segment) {
                self.established = true;
            } else {
                return segment.rst && segment.seq == self.client_end;
            }
        }
        if segment.syn {
            self.syn_again |= !segment.acks;
        } else if segment.rst {
            self.reset |= [self.client_end, self.acked].contains(&segment.seq);
        } else if self.sent_end.wrapping_sub(segment.ack) <= FARTHEST {
            let place = place(segment, self.client_next());
            self.backend_fin.heard(segment.ack);
            if segment.fin {
                self.client_fin.said(place, segment.end());
            }
            if place == Place::Next {
                self.client_end = segment.end();
            }
        }
        false
    }

    /// The same for the backend.
    pub(super) fn backend_said(&mut self, segment: &Segment) -> bool {
        let before = self.sent_end;
        if segment.syn {
            // Of a handshake it may be the same again.
            let is_new = self.established || self.backend_syn != Some(segment.seq.wrapping_add(1));
            if segment.acks && is_new && (!self.established || self.syn_again) {
                self.begins(segment);
            }
            return false;
        }
        if segment.rst {
            let exact = segment.seq == self.sent_end
                || self.backend_fin.counts && segment.seq.wrapping_add(1) == self.sent_end;
            return match (self.established, self.backend_syn) {
                (false, None) => segment.acks && segment.ack == self.client_end,
                (false, Some(_)) => exact,
                (true, _) => {
                    if exact {
                        self.reset = true;
                        self.backend_counts(segment);
                    }
                    false
                }
            };
        }
        if self.established || self.backend_syn.is_some() {
            self.backend_counts(segment);
        }
        if (self.established || self.backend_syn.is_some()) && segment.fin {
            self.backend_fin.said(place(segment, before), segment.end());
        }
        false
    }

    fn backend_counts(&mut self, segment: &Segment) {
        if segment.end() != segment.seq {
            self.sent_end = later(segment.end(), self.sent_end);
        }
        if segment.acks {
            self.acked = later(segment.ack, self.acked);
            if self.established {
                self.client_fin.heard(segment.ack);
            }
        }
    }

    /// The numbers of a SYN-ACK.
    fn begins(&mut self, segment: &Segment) {
        self.backend_syn = Some(segment.seq.wrapping_add(1));
        self.sent_end = segment.end();
        (self.client_end, self.acked) = (segment.ack, segment.ack);
        (self.client_fin, self.backend_fin) = (Fin::default(), Fin::default());
        self.syn_again = false;
    }
}
