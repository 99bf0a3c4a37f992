//! Backends, and the way back from them.

use super::{Addr, Link, Port};

/// Value of `REVERSE_NAT`, whose key is a backend's address and port as a [`ServiceKey`]: the one VIP that its
/// replies can be of, when they belong to no flow. Only of `dnat` services, and only where one service alone
/// has the backend.
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
    /// Source address of what is sent to it (`nat` mode).
    pub nat_addr: Addr,
    pub port: Port,
    /// `backend_flags`
    pub flags: u16,
    /// Grows each time the id is given to another backend, so that a flow of
    /// the former owner never reaches the new one. 0: no backend.
    pub generation: u32,
    pub ifindex: u32,
    pub link: Link,
    pub service: u16,
    /// The VLAN of the way there. 0: frames leave without a tag.
    pub vlan: u16,
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// May be given new connections by the table.
    pub const ADMIT: u16 = 1 << 0;
    /// Half-open: may be given new connections out of its `TRIAL` budget.
    pub const TRIAL: u16 = 1 << 1;
    /// Its connections are ended where the client begins its next request.
    pub const RESET_AT_REQUEST: u16 = 1 << 2;
    /// Its connections are ended, whatever they are doing.
    pub const RESET_NOW: u16 = 1 << 3;
}

layout! {
    Backend = 60,
    ReverseNat = 24,
}
