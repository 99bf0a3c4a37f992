//! Findings about one interface, and about how it fits the others.

use super::{
    Device, Finding, FindingCode, Hook, Host, Peer, Wanted,
    host::{known, refused},
};
use crate::{
    attach_mode::{AttachMode, Fallback, XdpMode},
    dataplane::{
        bpf::{Holder, OpenError, Owner},
        device::{Offloads, XdpFeatures},
        host::{self, ONE_BUFFER_MTU},
    },
};

/// Drivers with native XDP in kernels that do not report it.
const NATIVE_DRIVERS: &[&str] = &[
    "bnxt_en",
    "ena",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "nicvf",
    "qede",
    "sfc",
    "stmmaceth",
    "tun",
    "veth",
    "virtio_net",
];

const UNFINISHED: &str = "set xdp_mode = \"tc\" (Linux 6.6), or switch the offload off on the hypervisor's device (QEMU: \
                          `csum=off,guest_csum=off`)";

const VETH: &str = "veth";

/// The attach mode that the facts promise. `None`: native or generic, which this kernel does not report in advance.
type Expected = Option<AttachMode>;

pub(super) fn findings(device: &Device, all: &[Device], host: &Host, wanted: &Wanted) -> Vec<Finding> {
    let without_native = fallback(device, host);
    let mode = match (expected(device, wanted), wanted.xdp_mode, without_native) {
        (Some(AttachMode::Generic), XdpMode::Auto, Fallback::Tc) => Some(AttachMode::Tc),
        (mode, _, _) => mode,
    };
    let mut found = vec![
        link(device),
        driver(device, mode, without_native, wanted),
        known("hook", &device.hook, |hook| holder(device, hook.as_ref(), mode)),
        mtu(device, mode, all).about_traffic(),
    ];
    found.extend(target(device, mode).map(Finding::about_traffic));
    found.push(known("lro", &device.offloads, |offloads| lro(device, *offloads).about_traffic()));
    found.push(known("gro", &device.offloads, |offloads| gro(device, *offloads, mode).about_traffic()));
    found.push(known("vlan", &device.offloads, |offloads| {
        vlan(device, *offloads, mode, &wanted.vlans).about_traffic()
    }));
    found.push(checksums(device, mode, without_native));
    found.push(known("rp_filter", &device.rp_filter, |mode| rp_filter(device, *mode)));
    found
}

fn is_veth(device: &Device) -> bool {
    device.driver.as_ref().is_ok_and(|driver| driver == VETH)
}

/// The way of `auto` without native XDP.
fn fallback(device: &Device, host: &Host) -> Fallback {
    let kernel = host.kernel.as_ref().ok().and_then(|release| host::version(release));
    let driver = device.driver.as_deref().unwrap_or_default();
    Fallback::of(driver, device.unfinished, kernel.is_none_or(|kernel| kernel >= host::TCX))
}

fn expected(device: &Device, wanted: &Wanted) -> Expected {
    match wanted.xdp_mode {
        XdpMode::Generic => return Some(AttachMode::Generic),
        XdpMode::Tc => return Some(AttachMode::Tc),
        XdpMode::Auto | XdpMode::Native => {}
    }
    if let Ok(Some(Hook { generic, owner: Ok(Owner::Instance(_)), .. })) = &device.hook {
        return if *generic { Some(AttachMode::Generic) } else { Some(AttachMode::Native) };
    }
    if device.ingress.iter().any(|(_, owner)| *owner == Ok(Owner::Instance(wanted.instance.clone()))) {
        return Some(AttachMode::Tc);
    }
    match (&device.features, &device.driver) {
        (Ok(Some(features)), _) if features.has(XdpFeatures::NATIVE) => Some(AttachMode::Native),
        (Ok(Some(_)), _) => Some(AttachMode::Generic),
        (Ok(None) | Err(_), Ok(driver)) if NATIVE_DRIVERS.contains(&driver.as_str()) => {
            Some(AttachMode::Native)
        }
        (Ok(None) | Err(_), Ok(_) | Err(_)) => None,
    }
}

fn link(device: &Device) -> Finding {
    if device.up {
        return Finding::ok("link", "up");
    }
    Finding::warn("link", FindingCode::LinkDown, "down").remedy(format!("ip link set {} up", device.name))
}

fn driver(device: &Device, mode: Expected, without_native: Fallback, wanted: &Wanted) -> Finding {
    let name = match &device.driver {
        Ok(name) => name.as_str(),
        Err(why) => return Finding::unknown("driver", why),
    };
    match (mode, wanted.xdp_mode) {
        (Some(AttachMode::Native), _) => Finding::ok("driver", format!("{name}, native XDP")),
        (Some(AttachMode::Tc), XdpMode::Auto) => Finding::warn(
            "driver",
 FindingCode::FallsToTc,
            format!("{name} has no native XDP, so Shunt uses tc ingress: by generic XDP frames may come with unfinished checksums"),
        )
        .remedy("set xdp_mode = \"tc\" to avoid this warning"),
        (Some(AttachMode::Generic), XdpMode::Auto) if without_native == Fallback::None => {
            Finding::fail("driver", FindingCode::NoAttachMode, format!("{name} has no native XDP, and this kernel no tcx"))
                .remedy(UNFINISHED)
        }
        (Some(AttachMode::Tc), _) | (_, XdpMode::Tc) => Finding::ok("driver", format!("{name}, at tc ingress as configured")),
        (Some(AttachMode::Generic), XdpMode::Generic) => Finding::ok("driver", format!("{name}, generic XDP as configured")),
        (Some(AttachMode::Generic), XdpMode::Auto) if is_veth(device) => {
            Finding::warn("driver", FindingCode::VethQueues, "veth without native XDP: the other end has more transmit queues than this end has receive queues, so Shunt uses generic XDP, which is slower")
                .remedy("create both ends with the same number of queues")
        }
        (Some(AttachMode::Generic), XdpMode::Auto) => {
            Finding::warn("driver", FindingCode::FallsToGeneric, format!("{name} has no native XDP, so Shunt uses generic XDP, which is slower"))
                .remedy("set xdp_mode = \"generic\" to avoid this warning")
        }
        (Some(AttachMode::Generic), XdpMode::Native) => Finding::fail("driver", FindingCode::NoNativeXdp, format!("{name} has no native XDP"))
            .remedy("set xdp_mode = \"generic\", or \"auto\""),
        (None, _) => Finding::warn(
            "driver",
 FindingCode::NativeUnknown,
            format!("{name}: this kernel does not report whether it has native XDP; `shunt run` finds out"),
        ),
    }
}

fn holder(device: &Device, hook: Option<&Hook>, mode: Expected) -> Finding {
    if mode == Some(AttachMode::Tc) {
        return Finding::ok("hook", format!("tc ingress, which other programs may use, too{}", also(device)));
    }
    let Some(hook) = hook else { return Finding::ok("hook", format!("free{}", also(device))) };
    let mode = if hook.generic { "generic" } else { "native" };
    let which = format!("program {}, {mode}", hook.program);
    match &hook.owner {
        Ok(Owner::Instance(instance)) => {
            Finding::ok("hook", format!("shunt's, instance {instance} ({which}){}", also(device)))
        }
        Ok(Owner::Other(name)) => {
            let (id, name) = (hook.program, name.clone());
            let holder = Some(Holder { id, name, pin: hook.pin.clone() });
            let error = OpenError::Busy { interface: device.name.clone(), holder };
            let mut finding = refused("hook", FindingCode::HookTaken, &error);
            finding.says += &format!(" ({mode})");
            finding
        }
        Err(why) => Finding::warn(
            "hook",
            FindingCode::HookOwnerUnknown,
            format!("a program is attached ({which}), its owner is not known: {why}"),
        )
        .remedy("run `shunt doctor` as root"),
    }
}

/// The programs at tc ingress.
fn also(device: &Device) -> String {
    let named = device.ingress.iter().map(|(program, owner)| match owner {
        Ok(Owner::Instance(instance)) => format!("shunt's instance {instance} (program {program})"),
        Ok(Owner::Other(Some(name))) => format!("`{name}` (program {program})"),
        Ok(Owner::Other(None)) | Err(_) => format!("program {program}"),
    });
    match named.collect::<Vec<_>>() {
        none if none.is_empty() => String::new(),
        all => format!("; at tc ingress: {}", all.join(", ")),
    }
}

fn mtu(device: &Device, mode: Expected, all: &[Device]) -> Finding {
    let own = match &device.mtu {
        Ok(mtu) => *mtu,
        Err(why) => return Finding::unknown("mtu", why),
    };
    let least = all.iter().filter(|other| other.name != device.name);
    let least = least.filter_map(|other| Some((*other.mtu.as_ref().ok()?, &other.name))).min();
    let frags = matches!(&device.features, Ok(Some(features)) if features.has(XdpFeatures::FRAGS));
    if own > ONE_BUFFER_MTU && !matches!(mode, Some(AttachMode::Generic) | Some(AttachMode::Tc)) && !frags {
        return Finding::warn(
            "mtu",
            FindingCode::MtuAboveBuffer,
            format!("{own}: such frames do not fit into one buffer, and the driver supports no more"),
        )
        .remedy(format!("ip link set {} mtu {ONE_BUFFER_MTU}, or less", device.name));
    }
    match least {
        Some((mtu, name)) if mtu < own => Finding::warn(
            "mtu",
            FindingCode::MtusDiffer,
            format!("{own}, but {name} has {mtu}: Shunt drops larger frames that go there"),
        )
        .remedy(format!("give all interfaces one MTU: ip link set {} mtu {mtu}", device.name)),
        Some(_) | None => Finding::ok("mtu", own.to_string()),
    }
}

/// Whether this interface can send frames that other interfaces redirect to it. `None`: not known.
fn target(device: &Device, mode: Expected) -> Option<Finding> {
    if mode == Some(AttachMode::Tc) {
        return Some(Finding::ok("redirect", "every interface sends frames that are redirected at tc"));
    }
    let Ok(Some(features)) = device.features else { return None };
    if features.has(XdpFeatures::TARGET) {
        return Some(Finding::ok("redirect", "it sends frames that are redirected to it"));
    }
    if is_veth(device) {
        let (name, place) = other_end(device);
        return Some(
            Finding::fail(
                "redirect",
                FindingCode::VethWithoutNapi,
                "frames that are redirected to it vanish, because its other end receives without NAPI",
            )
            .remedy(format!("{place}ethtool -K {name} gro on, once it is up")),
        );
    }
    // Many drivers set up their transmit queues with the program.
    let held = matches!(device.hook, Ok(Some(_)));
    held.then(|| {
        Finding::warn(
            "redirect",
            FindingCode::RedirectRefused,
            "its driver does not accept redirected frames",
        )
    })
}

fn lro(device: &Device, offloads: Offloads) -> Finding {
    if !offloads.lro {
        return Finding::ok("lro", "off");
    }
    Finding::warn(
        "lro",
        FindingCode::LroOn,
        "on: a program cannot handle merged frames, and drivers refuse it",
    )
    .remedy(format!("ethtool -K {} lro off", device.name))
}

fn gro(device: &Device, offloads: Offloads, mode: Expected) -> Finding {
    match (offloads.gro, mode) {
        (true, Some(AttachMode::Generic)) => Finding::warn(
            "gro",
            FindingCode::GroOn,
            "on: generic XDP gets frames that are merged already, larger than the MTU",
        )
        .remedy(format!("ethtool -K {} gro off", device.name)),
        (true, Some(AttachMode::Native)) => Finding::ok("gro", "on, after the program"),
        (true, Some(AttachMode::Tc)) => Finding::ok("gro", "on: merged segments are forwarded as one"),
        (true, None) => Finding::ok("gro", "on; with generic XDP it would have to be off"),
        (false, Some(AttachMode::Native) | Some(AttachMode::Generic) | Some(AttachMode::Tc) | None) => {
            Finding::ok("gro", "off")
        }
    }
}

/// `read`: the VLANs whose frames the program is to look at.
fn vlan(device: &Device, offloads: Offloads, mode: Expected, read: &[u16]) -> Finding {
    if mode == Some(AttachMode::Tc) {
        return Finding::ok("vlan", "the program sees tags, in the frames or beside them");
    }
    let ids = read.iter().map(|id| format!("VLAN {id} (`vlans`)"));
    let all: Vec<String> = device.vlans.iter().cloned().chain(ids).collect();
    match (offloads.rx_vlan, all.is_empty()) {
        (false, _) => Finding::ok("vlan", "tags stay in the frames"),
        (true, true) => Finding::ok(
            "vlan",
            "the device removes tags from received frames; it has no VLAN device, and `vlans` names none",
        ),
        (true, false) => Finding::warn(
            "vlan",
            FindingCode::TagsRemoved,
            format!(
                "the device removes tags from received frames, so frames of {} look untagged to the program",
                all.join(", ")
            ),
        )
        .remedy(format!("ethtool -K {} rxvlan off", device.name)),
    }
}

/// A sender on a virtual link leaves checksums to a device that is not there: what reaches the program has
/// half of one, and no translation makes it right.
fn checksums(device: &Device, mode: Expected, without_native: Fallback) -> Finding {
    if mode == Some(AttachMode::Generic) && without_native != Fallback::Generic {
        return Finding::fail(
            "checksums",
 FindingCode::ChecksumsUnfinished,
            "frames of the same hypervisor come with unfinished checksums, which generic XDP takes for finished ones: \
             receivers drop what Shunt forwards",
        )
        .remedy(UNFINISHED)
        .about_traffic();
    }
    if mode == Some(AttachMode::Tc) {
        return Finding::ok("checksums", "Shunt forwards unfinished checksums as they are");
    }
    let (name, place) = other_end(device);
    let remedy = format!("{place}ethtool -K {name} tx off");
    match &device.peer {
        None => Finding::ok("checksums", "complete when frames arrive, unless a container or virtual machine on this host sends them"),
        Some(Ok(peer)) if !peer.offloads.tx_checksum => {
            Finding::ok("checksums", format!("complete: {} computes them", peer.name))
        }
        Some(Ok(peer)) => Finding::warn(
            "checksums",
 FindingCode::ChecksumsUnfinished,
            format!("{} leaves them to an offload, so the program gets unfinished TCP checksums, and receivers drop these frames as corrupt", peer.name),
        )
        .remedy(format!("{remedy}, or use xdp_mode = \"tc\""))
        .about_traffic(),
        Some(Err(why)) => Finding::warn(
            "checksums",
 FindingCode::ChecksumsUnknown,
            format!("it is not known whether the other end completes them: {why}"),
        )
        .remedy(format!("{remedy}, if TCP connections begin or end there")),
    }
}

/// The other end of a veth, and the beginning of a command for it.
fn other_end(device: &Device) -> (&str, String) {
    match &device.peer {
        Some(Ok(Peer { name, namespace: Some(namespace), .. })) => {
            (name, format!("ip netns exec {namespace} "))
        }
        Some(Ok(Peer { name, namespace: None, .. })) => (name, String::new()),
        Some(Err(_)) | None => ("DEVICE", "at the other end: ".to_owned()),
    }
}

fn rp_filter(device: &Device, mode: u8) -> Finding {
    match mode {
        0 => Finding::ok("rp_filter", "off"),
        2 => Finding::ok("rp_filter", "loose"),
        _ => Finding::warn(
            "rp_filter",
 FindingCode::RpFilterStrict,
            "strict: the kernel drops answers to probes, and other packets for the host, if they arrive by another interface than their route",
        )
        .remedy(format!("sysctl net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{}.rp_filter=2", device.name)),
    }
}
