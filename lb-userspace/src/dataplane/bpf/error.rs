//! Errors of a start, and what the operator can do about each.

use std::{
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use super::{holder::Holder, pins::Untrusted, sizing::flows_within};
use crate::dataplane::{
    cgroup::MemoryLimit,
    host::{ONE_BUFFER_MTU, TCX},
};

/// The way out on the hypervisor's side.
const SWITCH_OFF: &str = "switch the offload off on the hypervisor's device (QEMU: `csum=off,guest_csum=off`; libvirt: \
                          `<driver><guest csum='off'/></driver>`)";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another daemon of instance {0} is running")]
    Running(String),
    #[error("interface {0} does not exist")]
    NoInterface(String),
    #[error("interface {interface} already has an XDP program{}", named(holder.as_ref()))]
    Busy { interface: String, holder: Option<Holder> },
    #[error("the pins of instance {instance} belong to a daemon in another network namespace")]
    Elsewhere { instance: String },
    #[error("the VIP {vip} is forwarded by instance {instance} already")]
    VipTaken { vip: SocketAddr, instance: String },
    #[error("interface {interface} takes no {mode} XDP program")]
    Attach {
        interface: String,
        mode: &'static str,
        #[source]
        source: ProgramError,
    },
    #[error(
        "interface {interface} takes no native XDP, and by generic XDP frames of its own hypervisor come with unfinished \
         checksums"
    )]
    Unfinished {
        interface: String,
        #[source]
        source: Box<OpenError>,
    },
    #[error(
        "by generic XDP frames come to interface {interface} from its own hypervisor with unfinished checksums"
    )]
    UnfinishedGeneric { interface: String },
    #[error("xdp_mode = \"tc\" needs Linux {}.{}, and this is {}.{}", TCX.0, TCX.1, kernel.0, kernel.1)]
    NoTcx { kernel: (u32, u32) },
    #[error("interface {interface} takes no program at tc ingress")]
    AttachTc {
        interface: String,
        #[source]
        source: ProgramError,
    },
    #[error("not permitted to load BPF programs")]
    NotPermitted,
    #[error("cannot prepare the BPF filesystem at {}", path.display())]
    Bpffs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the pins are not to be trusted")]
    Untrusted(#[source] Untrusted),
    #[error("map {name} pinned in {} has another layout", dir.display())]
    Layout { name: &'static str, dir: PathBuf },
    #[error("cannot load the BPF program")]
    Load(#[source] EbpfError),
    #[error("the kernel refused the BPF program")]
    Verifier(#[source] ProgramError),
    #[error("the BPF object lacks {0}")]
    Object(&'static str),
    #[error("cannot read the maps")]
    Descriptor(#[source] io::Error),
    #[error("cannot write the maps")]
    Map(#[source] MapError),
    #[error("nat_ports {}-{} overlaps the host's own ports {}-{}", nat.start(), nat.end(), host.start(), host.end())]
    PortOverlap { nat: RangeInclusive<u16>, host: RangeInclusive<u16> },
    #[error("max_flows = {max_flows} takes {} MiB, {} MiB are available", needed >> 20, available >> 20)]
    Memory { max_flows: u32, needed: u64, available: u64 },
    #[error(
        "a start takes about {} MiB, and {} = {} MiB leaves {} MiB",
        needed >> 20, of.file.display(), of.limit >> 20, of.left >> 20
    )]
    Cgroup { needed: u64, of: MemoryLimit },
    #[error("interface {interface} has an MTU of {mtu}, more than its driver takes in native XDP")]
    Mtu {
        interface: String,
        mtu: u32,
        #[source]
        source: ProgramError,
    },
}

impl OpenError {
    /// The remedy: an action of the operator.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Running(_) => {
                "stop it, or give this one a name of its own: `instance = \"…\"` in the configuration"
                    .to_owned()
            }
            Self::NoInterface(_) => "`ip link` lists the interfaces".to_owned(),
            Self::Busy { interface, holder } => {
                match holder.as_ref().and_then(|holder| holder.pin.as_ref()) {
                    Some(pin) if pin.components().any(|part| part.as_os_str() == "shunt") => format!(
                        "it is another instance of shunt: `shunt detach --instance {}` ends it; at tc ingress \
                     (xdp_mode = \"tc\") several instances can share an interface",
                        instance_of(pin)
                    ),
                    Some(pin) => format!("`rm {}` detaches it, if nobody needs it", pin.display()),
                    None => format!(
                        "`ip link set {interface} xdp off` removes it; if that says that it is busy, end the process that \
                     holds it (`bpftool link` lists them)"
                    ),
                }
            }
            Self::Elsewhere { .. } => {
                "give this daemon a name of its own: `instance = \"…\"` in the configuration; or \
                                       end the other one with `shunt detach`"
                    .to_owned()
            }
            Self::VipTaken { instance, .. } => format!(
                "remove the service from one of the two; `shunt detach --instance {instance}` ends the other one, which \
                 forwards also while its daemon is stopped"
            ),
            Self::Attach { .. } => "set xdp_mode = \"generic\" if the driver has no XDP".to_owned(),
            Self::Unfinished { source, .. } => {
                let mtu = match source.as_ref() {
                    Self::Mtu { interface, .. } => {
                        format!("`ip link set {interface} mtu {ONE_BUFFER_MTU}` or less; or ")
                    }
                    _ => String::new(),
                };
                format!("{mtu}Linux 6.6 with xdp_mode = \"tc\"; or {SWITCH_OFF}")
            }
            Self::UnfinishedGeneric { .. } => format!(
                "set xdp_mode = \"auto\", which takes native XDP, or tc ingress on Linux 6.6; or {SWITCH_OFF}"
            ),
            Self::NoTcx { .. } => "choose another xdp_mode, or boot a newer kernel".to_owned(),
            Self::AttachTc { .. } => {
                "xdp_mode = \"tc\" needs Linux 6.6 (tcx); the other modes do not".to_owned()
            }
            Self::NotPermitted => {
                "run it as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN".to_owned()
            }
            Self::Bpffs { path, .. } => format!("mount it: `mount -t bpf bpf {}`", path.display()),
            Self::Untrusted(untrusted) => untrusted.remedy(),
            Self::Cgroup { needed, of } => format!(
                "raise the limit to at least {} MiB (`MemoryMax` of its unit), or choose fewer max_flows",
                (of.limit - of.left + needed).div_ceil(1 << 20)
            ),
            Self::Layout { .. } => {
                "another build of shunt made it; `shunt detach` removes it and its connections".to_owned()
            }
            Self::PortOverlap { host, .. } => format!(
                "choose nat_ports outside of it, or move it: `sysctl net.ipv4.ip_local_port_range` is now {} {}",
                host.start(),
                host.end()
            ),
            Self::Memory { available, .. } => {
                format!("choose max_flows of at most {}, or give it more memory", flows_within(*available))
            }
            Self::Mtu { interface, .. } => format!(
                "`ip link set {interface} mtu {ONE_BUFFER_MTU}` or less, or set xdp_mode = \"generic\""
            ),
            Self::Load(_) | Self::Verifier(_) | Self::Object(_) | Self::Descriptor(_) | Self::Map(_) => {
                return None;
            }
        })
    }
}

fn named(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(": {holder}"))
}

/// The instance whose pin this is: `…/shunt/INSTANCE/vABI/PIN`.
fn instance_of(pin: &Path) -> String {
    let folder = pin.parent().and_then(Path::parent).and_then(Path::file_name);
    folder.map_or_else(|| "NAME".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Whether the error or one of its causes is this error of the operating system.
pub(super) fn is_os_error(error: &(dyn std::error::Error + 'static), code: i32) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(code)) {
            return true;
        }
        cause = error.source();
    }
    false
}
