//! The life of one connection, by what both ends say.

use std::net::SocketAddr;

use super::{Tuple, reading::Segment};

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(super) service: u16,
    /// Its number in the service.
    pub(super) backend: usize,
    /// The backend's address, and ours as it knows us.
    ends: (SocketAddr, SocketAddr),
    /// To and from, for frames to the client.
    pub(super) link: ([u8; 6], [u8; 6]),
    /// Of the SYN. 0: none.
    pub(super) vlan: u16,
    /// The number that acknowledges the backend's SYN.
    backend_syn: Option<u32>,
    established: bool,
    client_fin: Fin,
    backend_fin: Fin,
    reset: bool,
}

/// The end of what one side says.
#[derive(Clone, Copy, Debug, Default)]
struct Fin {
    /// The number that acknowledges it.
    number: Option<u32>,
    acknowledged: bool,
}

/// The meaning of a client's segment for its connection.
pub(crate) enum Heard {
    Carried,
    /// There is none any more, only a port that rests.
    Rests,
    /// The client begins another one.
    Reopened,
}

impl Connection {
    pub(super) fn new(
        service: u16,
        backend: usize,
        ends: (SocketAddr, SocketAddr),
        link: ([u8; 6], [u8; 6]),
        vlan: u16,
    ) -> Self {
        Self {
            service,
            backend,
            ends,
            link,
            vlan,
            backend_syn: None,
            established: false,
            client_fin: Fin::default(),
            backend_fin: Fin::default(),
            reset: false,
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

    /// The acknowledgement that completes the handshake, once the backend has answered.
    pub(super) fn awaited(&self) -> Option<u32> {
        self.backend_syn
    }

    pub(super) fn hears_client(&self, segment: &Segment, admitted: bool) -> Heard {
        let opens = segment.syn && !segment.acks;
        if self.is_over() {
            return if opens { Heard::Reopened } else { Heard::Rests };
        }
        let closing = self.client_fin.number.is_some() || self.backend_fin.number.is_some();
        if opens && (!admitted || self.established && closing) { Heard::Reopened } else { Heard::Carried }
    }

    /// True when nothing is left of it: a handshake that is reset leaves no port to rest.
    pub(super) fn client_said(&mut self, segment: &Segment) -> bool {
        if !self.established {
            if self.backend_syn == Some(segment.ack) && segment.acks && !segment.rst {
                self.established = true;
            } else {
                return segment.rst;
            }
        }
        said(segment, &mut self.client_fin, &mut self.backend_fin);
        self.reset |= segment.rst;
        false
    }

    /// The same for the backend.
    pub(super) fn backend_said(&mut self, segment: &Segment) -> bool {
        if !self.established {
            if segment.syn && segment.acks {
                self.backend_syn = Some(segment.seq.wrapping_add(1));
            }
            return segment.rst;
        }
        said(segment, &mut self.backend_fin, &mut self.client_fin);
        self.reset |= segment.rst;
        false
    }
}

/// A segment's claims: its own side has ended, the other side has.
fn said(segment: &Segment, own: &mut Fin, other: &mut Fin) {
    if segment.acks && other.number == Some(segment.ack) {
        other.acknowledged = true;
    }
    if segment.fin {
        own.number = Some(segment.end());
    }
}
