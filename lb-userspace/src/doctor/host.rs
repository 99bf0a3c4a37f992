//! The host as a whole.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{Bpffs, Finding, FindingCode, Host, Known, Wanted};
use crate::{
    attach_mode::XdpMode,
    dataplane::{
        bpf::{OpenError, flow_table_bytes, start_bytes},
        cgroup::MemoryLimit,
        host::{self, Fit},
    },
};

/// The first kernel with `bpf_xdp_load_bytes`.
const OLDEST_KERNEL: (u32, u32) = (5, 18);

/// Capabilities that loading and attaching need (linux/capability.h).
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

pub(super) fn findings(host: &Host, wanted: &Wanted) -> Vec<Finding> {
    let mut found = vec![
        known("kernel", &host.kernel, |release| kernel(release, wanted)),
        known("btf", &host.btf, |there| btf(*there)),
        known("jit", &host.jit, |on| jit(*on)),
        known("capabilities", &host.capabilities, |set| capabilities(*set, host.root)),
        known("bpffs", &host.bpffs, |state| bpffs(*state, wanted).about_traffic()),
        known("ports", &host.ephemeral, |range| {
            let (nat, host) = (wanted.nat_ports.clone(), range.clone());
            if host::overlap(&nat, &host) {
                return refused("ports", FindingCode::PortsOverlap, &OpenError::PortOverlap { nat, host });
            }
            let (first, last) = (host.start(), host.end());
            Finding::ok(
                "ports",
                format!(
                    "nat_ports {}-{} and the host's own ports {first}-{last} do not overlap",
                    nat.start(),
                    nat.end()
                ),
            )
        }),
        known("vip_ports", &host.ephemeral, |range| {
            vip_ports(range, &host.reserved, &wanted.vip_ports).about_traffic()
        }),
        known("memory", &host.memory, |available| memory(*available, wanted.max_flows)),
        known("cgroup", &host.memory_limit, |limit| cgroup(limit.as_ref(), wanted.max_flows)),
        known("cpus", &host.cpus, |cpus| Finding::ok("cpus", cpus.to_string())),
        known("forwarding", &host.forwarding, |on| forwarding(*on)),
    ];
    found.extend(host.other_max_flows.map(|pinned| max_flows(pinned, wanted).about_traffic()));
    found
}

/// The pinned tables keep their size, because the connections in them live.
fn max_flows(pinned: u32, wanted: &Wanted) -> Finding {
    let Wanted { max_flows, instance, .. } = wanted;
    Finding::warn(
        "max_flows",
        FindingCode::OtherMaxFlows,
        format!("the pinned flow tables are those of an earlier run, for {pinned} flows; max_flows = {max_flows} is not in force"),
    )
    .remedy(format!(
        "stop the daemon, `shunt detach --instance {instance}` and start it again, which ends all connections"
    ))
}

pub(super) fn known<T>(check: &'static str, fact: &Known<T>, judge: impl FnOnce(&T) -> Finding) -> Finding {
    match fact {
        Ok(fact) => judge(fact),
        Err(why) => Finding::unknown(check, why),
    }
}

/// `shunt run` refuses this too, with the same words.
pub(super) fn refused(check: &'static str, code: FindingCode, error: &OpenError) -> Finding {
    let finding = Finding::fail(check, code, error.to_string());
    match error.remedy() {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    }
}

fn kernel(release: &str, wanted: &Wanted) -> Finding {
    let (major, minor) = OLDEST_KERNEL;
    match host::version(release) {
        Some(kernel) if wanted.xdp_mode == XdpMode::Tc && kernel < host::TCX && kernel >= OLDEST_KERNEL => {
            refused("kernel", FindingCode::NoTcx, &OpenError::NoTcx { kernel })
        }
        Some(kernel) if kernel >= OLDEST_KERNEL => Finding::ok("kernel", release),
        Some(_) => Finding::fail(
            "kernel",
            FindingCode::KernelTooOld,
            format!("{release} is older than {major}.{minor}"),
        )
        .remedy(format!("boot Linux {major}.{minor} or later; Debian 12 has 6.1")),
        None => Finding::unknown("kernel", &format!("{release:?} is no version")),
    }
}

fn btf(there: bool) -> Finding {
    if there {
        return Finding::ok("btf", "the kernel has it");
    }
    Finding::warn("btf", FindingCode::NoBtf, "the kernel has no BTF; Shunt is not tested without it")
        .remedy("boot a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build them")
}

fn jit(on: bool) -> Finding {
    if on {
        return Finding::ok("jit", "the kernel compiles programs");
    }
    Finding::warn("jit", FindingCode::NoJit, "programs are interpreted, which is several times slower")
        .remedy("sysctl net.core.bpf_jit_enable=1")
}

fn capabilities(set: u64, root: bool) -> Finding {
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| set & 1 << bit == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Finding::ok("capabilities", "this process has all that it needs");
    }
    let missing = missing.join(", ");
    if root {
        // Probably in a container, whose root cannot get more.
        return Finding::fail(
            "capabilities",
            FindingCode::MissingCapabilities,
            format!("root has no {missing} here"),
        )
        .remedy("run it on the host, or give the container these capabilities");
    }
    Finding::warn(
        "capabilities",
        FindingCode::MissingCapabilities,
        format!("this process has no {missing}, which `shunt run` needs"),
    )
    .remedy("run it as root; then `shunt doctor` sees everything, too")
}

fn bpffs(state: Bpffs, wanted: &Wanted) -> Finding {
    let path = wanted.bpffs.display();
    match state {
        Bpffs::Mounted => Finding::ok("bpffs", format!("mounted at {path}")),
        Bpffs::Private => Finding::warn(
            "bpffs",
            FindingCode::BpffsPrivate,
            format!(
                "{path} is mounted in a mount namespace of this process's own: what Shunt leaves there, and with it \
                 forwarding, ends with the daemon"
            ),
        )
        .remedy(
            "start it in the host's mount namespace: `nsenter --net=/run/netns/NAME shunt run` instead of `ip netns exec`, \
             and no PrivateMounts or MountFlags in its unit; a container needs the host's /sys/fs/bpf",
        ),
        Bpffs::Unmounted => Finding::ok("bpffs", format!("not mounted at {path} yet; `shunt run` does it")),
        Bpffs::Missing => Finding::fail("bpffs", FindingCode::BpffsMissing, format!("there is no directory {path}"))
            .remedy("name another one in the configuration, `bpffs = \"/sys/fs/bpf\"`; the kernel makes that one, if it has BPF"),
    }
}

/// A connection of the host itself may get a VIP's port as its own. If it also has the VIP's address, Shunt takes its
/// replies for frames to the VIP.
fn vip_ports(
    own: &RangeInclusive<u16>,
    reserved: &Known<Vec<RangeInclusive<u16>>>,
    vips: &BTreeSet<u16>,
) -> Finding {
    let is_reserved = |port: u16| reserved.iter().flatten().any(|range| range.contains(&port));
    let exposed: Vec<String> =
        vips.iter().filter(|port| own.contains(port) && !is_reserved(**port)).map(u16::to_string).collect();
    if exposed.is_empty() {
        return Finding::ok("vip_ports", "no VIP has a port of the host's own connections");
    }
    let (first, last) = (own.start(), own.end());
    let before = reserved.iter().flatten().map(|range| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    let all: Vec<String> = before.chain(exposed.iter().cloned()).collect();
    Finding::warn(
        "vip_ports",
        FindingCode::VipPortsOfHost,
        format!(
            "VIPs have the ports {}, which are among the host's own, {first}-{last}: Shunt may take replies to a \
             connection of the host for frames to the VIP",
            exposed.join(", ")
        ),
    )
    .remedy(format!("sysctl net.ipv4.ip_local_reserved_ports={}", all.join(",")))
}

fn memory(available: u64, max_flows: u32) -> Finding {
    let needed = flow_table_bytes(max_flows);
    let says = format!(
        "max_flows = {max_flows} takes {} MiB of {} MiB that are available",
        needed.div_ceil(1 << 20),
        available >> 20
    );
    match host::fit(needed, available) {
        Fit::Well => Finding::ok("memory", says),
        Fit::Tight => Finding::warn("memory", FindingCode::MemoryTight, says + ", more than half")
            .remedy("choose fewer max_flows, or make sure that the rest is enough for the host"),
        Fit::No => {
            refused("memory", FindingCode::MemoryShort, &OpenError::Memory { max_flows, needed, available })
        }
    }
}

fn cgroup(limit: Option<&MemoryLimit>, max_flows: u32) -> Finding {
    let Some(of) = limit else {
        return Finding::ok("cgroup", "no control group of this process limits its memory");
    };
    let needed = start_bytes(Some(max_flows));
    if host::fit(needed, of.left) == Fit::No {
        return refused("cgroup", FindingCode::CgroupShort, &OpenError::Cgroup { needed, of: of.clone() });
    }
    Finding::ok("cgroup", format!("{} leaves {} MiB to this process", of.file.display(), of.left >> 20))
}

fn forwarding(on: bool) -> Finding {
    let state = if on { "on" } else { "off" };
    Finding::ok(
        "forwarding",
        format!("net.ipv4.ip_forward is {state}; Shunt forwards by itself and does not need it"),
    )
}
