//! Backends, and reverse NAT.

use super::addr::{Addr, Link, Port};

/// Value of `REVERSE_NAT`. Its key is a backend's address and port as a [`ServiceKey`], its value the one VIP
/// of the backend's replies if they have no flow. An entry is there only in mode `dnat`, and only if one
/// service alone has the backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseNat {
    pub vip: Addr,
    pub port: Port,
    pub service: u16,
    pub backend: u16,
    pub zero: u16,
}

/// Value of `BACKENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    pub addr: Addr,
    /// Source address of frames to the backend (mode `nat`).
    pub nat_addr: Addr,
    pub port: Port,
    /// `backend_flags`
    pub flags: u16,
    /// Grows each time the id is given to another backend, so that a flow of the former backend never reaches
    /// the new one. 0: no backend.
    pub generation: u32,
    pub ifindex: u32,
    pub link: Link,
    pub service: u16,
    /// The VLAN to the backend. 0: frames leave without a tag.
    pub vlan: u16,
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// The Maglev table may give it new connections.
    pub const ADMIT: u16 = 1 << 0;
    /// Half-open: it gets new connections while its trial budget lasts.
    pub const TRIAL: u16 = 1 << 1;
    /// Its connections are reset where the client begins its next request.
    pub const RESET_AT_REQUEST: u16 = 1 << 2;
    /// Its connections are reset at the client's next segment.
    pub const RESET_NOW: u16 = 1 << 3;
    /// A handshake that it refuses or ignores continues with another backend.
    pub const REDISPATCH: u16 = 1 << 4;
}

layout! {
    Backend = 60,
    ReverseNat = 24,
}
