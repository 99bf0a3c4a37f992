//! Reads facts from the kernel and changes nothing.

use std::{fs, io, path::Path, thread};

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;

use super::{Bpffs, Device, Hook, Host, Known, Peer, Wanted};
use crate::dataplane::{bpf, cgroup, chain, device as nic, host as shared};

/// The directory in which `ip netns` has namespaces.
const NAMESPACES: &str = "/run/netns";

pub fn host(wanted: &Wanted) -> Host {
    let bpffs = wanted.bpffs.as_path();
    Host {
        kernel: text("/proc/sys/kernel/osrelease"),
        btf: known(Path::new("/sys/kernel/btf/vmlinux").try_exists(), "/sys/kernel/btf"),
        jit: text("/proc/sys/net/core/bpf_jit_enable").map(|value| value != "0"),
        root: nix::unistd::geteuid().is_root(),
        capabilities: text("/proc/self/status").and_then(|status| capabilities(&status)),
        bpffs: known(find_bpffs(bpffs), &bpffs.display().to_string()),
        forwarding: text("/proc/sys/net/ipv4/ip_forward").map(|value| value != "0"),
        reserved: known(shared::reserved_ports(), "net.ipv4.ip_local_reserved_ports"),
        ephemeral: known(shared::ephemeral_ports(), "net.ipv4.ip_local_port_range"),
        other_max_flows: bpf::other_max_flows(bpffs, &wanted.instance, wanted.max_flows),
        memory: known(shared::available_memory(), "/proc/meminfo"),
        memory_limit: known(cgroup::memory_limit(), "its control groups"),
        cpus: known(thread::available_parallelism(), "the number of CPUs").map(usize::from),
    }
}

/// The devices with these names. Without names: all devices that are up, except the loopback device.
pub async fn devices(names: &[String], bpffs: &Path) -> io::Result<Vec<Device>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let links = links(&handle).await.map_err(io::Error::other);
    let mut found = Vec::new();
    if let Ok(links) = &links {
        let chosen = links.iter().filter(|link| match names {
            [] => up(link) && !link.header.flags.contains(LinkFlags::Loopback),
            names => name(link).is_some_and(|name| names.iter().any(|wanted| wanted == name)),
        });
        for link in chosen {
            found.push(device(&handle, link, links, bpffs).await);
        }
    }
    connection.abort();
    links.map(|_| found)
}

async fn device(handle: &Handle, link: &LinkMessage, links: &[LinkMessage], bpffs: &Path) -> Device {
    let name = name(link).unwrap_or_default().to_owned();
    let index = link.header.index;
    let driver = match nic::driver(&name) {
        // Such as the loopback device.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok("a device without a driver".to_owned())
        }
        driver => known(driver, "its driver"),
    };
    let peer = match kind(link) {
        Some(InfoKind::Veth) => Some(peer(handle, link, links).await),
        Some(_) | None => None,
    };
    Device {
        up: up(link),
        mtu: known(nic::mtu(&name), "its MTU"),
        offloads: known(nic::offloads(&name), "its offloads"),
        unfinished: nic::unfinished_checksums(&name),
        features: known(nic::xdp_features(index), "what its driver can do with XDP"),
        hook: Ok(hook(link, bpffs)),
        ingress: ingress(&name, bpffs),
        vlans: vlans_on(index, links),
        rp_filter: rp_filter(&name),
        driver,
        peer,
        name,
    }
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, rtnetlink::Error> {
    handle.link().get().execute().try_collect().await
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

/// The device below it or at its other end, and the namespace of that device if it is another one.
fn lower(link: &LinkMessage) -> (Option<u32>, Option<i32>) {
    let (mut index, mut namespace) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(link) => index = Some(*link),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            _ => {}
        }
    }
    (index, namespace)
}

fn vlans_on(index: u32, links: &[LinkMessage]) -> Vec<String> {
    let is_on_top = |link: &&LinkMessage| {
        lower(link) == (Some(index), None) && kind(link).is_some_and(|kind| *kind == InfoKind::Vlan)
    };
    links.iter().filter(is_on_top).filter_map(|link| name(link).map(str::to_owned)).collect()
}

fn hook(link: &LinkMessage, bpffs: &Path) -> Option<Hook> {
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let generic = xdp.iter().any(|part| matches!(part, LinkXdp::Attached(XdpAttached::SocketBuffer)));
    let program = xdp.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    });
    let program = program.filter(|id| *id != 0)?;
    let owner = known(bpf::owner(bpffs, program), &bpffs.display().to_string());
    let pin = matches!(owner, Ok(bpf::Owner::Other(_))).then(|| bpf::pin_of(bpffs, program)).flatten();
    Some(Hook { program, generic, owner, pin })
}

fn ingress(name: &str, bpffs: &Path) -> Vec<(u32, Known<bpf::Owner>)> {
    let owner = |program| known(bpf::owner(bpffs, program), &bpffs.display().to_string());
    bpf::at_tc_ingress(name).into_iter().map(|program| (program, owner(program))).collect()
}

/// The other end of a veth, in this namespace or in one that has a name.
async fn peer(handle: &Handle, link: &LinkMessage, links: &[LinkMessage]) -> Known<Peer> {
    let (index, namespace) = lower(link);
    let index = index.ok_or("the kernel does not name it")?;
    let Some(id) = namespace else {
        let there = links.iter().find(|other| other.header.index == index);
        let name = there.and_then(name).ok_or("it is not among the links")?.to_owned();
        let offloads = known(nic::offloads(&name), "its offloads")?;
        return Ok(Peer { name, namespace: None, offloads });
    };
    for namespace in known(namespaces(), NAMESPACES)? {
        if let Ok(Some(of)) = handle.link().get_netns_id(&namespace).execute().await
            && of == id
        {
            return known(inside(&namespace, index), &format!("namespace {namespace}"));
        }
    }
    Err("it lies in a network namespace without a name".to_owned())
}

fn namespaces() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(NAMESPACES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Reads a device of another namespace, in a thread that enters it.
fn inside(namespace: &str, index: u32) -> io::Result<Peer> {
    let there = fs::File::open(Path::new(NAMESPACES).join(namespace))?;
    let read = move || -> io::Result<(String, nic::Offloads)> {
        setns(there, CloneFlags::CLONE_NEWNET)?;
        let name = nix::net::if_::if_indextoname(index)?.to_string_lossy().into_owned();
        let offloads = nic::offloads(&name)?;
        Ok((name, offloads))
    };
    let result = thread::Builder::new().spawn(read)?.join();
    let (name, offloads) = result.map_err(|_| io::Error::other("the thread that reads it failed"))??;
    Ok(Peer { name, namespace: Some(namespace.to_owned()), offloads })
}

fn rp_filter(name: &str) -> Known<u8> {
    let of = |device: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        text(&path)?.parse::<u8>().map_err(|error| format!("{path}: {error}"))
    };
    Ok(of("all")?.max(of(name)?))
}

fn find_bpffs(path: &Path) -> io::Result<Bpffs> {
    // Without the right to look, it is taken for the host's.
    if bpf::is_private(path).unwrap_or(false) {
        return Ok(Bpffs::Private);
    }
    match bpf::is_bpffs(path) {
        Ok(true) => Ok(Bpffs::Mounted),
        Ok(false) => Ok(Bpffs::Unmounted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Bpffs::Missing),
        Err(error) => Err(error),
    }
}

fn capabilities(status: &str) -> Known<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.ok_or_else(|| "/proc/self/status is not understood".to_owned())
}

fn text(path: &str) -> Known<String> {
    known(fs::read_to_string(path), path).map(|text| text.trim().to_owned())
}

fn known<T>(result: io::Result<T>, what: &str) -> Known<T> {
    result.map_err(|error| format!("{what}: {}", chain(&error)))
}
