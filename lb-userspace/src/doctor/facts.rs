//! Facts about a host and its devices.

use std::{ops::RangeInclusive, path::PathBuf};

use crate::dataplane::{
    bpf::Owner,
    cgroup::MemoryLimit,
    device::{Offloads, XdpFeatures},
};

/// A fact, or why it is not known.
pub type Known<T> = Result<T, String>;

#[derive(Clone, Debug)]
pub struct Host {
    /// As `uname -r` has it.
    pub kernel: Known<String>,
    pub btf: Known<bool>,
    /// The kernel compiles programs and does not interpret them.
    pub jit: Known<bool>,
    pub root: bool,
    /// The effective set of this process.
    pub capabilities: Known<u64>,
    pub bpffs: Known<Bpffs>,
    /// `net.ipv4.ip_forward`.
    pub forwarding: Known<bool>,
    pub ephemeral: Known<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: Known<Vec<RangeInclusive<u16>>>,
    /// The pinned flow tables have space for so many flows, and `max_flows` is another number.
    pub other_max_flows: Option<u32>,
    /// Bytes.
    pub memory: Known<u64>,
    /// Of this process. `None`: no control group limits its memory.
    pub memory_limit: Known<Option<MemoryLimit>>,
    pub cpus: Known<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bpffs {
    Mounted,
    /// Mounted, or to be mounted, in a mount namespace of this process's own.
    Private,
    /// The directory for the mount exists.
    Unmounted,
    Missing,
}

#[derive(Clone, Debug)]
pub struct Device {
    pub name: String,
    pub up: bool,
    pub driver: Known<String>,
    pub mtu: Known<u32>,
    pub offloads: Known<Offloads>,
    /// Frames may come with unfinished checksums; `None`: not known.
    pub unfinished: Option<bool>,
    /// `None`: the kernel is too old to report them.
    pub features: Known<Option<XdpFeatures>>,
    pub hook: Known<Option<Hook>>,
    /// The programs at tc ingress. None before Linux 6.6.
    pub ingress: Vec<(u32, Known<Owner>)>,
    /// VLAN devices on top of this one.
    pub vlans: Vec<String>,
    /// The other end of a veth.
    pub peer: Option<Known<Peer>>,
    /// `rp_filter`, the larger one of this device's and of `all`.
    pub rp_filter: Known<u8>,
}

/// An XDP program that is attached.
#[derive(Clone, Debug)]
pub struct Hook {
    pub program: u32,
    pub generic: bool,
    pub owner: Known<Owner>,
    /// Where it, or its link, is pinned, if it is not Shunt's.
    pub pin: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Peer {
    pub name: String,
    /// Its name for `ip netns`, if it is not our own namespace.
    pub namespace: Option<String>,
    pub offloads: Offloads,
}
